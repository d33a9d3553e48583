"""Writes volumes as a scanner would: DICOM series in spaces of their own, moved by known rigid transforms.

Helper of `round_trip.py` and of the tests; nothing here is needed to use the package.
"""

import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from brats_tf.clinical.grids import Grid, matrix_transform, resample, to_array

# As clinical protocols have them: the axis of the slices, in-plane edge, distance of the slices, mm; times, ms; words.
PROTOCOLS = {
    "flair": {"plane": "axial", "edges": (0.9, 5.0), "times": (120, 9000, 2500), "words": "t2_tirm_tra_dark-fluid"},
    "t1": {"plane": "axial", "edges": (0.9, 5.0), "times": (10, 550, None), "words": "t1_se_tra"},
    "t1ce": {"plane": "sagittal", "edges": (1.0, 1.0), "times": (3, 1900, 900), "words": "t1_mprage_sag KM"},
    "t2": {"plane": "coronal", "edges": (0.9, 3.0), "times": (95, 5000, None), "words": "t2_tse_cor"},
}
# Rows and columns of an image and the direction of its slices, in LPS.
PLANES = {
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "sagittal": ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}


def random_rigid(random, *, degrees=20.0, shift_mm=20.0, centre=(0, 0, 0)):
    """A rigid matrix, (4, 4): a rotation by up to `degrees` around a random axis through `centre`, and a shift."""
    axis = random.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.radians(random.uniform(-degrees, degrees))
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
    shift = random.normal(size=3)
    shift *= random.uniform(0, shift_mm) / np.linalg.norm(shift)
    matrix[:3, 3] = np.asarray(centre) - matrix[:3, :3] @ centre + shift
    return matrix


def scan(image, plane, edges, *, head_to_scanner, tilt=0.0, field_mm=None):
    """What a scanner would have seen of an image: (SimpleITK image on its slices, its `Grid`).

    Args:
        image: SimpleITK image, in the coordinates of the head.
        plane: a key of `PLANES`.
        edges: in-plane edge and distance of the slices, mm.
        head_to_scanner: (4, 4), points of the head to points of the scanner.
        tilt: degrees by which the slices are tilted, so that they are oblique.
        field_mm: the field of view; None for that of the image.
    """
    turn = np.radians(tilt)
    oblique = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    directions = oblique @ np.array(PLANES[plane], float).T
    spacing = np.array([edges[0], edges[0], edges[1]])
    extent = np.array(image.GetSize()) * image.GetSpacing() if field_mm is None else np.array(field_mm)
    along = np.abs(np.array(PLANES[plane], float)) @ extent
    size = np.ceil(along / spacing).astype(int)
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    matrix = np.eye(4)
    matrix[:3, :3] = directions * spacing
    matrix[:3, 3] = (head_to_scanner @ [*centre, 1])[:3] - matrix[:3, :3] @ ((size - 1) / 2)
    grid = Grid(tuple(int(n) for n in size), matrix)
    return _thick(image, grid, matrix_transform(np.linalg.inv(head_to_scanner)), edges), grid


def _thick(image, grid, to_head, edges):
    """Samples an image on a grid whose slices are as thick as they are apart: the mean over the thickness."""
    parts = max(1, round(edges[1]))
    total = 0
    for number in range(parts):
        matrix = grid.matrix.copy()
        matrix[:3, 3] += matrix[:3, 2] * ((number + 0.5) / parts - 0.5)
        total = total + to_array(resample(image, Grid(grid.size, matrix), to_head, kind="linear"))
    mean = sitk.GetImageFromArray(np.ascontiguousarray((total / parts).T.astype(np.float32)))
    mean.SetSpacing(grid.spacing)
    mean.SetDirection((grid.matrix[:3, :3] / grid.spacing).ravel().tolist())
    mean.SetOrigin(grid.matrix[:3, 3].tolist())
    return mean


