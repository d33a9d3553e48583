"""Find the cases in a BraTS folder, and say what was left out and why. Reads names only, never voxels."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from brats_tf.errors import InputError
from brats_tf.regions import BRATS_2017, BRATS_2023, MODALITIES, Convention

SEGMENTATION = "seg"


@dataclass(frozen=True)
class Layout:
    """How one generation of BraTS names a case's files: `<case><separator><suffix>.nii[.gz]`."""

    separator: str
    suffixes: dict  # modality or "seg" -> suffix
    convention: Convention

    def file_name(self, case_id, part):
        """What the file of a modality, or of "seg", is called."""
        return f"{case_id}{self.separator}{self.suffixes[part]}.nii.gz"


UNDERSCORED = Layout("_", {**{name: name for name in MODALITIES}, SEGMENTATION: "seg"}, BRATS_2017)
HYPHENED = Layout("-", {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", SEGMENTATION: "seg"}, BRATS_2023)
LAYOUTS = (UNDERSCORED, HYPHENED)

# BraTS 2020 shipped one segmentation under another name.
MISNAMED = {("BraTS20_Training_355", "W39_1998.09.19_Segm"): SEGMENTATION}

_NIFTI = re.compile(r"\.nii(\.gz)?$")


@dataclass(frozen=True)
class Case:
    """One patient's files in one folder."""

    id: str
    volumes: dict  # modality -> Path, only those that are there
    segmentation: Path | None
    layout: Layout
    folder: Path

    @property
    def convention(self):
        """The label convention, which follows from the layout."""
        return self.layout.convention

    def require(self, part):
        """The path of a modality, or of "seg". Raises `InputError` when the case has no such file."""
        path = self.segmentation if part == SEGMENTATION else self.volumes.get(part)
        if path is None:
            there = [*self.volumes, *([SEGMENTATION] if self.segmentation else [])]
            raise InputError(
                f"Case {self.id}: no {part} in {self.folder}; expected {self.layout.file_name(self.id, part)}, "
                f"found {', '.join(there)}."
            )
        return path


def find_cases(root):
    """Finds the cases below a folder.

    Returns:
        (cases, skipped): a list of `Case` sorted by id, and a list of (path, reason) for what looked like a case or a
        volume and is none.

    Raises:
        InputError: when `root` is no folder, or holds no case at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"The data folder {root} does not exist or is no folder.")
    cases, skipped = {}, []
    for folder, files in _walk(root, skipped):
        for case in _cases_in(Path(folder), sorted(files), skipped):
            if case.id in cases:
                skipped.append((case.folder, f"case {case.id} was already found in {cases[case.id].folder}"))
            elif not case.volumes:
                skipped.append((case.folder, f"case {case.id} has a segmentation but no modality"))
            else:
                cases[case.id] = case
    if not cases:
        raise InputError(
            f"No BraTS case in {root}: expected a folder per case with files such as "
            f"{UNDERSCORED.file_name('<case>', 'flair')} or {HYPHENED.file_name('<case>', 'flair')}; "
            f"{_received(skipped)}."
        )
    return [cases[key] for key in sorted(cases)], skipped


def _walk(root, skipped):
    """Yields (folder, file names) below `root`, through links, each real folder once, hidden ones not."""
    seen = set()
    unreadable = lambda error: skipped.append((Path(error.filename), f"it cannot be read: {error.strerror}"))  # noqa: E731
    for folder, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, files


def _cases_in(folder, files, skipped):
    """Yields the cases of one folder; appends to `skipped` the NIfTI files that belong to none."""
    found = {}
    for name in files:
        if not _NIFTI.search(name) or name.startswith("."):
            continue
        case_id, part, layout = _parse(name, folder)
        if part is None:
            skipped.append((folder / name, "its name follows no BraTS layout"))
        elif part in found.setdefault((case_id, layout.separator), (layout, {}))[1]:
            skipped.append((folder / name, f"a second {part} of case {case_id}"))
        else:
            found[case_id, layout.separator][1][part] = folder / name
    for (case_id, _), (layout, parts) in found.items():
        segmentation = parts.pop(SEGMENTATION, None)
        volumes = {name: parts[name] for name in MODALITIES if name in parts}
        yield Case(case_id, volumes, segmentation, layout, folder)


def _parse(name, folder):
    """Splits a file's name into (case id, modality or "seg", layout); (None, None, None) when it is of no layout."""
    stem = _NIFTI.sub("", name)
    if (folder.name, stem) in MISNAMED:
        return folder.name, MISNAMED[folder.name, stem], UNDERSCORED
    for layout in LAYOUTS:
        case_id, separator, suffix = stem.rpartition(layout.separator)
        for part, expected in layout.suffixes.items():
            if separator and case_id and suffix.lower() == expected:
                return case_id, part, layout
    return None, None, None


def _received(skipped):
    if not skipped:
        return "received no NIfTI file at all"
    path, reason = skipped[0]
    return f"received {len(skipped)} other NIfTI files, the first {path.name} ({reason})"
