"""The series in a patient's folder: DICOM files by their headers, NIfTI files by their names.

Of a DICOM header nothing leaves this module but what tells the contrast and the place of the slices. What identifies a
person is read to keep two persons apart, and folders called after one out of messages; UIDs stay in memory, for the one
file that has to name them, the DICOM SEG.
"""

import hashlib
import re
import warnings
from dataclasses import dataclass, field

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from brats_tf.clinical.grids import Grid
from brats_tf.data.discovery import walk
from brats_tf.data.layouts import is_nifti
from brats_tf.errors import InputError, in_one_line
from brats_tf.runtime.files import sha256_of

TAGS = (
    "Rows Columns Modality ImageType SamplesPerPixel NumberOfFrames SOPClassUID SOPInstanceUID SeriesInstanceUID "
    "StudyInstanceUID FrameOfReferenceUID PatientID PatientName PatientBirthDate SeriesNumber "
    "SeriesDescription ProtocolName SequenceName ScanningSequence ContrastBolusAgent EchoTime RepetitionTime "
    "InversionTime MRAcquisitionType PixelSpacing SliceThickness ImageOrientationPatient ImagePositionPatient "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
).split()
PARALLEL = 1e-3  # How far the directions of two slices of a series may differ.
_UID = re.compile(r"\d+(\.\d+){4,}")
SLANT_DEGREES = 0.2  # How far the stack may lean from the normal of its slices.
GAP_TOLERANCE = 0.02  # How far the distance of two slices may differ from the usual one, as a share of it.


@dataclass(frozen=True)
class Series:
    """One series of a patient: a stack of slices.

    Attributes:
        name: how messages call it: its number and folder, or the file; nothing that identifies a person.
        files: DICOM files, or one NIfTI file.
        tags: of the first DICOM header, what `identify` reads; {} for NIfTI.
        headers: of each DICOM file, without pixels; () for NIfTI.
        patient: a key that is equal for series of one person; "" where it is not known.
        frame: the same for the frame of reference.
    """

    name: str
    files: tuple
    tags: dict = field(default_factory=dict)
    headers: tuple = field(default=(), repr=False)
    patient: str = field(default="", repr=False)
    frame: str = field(default="", repr=False)

    @property
    def is_dicom(self):
        """Whether it is DICOM, not NIfTI."""
        return bool(self.headers)

    @property
    def sha256(self):
        """Of the contents of all its files."""
        return sha256_of(*self.files)


def read_series(folder, patient):
    """All series under a folder, sorted by name.

    Args:
        folder: of one patient; DICOM files in any depth, NIfTI files.
        patient: the name of the patient in messages.

    Returns:
        (list of `Series`, list of sentences about files left out).
    """
    groups, found, left_out, others = {}, [], [], 0
    unreadable = []
    for path in files_under(folder, unreadable):
        place = path.relative_to(folder).as_posix()
        if is_nifti(path.name):
            found.append(Series(place, (path,)))
            continue
        header = _header(path)
        if header is None:
            others += 1
        elif isinstance(header, str):
            left_out.append(f"Patient {patient}: {place}: {header}.")
        elif "SeriesInstanceUID" in header and "Rows" in header:
            groups.setdefault(header.SeriesInstanceUID, []).append((path, header))
        else:
            left_out.append(f"Patient {patient}: {place} is no image; it was left out.")
    found += [_series(folder, files) for files in groups.values()]
    left_out += [f"Patient {patient}: a folder was left out: {reason}." for _, reason in unreadable]
    if others:
        left_out.append(f"Patient {patient}: {others} file(s) that are neither DICOM nor NIfTI were left out.")
    return sorted(found, key=lambda series: series.name), left_out


