"""A grid of trainings: what is missing is run, side by side where devices allow, and one table comes out."""

import importlib.util
import itertools
import re
from pathlib import Path

import numpy as np
from rich.table import Table

from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import TABLE_ORDER, read_summary
from brats_tf.runs.record import FILE, FINISHED, read_run
from brats_tf.runtime.console import console, say
from brats_tf.runtime.files import write_json
from brats_tf.training.parallel import run_side_by_side

REPEATED = ("seed", "fold")  # Cells that differ in these alone make up one row.
FLAGS = ("remat", "jit", "skip-bad", "restart")  # Options without a value.
_NAME = re.compile(r"[A-Za-z0-9_]+")


def read_grid(folder, name):
    """Reads `<folder>/<name>.py`: its GRID {option: values} and OPTIONS {option: value}, options of `brats-tf train`.

    Raises:
        InputError: when there is no such file, or it states no grid.
    """
    path = Path(folder) / f"{name}.py"
    if not _NAME.fullmatch(name) or not path.is_file():
        grids = sorted(one.stem for one in Path(folder).glob("*.py") if "\nGRID = " in one.read_text())
        raise InputError(f"NAME must be an experiment with a grid: {', '.join(grids)}. Received: {name!r}.")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    grid = getattr(module, "GRID", None)
    if not grid or not all(isinstance(values, tuple | list) and values for values in grid.values()):
        raise InputError(f"{path} must state GRID = {{option: values}}. Received: {grid!r}.")
    return grid, dict(getattr(module, "OPTIONS", {}))


def cells_of(grid):
    """{name: {option: value}} of every combination, the first option slowest."""
    cells = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return {",".join(f"{option}={_flat(value)}" for option, value in cell.items()): cell for cell in cells}


def run_grid(name, cells, options, *, data, folder, results, devices):
    """Trains, predicts and scores every cell, on the cases that its training holds out; what is finished is kept.

    Args:
        name: of the experiment.
        cells: what `cells_of` returned; `options` hold for all of them.
        data: the folder of cases.
        folder: where the runs go, `<folder>/<name>/<cell>`, with one store of prepared cases.
        results: where the table goes, `<results>/<name>/summary.json`.
        devices: see `side_by_side.run_side_by_side`.

    Returns:
        (what it wrote, {cell: exit code} of those that failed).
    """
    home, results = Path(folder) / name, Path(results) / name
    train, predict, evaluate = {}, {}, {}
    for cell, settings in cells.items():
        here = home / cell
        place = ["--data", data, "--runs", here]
        named = ["--preset", settings.get("preset", options.get("preset", "paper"))]
        modality = (options | settings).get("modality", "all")
        chosen = ["--networks", modality] if modality != "all" else []
        seen = [*place, *named, *chosen, "--held-out", "--out", here / "predictions"]
        train[cell] = ["train", *place, "--store", home / "store", *_options(options | settings)]
        predict[cell], evaluate[cell] = ["predict", *seen], ["evaluate", *seen, "--results", results / cell]
    failed, logs = {}, home / "logs"
    missing = list(cells)  # Training keeps what is finished, and sees by itself what other options or data made.
    for what, commands in (("train", train), ("predict", predict), ("evaluate", evaluate)):
        wanted = {cell: commands[cell] for cell in missing if cell not in failed}
        say(f"{name}: {what} {len(wanted)} of {len(cells)} cells.")
        failed |= run_side_by_side(wanted, devices=devices, logs=logs)
        if what == "train":
            missing = [cell for cell in cells if not _is_scored(results / cell, home / cell)]
    summary = {"experiment": name, "options": options, "rows": _rows(cells, home, results, failed)}
    write_json(results / "summary.json", summary)
    return summary, failed


def show_grid(summary):
    """Prints the table of a grid: mean Dice x 100 over all cells of a row, and their deviation."""
    title = f"{summary['experiment']}: Dice x 100, mean ± std of runs"
    table = Table("cell", "runs", *TABLE_ORDER, "minutes", title=title)
    for row in summary["rows"]:
        dice = [row["dice"][region] for region in TABLE_ORDER]
        scores = [f"{100 * one['mean']:.2f} ± {100 * one['std']:.2f}" for one in dice]
        table.add_row(row["cell"] or "all", str(row["runs"]), *scores, f"{row['seconds'] / 60:.1f}")
    console.print(table)


def _rows(cells, home, results, failed):
    rows = {}
    for cell, settings in cells.items():
        if cell not in failed:
            kept = {option: _flat(value) for option, value in settings.items() if option not in REPEATED}
            rows.setdefault(",".join(f"{option}={value}" for option, value in kept.items()), []).append(cell)
    return [_row(title, names, home, results) for title, names in rows.items()]


def _row(title, names, home, results):
    summaries = [read_summary(results / name) for name in names]
    means = {region: [summary[region]["dice"]["mean"] for summary in summaries] for region in TABLE_ORDER}
    dice = {region: {"mean": float(np.mean(its)), "std": float(np.std(its))} for region, its in means.items()}
    records = [read_run(run) for name in names for run in _runs(home / name)]
    seconds = sum(record["seconds"] for record in records) / len(names)
    return {"cell": title, "runs": len(names), "cells": names, "dice": dice, "seconds": seconds}


def _is_scored(results, runs):
    """Whether a cell's scores are newer than its networks, all of which are finished."""
    scores = results / "summary.json"
    found = _runs(runs)
    if not scores.is_file() or not found:
        return False
    done = all(read_run(run)["status"] == FINISHED for run in found)
    return done and scores.stat().st_mtime > max((run / FILE).stat().st_mtime for run in found)


def _runs(folder):
    """The folders of a cell's runs, without those that were moved aside (flair.1)."""
    return [path.parent for path in sorted(folder.glob(f"*/{FILE}")) if "." not in path.parent.name]


def _options(settings):
    words = []
    for option, value in settings.items():
        if option in FLAGS:
            words += [f"--{option}"] if value else []
        else:
            words += [f"--{option}", str(value)]
    return words


def _flat(value):
    """A value as a part of a folder's name: 0/5 becomes 0of5."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", str(value).replace("/", "of"))