def write_dicom(image, folder, *, words, times=(10, 500, None), number=1, agent="", person=None, **changes):
    """Writes a SimpleITK image as one DICOM file per slice. Returns their headers.

    Args:
        image: slices along k.
        folder: created.
        words: the description of the series.
        times: TE, TR, TI in ms; None leaves one out.
        number: of the series.
        agent: contrast agent, or "".
        person: {"PatientID", "PatientName", ...}, put into every file.
        changes: attributes that replace what is written, by name; None removes one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.clip(np.round(to_array(image)), 0, 32767).astype(np.int16)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    person = {
        "PatientID": "1",
        "PatientName": "A^B",
        "StudyInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
    } | (person or {})
    series, headers = generate_uid(), []
    for k in range(voxels.shape[2]):
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid()
        header.SeriesInstanceUID, header.Modality, header.SeriesNumber = series, "MR", number
        header.SeriesDescription, header.ImageType = words, ["ORIGINAL", "PRIMARY", "M"]
        header.ContentDate, header.StudyDate, header.StudyTime, header.ContentTime = (
            "20260101",
            "20260101",
            "120000",
            "120000",
        )
        header.PatientBirthDate, header.PatientSex, header.AccessionNumber, header.StudyID = "", "O", "", "1"
        header.Manufacturer, header.MRAcquisitionType, header.InstanceNumber = "made up", "2D", k + 1
        for name, value in zip(("EchoTime", "RepetitionTime", "InversionTime"), times, strict=True):
            if value is not None:
                setattr(header, name, value)
        if agent:
            header.ContrastBolusAgent = agent
        header.Rows, header.Columns = voxels.shape[1], voxels.shape[0]
        header.PixelSpacing = [f"{image.GetSpacing()[1]:.6f}", f"{image.GetSpacing()[0]:.6f}"]
        header.SliceThickness = f"{image.GetSpacing()[2]:.6f}"
        header.SpacingBetweenSlices = header.SliceThickness
        header.ImageOrientationPatient = [f"{value:.9f}" for value in (*direction[:, 0], *direction[:, 1])]
        header.ImagePositionPatient = [f"{value:.6f}" for value in image.TransformIndexToPhysicalPoint((0, 0, k))]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
        for name, value in (person | changes).items():
            if value is None:
                del header[name]
            else:
                setattr(header, name, value)
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID, header.file_meta.MediaStorageSOPInstanceUID = (
            header.SOPClassUID,
            header.SOPInstanceUID,
        )
        pydicom.dcmwrite(folder / f"{k:04}.dcm", header, enforce_file_format=True)
        headers.append(header)
    return headers


def write_enhanced(image, path, *, words, times=(10, 500, None), number=1, agent="", person=None):
    """Writes a SimpleITK image as one Enhanced MR file, with a frame for each slice."""
    with tempfile.TemporaryDirectory() as folder:
        write_dicom(image, folder, words=words, number=number, agent=agent, person=person)
        slices = [pydicom.dcmread(one) for one in sorted(Path(folder).iterdir())]
    header = slices[0]
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    header.NumberOfFrames = len(slices)
    header.PixelData = b"".join(one.PixelData for one in slices)
    timing, echo, inversion, shared = Dataset(), Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, echo.EffectiveEchoTime = times[1], times[0]
    inversion.InversionTimes = times[2] if times[2] is not None else None
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = header.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = header.PixelSpacing, header.SliceThickness
    measures.SpacingBetweenSlices = header.SpacingBetweenSlices
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = [timing], [echo]
    if times[2] is not None:
        shared.MRModifierSequence = [inversion]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    frames = []
    for index, one in enumerate(slices, start=1):
        position, content, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = one.ImagePositionPatient
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", index, [1, index]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frames.append(frame)
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], frames
    for name in ("EchoTime", "RepetitionTime", "InversionTime", "ImageOrientationPatient", "ImagePositionPatient"):
        if name in header:
            del header[name]
    for name in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"):
        del header[name]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, header, enforce_file_format=True)