def files_under(folder, unreadable=None):
    """The files in any depth of a folder, sorted; links are followed, hidden files and folders left out.

    To the list `unreadable` (folder, reason) of those are added whose content cannot be listed.
    """
    places = walk(folder, [] if unreadable is None else unreadable)
    found = [place / name for place, _, names in places for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _header(path):
    """The tags of a DICOM file; None where it is none; a clause where it is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About values that the standard forbids and nobody here reads.
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom raises whatever the damage leads to.
        return f"it is a damaged DICOM file ({in_one_line(error)})"


def _series(folder, files):
    (path, first), *_ = files
    place = _without_person(path.parent.relative_to(folder).parts, first)
    number = first.get("SeriesNumber")
    name = f"series {number if number is not None else '?'}{'' if place == '.' else f' in {place}'}"
    keys = [
        hashlib.sha256(str(first.get(tag, "")).encode()).hexdigest() for tag in ("PatientID", "FrameOfReferenceUID")
    ]
    return Series(
        name,
        tuple(path for path, _ in files),
        _tags(first),
        tuple(header for _, header in files),
        keys[0] if first.get("PatientID") else "",
        keys[1] if first.get("FrameOfReferenceUID") else "",
    )


def _without_person(parts, header):
    """A path whose folders are not called after a person or a UID; such folders become `*`."""
    words = (
        f"{header.get('PatientID', '')} {header.get('PatientName', '')} {header.get('PatientBirthDate', '')}".lower()
    )
    names = [word for word in re.split(r"[\s^=,]+", words) if len(word) > 2]
    personal = [any(name in part.lower() for name in names) or _UID.search(part) for part in parts]
    return "/".join("*" if hide else part for part, hide in zip(parts, personal, strict=True)) or "."


def _tags(header):
    """What tells the contrast, from a header, or from the functional groups of an enhanced one."""
    names = (
        "Modality ImageType SamplesPerPixel SeriesNumber SeriesDescription ProtocolName SequenceName ScanningSequence "
        "ContrastBolusAgent EchoTime RepetitionTime InversionTime MRAcquisitionType"
    ).split()
    tags = {name: header.get(name) for name in names if header.get(name) not in (None, "")}
    groups = [
        *header.get("SharedFunctionalGroupsSequence", []),
        *header.get("PerFrameFunctionalGroupsSequence", [])[:1],
    ]
    for group in groups:
        for timing in group.get("MRTimingAndRelatedParametersSequence", []):
            tags.setdefault("RepetitionTime", timing.get("RepetitionTime"))
        for echo in group.get("MREchoSequence", []):
            tags.setdefault("EchoTime", echo.get("EffectiveEchoTime"))
        for modifier in group.get("MRModifierSequence", []):
            if modifier.get("InversionTimes"):
                tags.setdefault("InversionTime", np.atleast_1d(modifier.InversionTimes)[0])
    return tags


def frames_of(series):
    """Of each slice of a DICOM series: (header, index of the frame or None, orientation, position, pixel spacing).

    Raises:
        InputError: when a slice does not say where it lies.
    """
    frames = []
    for header in series.headers:
        per_frame = header.get("PerFrameFunctionalGroupsSequence")
        if not per_frame:
            frames.append((header, None, *(header.get(name) for name in _PLACE)))
            continue
        shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
        for index, group in enumerate(per_frame):
            values = []
            for name, sequence in zip(_PLACE, _SEQUENCES, strict=True):
                holder = next((one[sequence][0] for one in (group, shared) if sequence in one), pydicom.Dataset())
                values.append(holder.get(name))
            frames.append((header, index, *values))
    for _, _, orientation, position, spacing in frames:
        values = ((orientation, "orientation", 6), (position, "position", 3), (spacing, "pixel spacing", 2))
        for value, name, count in values:
            if value is None or np.shape(value) != (count,) or not np.isfinite(np.array(value, float)).all():
                raise InputError(f"{series.name} has slices without {name} in their headers")
    return frames


_PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
_SEQUENCES = ("PlaneOrientationSequence", "PlanePositionSequence", "PixelMeasuresSequence")


def stack(series):
    """The grid of a DICOM series and the order of its slices along it.

    Returns:
        (`Grid` with i along a row, j along a column, k from slice to slice; frames as `frames_of` has them, by k).

    Raises:
        InputError: when the slices are no stack: too few, of several orientations or sizes, unevenly spaced, shifted
            sideways, one place twice.
    """
    frames = frames_of(series)
    sizes = {(int(header.Columns), int(header.Rows)) for header in series.headers}
    orientations = np.array([frame[2] for frame in frames], float)
    spacings = np.array([frame[4] for frame in frames], float)
    if len(sizes) > 1 or np.ptp(orientations, axis=0).max() > PARALLEL or np.ptp(spacings, axis=0).max() > PARALLEL:
        raise InputError(f"{series.name} has slices of several sizes or orientations, as localisers have")
    if len(frames) < 4:  # What the registration's smoothing needs.
        raise InputError(f"{series.name} must have at least 4 slices; received {len(frames)}")
    row, column = orientations[0].reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([frame[3] for frame in frames], float)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        raise InputError(
            f"{series.name} has {int((gaps < 1e-3).sum()) + 1} slices or more at one place, as time series have"
        )
    worst = gaps[np.abs(gaps - usual).argmax()]
    if abs(worst - usual) > max(GAP_TOLERANCE * usual, 0.01):
        raise InputError(
            f"{series.name} has slices {usual:.3g} mm apart, but two that are {worst:.3g} mm apart: slices are missing "
            "or unevenly spaced"
        )
    matrix = np.eye(4)
    first, last = positions[order[0]], positions[order[-1]]
    slant = np.degrees(np.arctan2(np.linalg.norm(np.cross(normal, last - first)), normal @ (last - first)))
    if slant > SLANT_DEGREES:
        raise InputError(
            f"{series.name} has slices that are shifted sideways, by {slant:.2g} degrees from their normal, as with a "
            "tilted gantry; a stack must be rectangular"
        )
    matrix[:3, 0], matrix[:3, 1] = row * spacings[0][1], column * spacings[0][0]
    matrix[:3, 2], matrix[:3, 3] = (last - first) / (len(frames) - 1), first
    return Grid((*sizes.pop(), len(frames)), matrix), [frames[index] for index in order]
