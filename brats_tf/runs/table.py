"""Compares the runs of a folder: progress, time, validation Dice, and the settings in which they differ."""

import json
import logging
import sys
from pathlib import Path

from rich.table import Table

from brats_tf.errors import InputError
from brats_tf.regions import REGIONS
from brats_tf.runs.files import RECORD_FILE, VALIDATION_FILE
from brats_tf.runs.history import read_validation
from brats_tf.runs.record import TRAINING, check_kinds, read_run_record
from brats_tf.runtime.console import cell, console, printable
from brats_tf.runtime.lock import is_locked

log = logging.getLogger(__name__)
_KINDS = {"last": dict, "began": str, "seconds": int | float, "peak_memory_gb": int | float, "device": str}  # Of a row.


def show_runs(folder, *, as_json=False):
    """Prints the runs in a folder, at any depth, oldest first; a damaged record is named and left out.

    Raises:
        InputError: when there is none.
    """
    rows = []
    for path in sorted(Path(folder).rglob(RECORD_FILE)):
        try:
            rows.append(summary_of(path.parent, folder))
        except InputError as error:
            print(printable(f"Left out: {error}"), file=sys.stderr)
    if not rows:
        raise InputError(f"{folder} holds no run with a {RECORD_FILE}. `brats-tf train` writes one.")
    rows.sort(key=lambda row: row["began"])
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("run", "epochs", "status", "loss", "validation Dice, WT TC ET", "time", "GB", "device", "precision")
    for row in rows:
        best = row["best"]
        dice = f"{' '.join(f'{best[region]:.3f}' for region in REGIONS)}, epoch {best['epoch']}" if best else "-"
        loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
        took = f"{row['seconds'] / 60:.1f} min"
        table.add_row(
            cell(row["run"]),
            f"{row['epochs']}/{row['settings']['training']['epochs']}",
            cell(row["status"] if row["running"] or row["status"] != TRAINING else "interrupted"),
            loss,
            dice,
            took,
            f"{row['peak_memory_gb']:.1f}",
            cell(row["device"]),
            cell(row["settings"]["compute"]["precision"]),
        )
    console.print(table)
    _show_differences(rows)


def summary_of(run, folder):
    """One run in figures: its record, with the best mean of its validation or None. Raises `InputError`."""
    record = read_run_record(run)
    try:
        check_kinds(record, _KINDS)
        check_kinds(record["settings"].get("training"), {"epochs": int})
        check_kinds(record["settings"].get("compute"), {"precision": str})
        loss = record["last"].get("loss")
        if loss is not None and not isinstance(loss, int | float):
            raise ValueError("`loss` is no number")
    except ValueError as error:
        raise InputError(f"{run / RECORD_FILE} is no readable record of a run: {error}.") from None
    best = None
    if (run / VALIDATION_FILE).is_file():
        curves = read_validation(run)
        means = {
            epoch: {region: sum(curves[region][epoch]) / len(curves[region][epoch]) for region in REGIONS}
            for epoch in curves[REGIONS[0]]
        }
        if means:
            epoch = max(means, key=lambda epoch: sum(means[epoch].values()))
            best = means[epoch] | {"epoch": epoch}
    name = str(run.relative_to(folder)) if run != Path(folder) else run.name
    return record | {"running": is_locked(run), "run": name, "best": best, "loss": loss}


def _show_differences(rows):
    """The settings, data and versions that are not the same in all runs."""
    columns = {
        row["run"]: _flat(row["settings"]) | {"data": row["data"], "commit": row.get("git_commit")} for row in rows
    }
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    differing = [name for name in names if len({str(column.get(name)) for column in columns.values()}) > 1]
    if not differing:
        log.info("All settings, data and versions are the same.")
        return
    table = Table("differs", *map(cell, columns))
    for name in differing:
        table.add_row(name, *(cell(column.get(name)) for column in columns.values()))
    console.print(table)


def _flat(settings):
    """{"training": {"epochs": 5}, "seed": 0} -> {"epochs": 5, "seed": 0}."""
    flat = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
