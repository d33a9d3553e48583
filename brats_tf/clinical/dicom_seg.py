"""DICOM SEG: the three regions as segments on the slices of the series that they were restored to."""

import warnings

import numpy as np
import pydicom

from brats_tf import __version__
from brats_tf.clinical.stack import stack
from brats_tf.errors import InputError, in_one_line
from brats_tf.regions import REGIONS

# Label, and the coding of each region; SNOMED CT has no enhancing lesion, the NCI Thesaurus has.
SEGMENTS = {
    "WT": ("Whole tumor", "Lesion"),
    "TC": ("Tumor core", "Neoplasm"),
    "ET": ("Enhancing tumor", "EnhancingLesion"),
}
# What a DICOM SEG needs of its source: references, and where the pixels lie. Nothing else of it is passed on, because
# any other attribute may identify a person.
NEEDED = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID PositionReferenceIndicator "
    "Modality Manufacturer Rows Columns NumberOfFrames PixelSpacing SliceThickness SpacingBetweenSlices "
    "ImageOrientationPatient ImagePositionPatient InstanceNumber SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence"
).split()
NEEDED_OF_FRAMES = "PlanePositionSequence PlaneOrientationSequence PixelMeasuresSequence FrameContentSequence".split()
TYPE_2 = (
    "PatientName PatientID PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime "
    "ReferringPhysicianName"
).split()
DISCLAIMER = "Research use only. Not for clinical decisions."
SERIES_NUMBER = 9900


def write_segmentation(path, regions, series):
    """Writes a DICOM SEG: binary, a segment for each region that has voxels.

    Args:
        path: the file to write.
        regions: (X, Y, Z, 3) bool, WT, TC, ET on the grid of `stack(series)`; a voxel at least.
        series: the DICOM `Series`.

    Raises:
        InputError: when the series cannot carry a segmentation.
    """
    import highdicom as hd

    _, frames = stack(series)
    try:
        sources, order = _sources(series, frames)
        pixels = np.moveaxis(regions, 2, 0).transpose(0, 2, 1, 3)[order]  # (Z, rows, columns, 3)
        there = [number for number in range(len(REGIONS)) if pixels[..., number].any()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About values of the source that the standard forbids.
            made = hd.seg.Segmentation(
                source_images=sources,
                pixel_array=np.ascontiguousarray(pixels[..., there]).astype(np.uint8),
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _description(hd, REGIONS[region], number) for number, region in enumerate(there, 1)
                ],
                series_instance_uid=hd.UID(),
                series_number=SERIES_NUMBER,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer="brats_tf",
                manufacturer_model_name="brats_tf",
                software_versions=__version__,
                device_serial_number="0",
                content_label="BRAIN_TUMOR",
                content_description="Brain tumour regions by averaged networks",
                series_description=f"brats_tf: {DISCLAIMER}"[:64],
            )
            made.save_as(path, enforce_file_format=True)
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
    ) as error:  # What highdicom says of headers that lack a part.
        raise InputError(f"{series.name} cannot carry a DICOM SEG: {in_one_line(error)}") from None


def _sources(series, frames):
    """(headers of the source without the person: one a slice, or that of a multi-frame file; order of the slices)."""
    paths = {header.SOPInstanceUID: path for header, path in zip(series.headers, series.files, strict=True)}
    multi = frames[0][1] is not None
    if multi and len(paths) > 1:
        raise InputError(f"{series.name} has several multi-frame files; one can carry a DICOM SEG")
    headers = [frames[0][0]] if multi else [frame[0] for frame in frames]
    sources = [pydicom.dcmread(paths[header.SOPInstanceUID], stop_before_pixels=True) for header in headers]
    sources = [_without_person(source) for source in sources]
    order = np.argsort([frame[1] for frame in frames]) if multi else np.arange(len(frames))
    return sources, order


def _without_person(source):
    """A header with what `NEEDED` names of another, and no more."""
    kept = _only(source, NEEDED)
    kept.file_meta = source.file_meta
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if name in kept:
            groups = [_only(group, NEEDED_OF_FRAMES) for group in source[name].value]
            setattr(kept, name, pydicom.Sequence(groups))
    for name in TYPE_2:
        setattr(kept, name, "")
    return kept


def _only(dataset, names):
    kept = pydicom.Dataset()
    for name in names:
        if name in dataset:
            kept[name] = dataset[name]
    return kept


def _description(hd, region, number):
    from pydicom.sr.codedict import codes

    label, kind = SEGMENTS[region]
    code = getattr(codes.NCIt if region == "ET" else codes.SCT, kind)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=code,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="brats_tf", version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"brats_tf {label}",
        anatomic_regions=[codes.SCT.Brain],
    )
