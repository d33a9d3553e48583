"""One HTML page to check conformed cases by: which series, why, how well they were registered, and pictures."""

import json
import logging
from pathlib import Path

from brats_tf import __version__
from brats_tf.clinical.conform import CONFORM_FILE, read_conform
from brats_tf.clinical.make_case import CHECKS_FOLDER
from brats_tf.errors import InputError, format_shape
from brats_tf.report.blocks import Details, Image, Paragraph, Table, render_page
from brats_tf.runtime.files import atomic

log = logging.getLogger(__name__)
CHECKS_FILE = "checks.html"
PICTURES = 20  # Cases with pictures; the page has a row for every case.


def write_checking_page(cases, failures=()):
    """Writes `<cases>/checks.html` about the cases that `conform` wrote into a folder.

    Args:
        cases: the folder.
        failures: [(patient id, sentence)] of those that have no case.

    Returns:
        The path of the page; None where there is no case.
    """
    cases = Path(cases)
    records = {}
    for path in sorted(cases.glob(f"[!.]*/{CONFORM_FILE}")):  # Not of what a process left half-written.
        try:
            records[path.parent.name] = read_conform(path.parent)
        except InputError as error:
            failures = [*failures, (path.parent.name, str(error))]
    if not records:
        return None
    sections = [("Cases", [_overview(records)])]
    sections += [(case_id, _case(cases / case_id, record)) for case_id, record in list(records.items())[:PICTURES]]
    if failures:
        sections.append(("Left out", [Table(("patient", "reason"), list(failures))]))
    html = render_page("Conformed cases, to be checked", f"brats_tf {__version__}, {cases}", sections, {})
    path = cases / CHECKS_FILE
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    log.info(f"Look at {path}: were the right series chosen, do they fit each other, is the mask the brain?")
    return path


def _overview(records):
    rows = []
    for case_id, record in records.items():
        found = [one["registration"] for one in record["series"].values() if isinstance(one["registration"], dict)]
        overlap = min((one["overlap"] for one in found), default=None)
        rows.append(
            (
                case_id,
                ", ".join(record["series"]),
                ", ".join(record["missing"]) or "–",
                ("–", "") if overlap is None else (f"{overlap:.3f}", overlap),
                f"{record['brain_mask']['ml']:.0f}",
                f"{sum(record['seconds'].values()):.0f}",
            )
        )
    head = ("case", "series", "missing", "least overlap of heads", "brain, ml", "seconds")
    return Table(head, rows, sortable=True)


def _case(folder, record):
    rows = []
    for modality, one in record["series"].items():
        found = one["registration"]
        if isinstance(found, dict):
            text = (
                f"turned {found['rotation_degrees']:.1f} degrees, moved {found['shift_mm']:.1f} mm, overlap "
                f"{found['overlap']:.3f}, mutual information {found['mutual_information_nats']:.2f} nats"
            )
        else:
            text = found
        grid = format_shape(one["grid"]["size"])
        rows.append((modality, "–" if one["number"] is None else one["number"], one["reason"], grid, text))
    left_out = "; ".join(
        f"{'a series' if one['number'] is None else one['number']}: {one['reason']}" for one in record["left_out"]
    )
    many = record.get("examinations", 1)
    pictures = [Image(path, f"{folder.name}: {path.stem}") for path in sorted((folder / CHECKS_FOLDER).glob("*.png"))]
    return [
        Table(("modality", "series", "chosen because", "voxels", "registration"), rows),
        Paragraph(f"Left out: {left_out or 'nothing'}."),
        *([Paragraph(f"The series are of {many} examinations.")] if many > 1 else []),
        *pictures,
        Details("The whole record", json.dumps(record, indent=2)),
    ]
