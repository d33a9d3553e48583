"""One HTML page about patients that were segmented: volumes in ml and pictures, in the space of their own series."""

import logging

from brats_tf import __version__
from brats_tf.clinical.conform import read_conform
from brats_tf.clinical.restored_files import RESTORED_FILE
from brats_tf.errors import InputError, format_shape
from brats_tf.regions import REGIONS
from brats_tf.report.blocks import Image, Paragraph, Table, render_page
from brats_tf.runtime.files import atomic, read_json

log = logging.getLogger(__name__)
PICTURES = 20  # Patients with pictures; the first table has all of them.


def write_volumes_page(path, cases, restored, failures=()):
    """Writes a page about the label maps that `restore` wrote.

    Args:
        path: the .html to write.
        cases: the folder that `conform` wrote.
        restored: the folder that `restore` wrote.
        failures: [(patient id, sentence)] of those that failed.
    """
    record = read_json(restored / RESTORED_FILE)
    head = ("patient", *(f"{region}, ml" for region in REGIONS), "measured on", "missing series")
    rows, sections, failed = [], [], {case_id for case_id, _ in failures}
    for case_id, volumes in record["cases"].items():
        try:
            conformed = read_conform(cases / case_id)
        except InputError as error:  # Of a patient that is gone, whose files an earlier call restored.
            failures = [*failures, (case_id, str(error))]
            continue
        name = conformed["reference"] if conformed["reference"] in volumes else next(iter(volumes))
        missing = ", ".join(conformed["missing"]) or "–"
        marked = f"{case_id} (see Left out)" if case_id in failed else case_id
        rows.append((marked, *(_ml(volumes[name], region) for region in REGIONS), name, missing))
        if len(sections) < PICTURES:
            sections.append((marked, _patient(restored / case_id, volumes, conformed)))
    networks = ", ".join(record["networks"])
    sections = [("Volumes", [Table(head, rows, sortable=True), Paragraph(_notes(networks))]), *sections]
    if failures:
        sections.append(("Left out", [Table(("patient", "reason"), list(failures))]))
    html = render_page("Segmented patients", f"brats_tf {__version__}, {networks}", sections, {})
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    log.info(f"Look at {path}.")


def _notes(networks):
    return (
        f"WT: whole tumour, TC: tumour core, ET: enhancing tumour, by {networks}. Volumes are of the voxels of the "
        "series named. Whether registration and brain mask are right, cases/checks.html shows. For research; not a "
        "medical device."
    )


def _ml(volumes, region):
    value = volumes[f"{region}_ml"]
    return f"{value:.1f}", value


def _patient(folder, volumes, conformed):
    rows = []
    for name, one in volumes.items():
        grid, number = conformed["series"][name]["grid"], conformed["series"][name]["number"]
        size = format_shape(grid["size"])
        cells = [f"{one[f'{region}_ml']:.1f}" for region in REGIONS]
        rows.append((name, "–" if number is None else number, size, *cells, ", ".join(one["files"])))
    head = ("modality", "series", "voxels", *(f"{region}, ml" for region in REGIONS), "files")
    files = [folder / name for one in volumes.values() for name in one["files"]]
    pictures = [Image(path, path.stem) for path in files if path.suffix == ".png" and path.is_file()]
    return [Table(head, rows), *pictures]
