"""How each generation of BraTS names the files of a case, and which labels it uses."""

import os
import re
from dataclasses import dataclass
from typing import Any

from brats_tf.regions import BRATS_2017, BRATS_2023, BRATS_2024, MODALITIES, MSD_TASK01, Convention

SEGMENTATION = "seg"
# Of what `predict` writes: the record in a folder of label maps, and the folders of other volumes beside them.
PREDICTION_FILE, PREDICTION_FOLDERS = "prediction.json", ("probabilities", "uncertainty")
MAX_ID_LENGTH = 128  # In bytes: leaves room for the rest of a file's name.
GRADES = ("HGG", "LGG")  # High-grade and low-grade glioma, as 2017-2020 sort them.
PARTS = (*MODALITIES, SEGMENTATION)


@dataclass(frozen=True)
class Layout:
    """One way to name files: `<case><separator><suffix>.nii[.gz]`."""

    name: str
    convention: Convention
    separator: str = "_"
    suffixes: tuple = PARTS  # In the order of PARTS.
    note: str = ""  # What a person should know about its labels.

    def file_name(self, case_id, part):
        """What the file of a modality, or of "seg", is called."""
        return f"{case_id}{self.separator}{self.suffixes[PARTS.index(part)]}.nii.gz"


@dataclass(frozen=True)
class MsdLayout:
    """The Medical Segmentation Decathlon: the modalities of a case are the channels of one file."""

    name: str = "MSD Task01"
    convention: Convention = MSD_TASK01
    note: str = ""

    def file_name(self, case_id, part):
        """What the file that holds a modality, or "seg", is called."""
        return f"labelsTr/{case_id}.nii.gz" if part == SEGMENTATION else f"{part} as a channel of {case_id}.nii.gz"


@dataclass(frozen=True)
class ListLayout:
    """A list written by the user, or a file whose name follows no layout; a convention of None is not known yet."""

    convention: Convention | None
    name: str = "list"
    note: str = ""

    def file_name(self, case_id, part):
        """Where a modality, or "seg", would have to be named."""
        return f"a file in the list's column {part}"


# The suffixes of 2023 and later, in the order of PARTS.
_HYPHENED: dict[str, Any] = {"separator": "-", "suffixes": ("t2f", "t1n", "t1c", "t2w", "seg")}
UNDERSCORED = Layout("BraTS 2017-2021", BRATS_2017)
HYPHENED = Layout("BraTS 2023", BRATS_2023, **_HYPHENED)

_PED_NOTE = (
    "BraTS-PED files are called alike in 2023 and 2024, but numbered otherwise; they are taken as those of 2023, and a "
    "list of cases can say brats2024-ped"
)

# The first pattern that a case id matches says more than its file names do.
_BY_ID = (
    *((re.compile(rf"brats{year}[_-]", re.I), Layout(f"BraTS 20{year}", BRATS_2017)) for year in (17, 18, 19, 20)),
    (re.compile(r"brats2021_", re.I), Layout("BraTS 2021", BRATS_2017)),
    # Post-treatment scans share the names of 2023's, but their time points are counted from 100.
    (re.compile(r"brats-gli-\d+-1\d\d$", re.I), Layout("BraTS 2024 post-treatment", BRATS_2024, **_HYPHENED)),
    (re.compile("brats-ped-", re.I), Layout("BraTS 2023 PED", BRATS_2023, **_HYPHENED, note=_PED_NOTE)),
    *(
        (re.compile(rf"brats-{group}-", re.I), Layout(f"BraTS 2023 {group}", BRATS_2023, **_HYPHENED))
        for group in ("GLI", "SSA", "MET", "MEN", "GoAT")
    ),
)

# BraTS 2020 shipped one segmentation under another name.
MISNAMED = {("BraTS20_Training_355", "W39_1998.09.19_Segm"): SEGMENTATION}

_NIFTI = re.compile(r"\.nii(\.gz)?$", re.I)


def is_nifti(name):
    """Whether a file's name is that of a NIfTI file; hidden files (macOS leaves some) are none."""
    return bool(_NIFTI.search(name)) and not name.startswith(".")


def stem(name):
    """A NIfTI file's name without its ending.

    >>> stem("BraTS20_Training_001_flair.nii.gz")
    'BraTS20_Training_001_flair'
    """
    return _NIFTI.sub("", name)


def parse(name, folder_name):
    """Splits a file's name into (case id, modality or "seg", layout); (None, None, None) when it is of no layout.

    >>> case_id, part, layout = parse("BraTS-GLI-00005-100-t1c.nii.gz", "")
    >>> case_id, part, layout.name
    ('BraTS-GLI-00005-100', 't1ce', 'BraTS 2024 post-treatment')
    """
    whole = stem(name)
    if (folder_name, whole) in MISNAMED:
        return folder_name, MISNAMED[folder_name, whole], layout_of(folder_name, UNDERSCORED)
    for layout in (UNDERSCORED, HYPHENED):
        case_id, separator, suffix = whole.rpartition(layout.separator)
        if separator and case_id and suffix.lower() in layout.suffixes:
            return case_id, PARTS[layout.suffixes.index(suffix.lower())], layout_of(case_id, layout)
    return None, None, None


def layout_of(case_id, default):
    """The layout that a case id tells, if its files are named like it; else `default`."""
    for pattern, layout in _BY_ID:
        if pattern.match(case_id) and layout.separator == default.separator:
            return layout
    return default


def layout_named(case_id):
    """The layout that a case id tells, whatever its files are called; None where it tells none."""
    return next((layout for pattern, layout in _BY_ID if pattern.match(case_id)), None)


def _bytes(name):
    """The length of a name on the disk; 0 where its encoding does not have it."""
    try:
        return len(os.fsencode(name))
    except UnicodeEncodeError:
        return 0


def is_safe(case_id):
    """Whether a case id can be a file's name and a table's cell as it is.

    No path, no hidden file, no option (`-rf`), no formula of a spreadsheet (`=cmd()`), no control characters.
    """
    return (
        0 < _bytes(case_id) <= MAX_ID_LENGTH
        and (case_id[0].isalnum() or case_id[0] == "_")
        and case_id.isprintable()
        and not set(case_id) & set('/\\:*?"<>|')
    )
