"""Finds the cases in a BraTS folder, and says what was left out and why. Reads names and lists only, never voxels."""

import os
import re
from dataclasses import replace
from pathlib import Path

from brats_tf.data.case import Case
from brats_tf.data.case_lists import MSD_FOLDERS, read_list, read_msd
from brats_tf.data.layouts import (
    GRADES,
    HYPHENED,
    PREDICTION_FILE,
    PREDICTION_FOLDERS,
    SEGMENTATION,
    UNDERSCORED,
    ListLayout,
    is_nifti,
    is_safe,
    layout_named,
    parse,
    stem,
)
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES
from brats_tf.runtime.files import read_csv

_SUBJECT = re.compile(r"brats_?\d*_?(subject_?)?id", re.I)  # BraTS_2020_subject_ID, BraTS20ID ...


def find_cases(root: str | Path, *, images: bool = True) -> tuple[list[Case], list[tuple[Path, str]]]:
    """Finds the cases below a folder, or those that a list names.

    Args:
        root: a folder of BraTS 2017-2024 cases in any depth, of MSD Task01 (with its `dataset.json`), or both; or a
            `.csv` or `.json` list of cases, see `case_lists.read_list`.
        images: whether a case needs a modality. Without, segmentations alone are cases; where no name tells one, each
            NIfTI file in the folder itself is.

    Returns:
        (cases, skipped): a list of `Case` sorted by id, and a list of (path, reason) for what looked like a case or a
        volume and is none.

    Raises:
        InputError: when `root` is neither, or holds no case at all; or, without images, two segmentations of a case.
    """
    root = Path(root)
    if root.is_file():
        return read_list(root, images=images)
    if not root.is_dir():
        raise InputError(f"The data folder {root} does not exist or is not a folder.")
    found: list[Case] = []
    grades: dict[str, str] = {}
    skipped: list[tuple[Path, str]] = []
    for folder, folders, files in walk(root, skipped):
        if PREDICTION_FILE in files and folder != root:  # What `predict` wrote, here or in a folder with the cases.
            folders[:] = [name for name in folders if name not in PREDICTION_FOLDERS]
            files = [name for name in files if not is_nifti(name)]
        if "dataset.json" in files:
            found += read_msd(folder / "dataset.json", skipped)
            folders[:] = [name for name in folders if name not in MSD_FOLDERS]
        found += _cases_in(folder, folders, files, skipped)
        for name in files:
            if name.lower().endswith(".csv"):
                grades |= _read_grades(folder / name, skipped)
    cases: dict[str, Case] = {}
    # A segmentation alone may be of another program; images without one are no truth.
    found.sort(key=lambda case: (not images and not case.segmentation, not case.volumes))
    for case in found:
        if case.id in cases:
            skipped.append((case.folder, f"case {case.id} was already found in {cases[case.id].folder}"))
            if not images and case.segmentation and not cases[case.id].volumes:
                raise InputError(
                    f"Case {case.id}: two segmentations without images could be its truth, in "
                    f"{cases[case.id].folder} and {case.folder}. Name the folder of one of them."
                )
        elif images and not case.volumes:
            skipped.append((case.folder, f"case {case.id} has a segmentation but no modality"))
        elif not is_safe(case.id):
            skipped.append((case.folder, f"{case.id!r} cannot be the name of a file"))
        else:
            cases[case.id] = replace(case, grade=grades.get(case.id) or _grade_of(case.folder, root))
    if not cases and not images:
        cases = _unnamed_segmentations(root)
        used = {case.segmentation for case in cases.values()}
        skipped = [(path, reason) for path, reason in skipped if path not in used]
    if not cases:
        raise InputError(
            f"No BraTS case in {root}: expected a folder per case with files such as "
            f"{UNDERSCORED.file_name('<case>', 'flair')} or {HYPHENED.file_name('<case>', 'flair')}, or MSD's "
            f"dataset.json; {_received(skipped)}."
        )
    return [cases[key] for key in sorted(cases)], skipped


def walk(root, skipped):
    """Yields (folder, folder names, file names) below `root`, through links, each real folder once, hidden ones not."""
    seen = set()
    unreadable = lambda error: skipped.append((Path(error.filename), f"it cannot be read: {error.strerror}"))  # noqa: E731
    for folder, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), folders, sorted(files)


def _cases_in(folder, folders, files, skipped):
    """Yields the cases of one folder; appends to `skipped` the NIfTI files that belong to none.

    Takes those of `folders` out that are named like a file and hold it, as in a popular copy on Kaggle.
    """
    found = {}
    named = [(name, folder / name) for name in files if is_nifti(name)]
    for name in [name for name in folders if is_nifti(name)]:
        try:
            inside = [path for path in sorted((folder / name).iterdir()) if is_nifti(path.name) and path.is_file()]
        except OSError:  # `walk` says so.
            continue
        if len(inside) == 1:
            folders.remove(name)
            named.append((name, inside[0]))
    for name, path in named:
        case_id, part, layout = parse(name, folder.name)
        if part is None:
            skipped.append((path, "its name follows no BraTS layout"))
        elif part in found.setdefault((case_id, layout), {}):
            skipped.append((path, f"a second {part} of case {case_id}"))
        else:
            found[case_id, layout][part] = path
    for (case_id, layout), parts in found.items():
        segmentation = parts.pop(SEGMENTATION, None)
        volumes = {name: parts[name] for name in MODALITIES if name in parts}
        yield Case(case_id, volumes, segmentation, layout, folder)


def _unnamed_segmentations(root):
    """The NIfTI files of a folder as segmentations, each of the case whose id is its name."""
    found = {}
    for path in sorted(root.iterdir()):
        if is_nifti(path.name) and path.is_file() and is_safe(case_id := stem(path.name)):
            layout = layout_named(case_id)
            known = {"note": layout.note} if layout else {}
            found[case_id] = Case(case_id, {}, path, ListLayout(layout.convention if layout else None, **known), root)
    return found


def _grade_of(folder, root):
    """HGG or LGG, when a folder between the case and `root`, or `root` itself, is called so."""
    below = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    names = (root.resolve().name, *below)
    return next((name for name in reversed(names) if name in GRADES), None)


def _read_grades(path, skipped):
    """{case id: grade} of a BraTS name mapping; {} for any other table."""
    try:
        rows = read_csv(path)
        names = rows[0] if rows else ()
        columns = [name for name in names if name and _SUBJECT.fullmatch(name)]
        if "Grade" not in names:
            return {}
        return {row[name]: row["Grade"] for row in rows for name in columns if row["Grade"] in GRADES}
    except (OSError, ValueError) as error:
        skipped.append((path, f"it is no readable table: {error}"))
        return {}


def _received(skipped):
    if not skipped:
        return "received no NIfTI file at all"
    path, reason = skipped[0]
    return f"received {len(skipped)} other NIfTI files, the first {path.name} ({reason})"
