"""The content of a data folder: each case's files, labels and geometry, as a table for people or JSON for programs."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor

from rich.table import Table

from brats_tf.data import volumes
from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.nifti import read_header
from brats_tf.data.notes import log_notes, log_skipped
from brats_tf.errors import InputError, format_shape
from brats_tf.regions import MODALITIES
from brats_tf.runtime.console import cell, console, track
from brats_tf.runtime.system import available_cores

log = logging.getLogger(__name__)
LONGEST_ID = 60  # Characters of an id that the table shows; the longest of BraTS has 31.


def inspect_dataset(root, *, as_json=False):
    """Looks at the cases below `root`: all headers and all label maps are read, no modality's voxels.

    Args:
        root: what `find_cases` takes.
        as_json: print one JSON object (cases, skipped) instead of a table.

    Returns:
        The number of cases that are refused, because a file is bad or does not fit the others.

    Raises:
        InputError: when there is no case.
    """
    cases, skipped = find_cases(root)
    with ThreadPoolExecutor(available_cores()) as pool:
        jobs = pool.map(summarise_case, cases)
        described = list(jobs if as_json else track(jobs, "Reading headers and labels", total=len(cases)))
    if as_json:
        left_out = [{"path": str(path), "reason": reason} for path, reason in skipped]
        print(json.dumps({"root": str(root), "cases": described, "skipped": left_out}, indent=2))
    else:
        _show(root, described, skipped)
    return sum(bool(one["problem"]) for one in described)


def summarise_case(case):
    """What is known of one case, as plain values; `problem` is a sentence, or None for a good one."""
    about = {
        "id": case.id,
        "layout": case.layout.name,
        "convention": case.convention.name,
        "grade": case.grade,
        "patient": case.patient,
        "folder": str(case.folder),
        "files": {name: str(path) for name, path in case.volumes.items()},
        "missing": [name for name in MODALITIES if name not in case.volumes],
        "segmentation": str(case.segmentation) if case.segmentation else None,
        "labels": None,
        "shape": None,
        "spacing_mm": None,
        "axes": None,
        "notes": [case.layout.note] if case.layout.note else [],
        "problem": None,
    }
    try:
        about |= _geometry(case, about["notes"])
        if case.segmentation:
            segmentation = volumes.read_segmentation(case.segmentation, case_id=case.id)
            volumes.read_label_classes(segmentation, case)
            about["labels"] = [label for label in case.convention.known if (segmentation.voxels == label).any()]
    except InputError as error:
        about["problem"] = str(error)
    return about


def _geometry(case, notes):
    """Shape, spacing and axes that all files of a case share, from their headers."""
    first = None
    for part in (*case.volumes, *([SEGMENTATION] if case.segmentation else [])):
        path = case.require(part)
        header = read_header(path, case_id=case.id)
        volumes.check_shape(header.get_data_shape(), path, case_id=case.id, channel=case.channels.get(part))
        geometry = volumes.Geometry(path, header.get_data_shape()[:3], header.get_best_affine())
        if first:
            volumes.check_same_geometry(first, geometry, case_id=case.id)
        else:
            first = geometry
            notes += volumes.geometry_notes(header)
    edges = volumes.spacing_of(first.affine)
    return {"shape": list(first.shape), "spacing_mm": list(edges), "axes": volumes.axis_codes(first.affine)}


def _show(root, described, skipped):
    table = Table(title=cell(f"{len(described)} cases in {root}"))
    for column in ("case", "layout", "grade", "missing", "labels", "voxels", "mm", "axes"):
        table.add_column(column, no_wrap=column == "case", max_width=LONGEST_ID if column == "case" else None)
    for one in described:
        truth = "no truth" if one["segmentation"] is None else "REFUSED"
        labels = " ".join(map(str, one["labels"])) if one["labels"] else truth
        edges = format_shape(f"{edge:.3g}" for edge in one["spacing_mm"] or ())
        shape = format_shape(one["shape"] or ())
        row = (one["layout"], one["grade"] or "", ", ".join(one["missing"]), labels, shape, edges, one["axes"] or "")
        table.add_row(cell(one["id"]), *map(cell, row))
    console.print(table)
    conventions = {}
    notes = {}
    for one in described:
        conventions.setdefault(one["convention"], []).append(one["id"])
        for note in one["notes"]:
            notes.setdefault(note, []).append(one["id"])
    log.info(f"Labels: {', '.join(f'{name}: {len(ids)} cases' for name, ids in conventions.items())}.")
    log_notes(notes)
    log_skipped(skipped)
    refused = [one["problem"] for one in described if one["problem"]]
    for problem in refused:
        log.info(f"Refused: {problem}")
    complete = sum(not one["missing"] for one in described)
    with_truth = sum(one["segmentation"] is not None for one in described)
    log.info(
        f"{len(described)} cases found, {complete} with all four modalities, {with_truth} with truth, {len(refused)} "
        f"refused; {len(skipped)} files or folders skipped."
    )
