"""The series in a patient's folder: DICOM files by their headers, NIfTI files by their names.

Of a DICOM header nothing leaves this module but what tells the contrast and the place of the slices. What identifies a
person is read to keep two persons apart, and folders called after one out of messages; UIDs stay in memory, for the one
file that has to name them, the DICOM SEG.
"""

import hashlib
import re
import unicodedata
import warnings
from dataclasses import dataclass, field

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from brats_tf.clinical.lost_slices import lost_among, missing_in, should_be_an_image
from brats_tf.data.discovery import walk
from brats_tf.data.layouts import is_nifti
from brats_tf.errors import reason_of
from brats_tf.runtime.files import sha256_of

TAGS = (
    "Rows Columns Modality ImageType SamplesPerPixel NumberOfFrames SOPClassUID SOPInstanceUID SeriesInstanceUID "
    "StudyInstanceUID FrameOfReferenceUID PatientID PatientName PatientBirthDate SeriesNumber "
    "SeriesDescription ProtocolName SequenceName ScanningSequence ContrastBolusAgent ContrastBolusAgentSequence "
    "EchoTime RepetitionTime InversionTime MRAcquisitionType PixelSpacing SliceThickness ImageOrientationPatient "
    "ImagePositionPatient "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
).split()
CONFORM_FILE = "conform.json"  # Of a case that was made of a patient.
# Folders that file servers and file browsers make; hidden ones are skipped as well.
OF_THE_SYSTEM = (*"@eaDir #recycle #snapshot $RECYCLE.BIN __MACOSX lost+found".split(), "System Volume Information")
_UID = re.compile(r"\d+(\.\d+){4,}")


@dataclass(frozen=True)
class Series:
    """One series of a patient: a stack of slices.

    Attributes:
        name: how messages call it: its number and folder, or the file; nothing that identifies a person.
        files: DICOM files, or one NIfTI file.
        tags: of the first DICOM header, what `identify` reads; {} for NIfTI.
        headers: of each DICOM file, without pixels; () for NIfTI.
        person: hashes of the id, name and birth date of the person, "" where a header has none; see `of_one_person`.
        frame: a key that is equal for series of one frame of reference, or of one examination whose headers name none;
            "" for NIfTI.
        copies: files that were left out because they are copies of others, byte for byte.
        damaged: a clause about a file that may be a slice of it and cannot be read; "" for none.
    """

    name: str
    files: tuple
    tags: dict = field(default_factory=dict)
    headers: tuple = field(default=(), repr=False)
    person: tuple = field(default=("", "", ""), repr=False)
    frame: str = field(default="", repr=False)
    copies: tuple = ()
    damaged: str = ""

    @property
    def is_dicom(self):
        """Whether it is DICOM, not NIfTI."""
        return bool(self.headers)

    @property
    def sha256(self):
        """Of the contents of all its files."""
        return sha256_of(*self.files)


def of_one_person(one, other):
    """Whether two `Series` may be of one person: by their ids, and where one has none by names and birth dates."""
    pairs = list(zip(one.person, other.person, strict=True))
    decisive = pairs[:1] if all(pairs[0]) else pairs[1:]
    return all(first == second for first, second in decisive if first and second)


def read_series(folder, patient):
    """All series under a folder, sorted by name.

    Args:
        folder: of one patient; DICOM files in any depth, NIfTI files.
        patient: the name of the patient in messages.

    Returns:
        (list of `Series`, list of sentences about files left out).
    """
    groups, images, notes, others, damaged, unreadable = {}, [], [], [], {}, []
    for path in files_under(folder, unreadable):
        if is_nifti(path.name):
            images.append(path)
            continue
        header = _header(path)
        if header is None:
            others.append(path)
        elif isinstance(header, str):
            damaged[path] = header, None
        elif "SeriesInstanceUID" in header and "Rows" in header:
            groups.setdefault(header.SeriesInstanceUID, []).append((path, header))
        elif should_be_an_image(header):
            damaged[path] = "its header is cut short", header.get("SeriesInstanceUID")
        else:
            notes.append((path, "is no image; it was left out"))
    lost = lost_among(others, groups)
    damaged |= dict.fromkeys(lost, ("it is empty, or no DICOM file any more", None))
    notes += [(path, f"was left out: {reason}") for path, (reason, _) in damaged.items()]
    persons = [header for files in groups.values() for _, header in files[:1]]

    def place(path):
        return _without_person(path.relative_to(folder).parts, *persons)

    left_out = [f"Patient {patient}: {place(path)} {text}." for path, text in notes]
    found, missing = [Series(place(path), (path,)) for path in images], missing_in(groups, damaged)
    for uid, files in groups.items():
        slices, copies = _without_copies(files)
        beside = next((f"{place(path)} cannot be read: {damaged[path][0]}" for path in missing[uid]), "")
        found.append(_series(folder, slices, copies, beside))
    if copies := sum(len(one.copies) for one in found):
        left_out.append(f"Patient {patient}: {copies} file(s) that are copies of others were left out.")
    left_out += [f"Patient {patient}: a folder was left out: {reason}." for _, reason in unreadable]
    if rest := len(others) - len(lost):
        left_out.append(f"Patient {patient}: {rest} file(s) that are neither DICOM nor NIfTI were left out.")
    return sorted(found, key=lambda series: series.name), left_out


def _without_copies(files):
    """(the files of a series without byte-for-byte copies, the copies)."""
    first, kept, copies = {}, [], []
    for path, header in files:
        before = first.setdefault(header.get("SOPInstanceUID"), path)
        if before is path or sha256_of(before) != sha256_of(path):
            kept.append((path, header))
        else:
            copies.append(path)
    return kept, tuple(copies)


def files_under(folder, unreadable=None):
    """The files in any depth of a folder, sorted; links are followed.

    Hidden files and folders are left out, and those of the operating system and of cases that `conform` made. To the
    list `unreadable` (folder, reason) of those are added whose content cannot be listed.
    """
    found = []
    for place, folders, names in walk(folder, [] if unreadable is None else unreadable):
        if CONFORM_FILE in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if name not in OF_THE_SYSTEM]
        found += [place / name for name in names if not name.startswith(".")]
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
        return f"it is a damaged DICOM file ({reason_of(error)})"


def _series(folder, files, copies, damaged):
    (path, first), *_ = files
    place = _without_person(path.parent.relative_to(folder).parts, first)
    number = first.get("SeriesNumber")
    name = f"series {number if number is not None else '?'}{'' if place == '.' else f' in {place}'}"
    frame = next((tag for tag in ("FrameOfReferenceUID", "StudyInstanceUID") if first.get(tag)), "SeriesInstanceUID")
    return Series(
        name,
        tuple(path for path, _ in files),
        _tags(first),
        tuple(header for _, header in files),
        tuple(_hash(_plain(first.get(tag))) for tag in ("PatientID", "PatientName", "PatientBirthDate")),
        _hash(str(first.get(frame, ""))),
        copies,
        damaged,
    )


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _plain(value):
    """A value of a header as it is compared: one form of its letters, one case, words apart by a space."""
    text = unicodedata.normalize("NFC", str(value or "")).casefold()
    return " ".join(re.split(r"[\s^=,]+", text)).strip()


def _without_person(parts, *headers):
    """A path of which no part is called after a person or a UID; such parts become `*`."""
    tags = ("PatientID", "PatientName", "PatientBirthDate")
    words = [word for header in headers for tag in tags for word in _plain(header.get(tag)).split()]
    # A name of two letters of the Latin alphabet would hide half of all folders.
    names = [word for word in words if len(word) > (2 if word.isascii() else 1)]
    personal = [any(name in _plain(part) for name in names) or _UID.search(part) for part in parts]
    return "/".join("*" if hide else part for part, hide in zip(parts, personal, strict=True)) or "."


def _tags(header):
    """What tells the contrast, from a header, or from the functional groups of an enhanced one."""
    names = (
        "Modality ImageType SamplesPerPixel SeriesNumber SeriesDescription ProtocolName SequenceName ScanningSequence "
        "ContrastBolusAgent EchoTime RepetitionTime InversionTime MRAcquisitionType"
    ).split()
    tags = {name: header.get(name) for name in names if header.get(name) not in (None, "")}
    if agents := [str(one.get("CodeMeaning", "an agent")) for one in header.get("ContrastBolusAgentSequence") or []]:
        tags.setdefault("ContrastBolusAgent", ", ".join(agents))
    groups = [
        *header.get("SharedFunctionalGroupsSequence", []),
        *header.get("PerFrameFunctionalGroupsSequence", [])[:1],
    ]
    usage = [one for group in groups for one in group.get("ContrastBolusUsageSequence", [])]
    if usage and all(one.get("ContrastBolusAgentAdministered") == "NO" for one in usage):
        tags.pop("ContrastBolusAgent", None)
    for group in groups:
        for timing in group.get("MRTimingAndRelatedParametersSequence", []):
            tags.setdefault("RepetitionTime", timing.get("RepetitionTime"))
        for echo in group.get("MREchoSequence", []):
            tags.setdefault("EchoTime", echo.get("EffectiveEchoTime"))
        for modifier in group.get("MRModifierSequence", []):
            if modifier.get("InversionTimes"):
                tags.setdefault("InversionTime", np.atleast_1d(modifier.InversionTimes)[0])
    return tags
