"""Runs a grid of trainings: trains, predicts and scores every cell on the cases that its training does not see.

A file in `experiments/grids` holds `{"about": text, "grid": {option: values}, "options": {option: value}}`, options of
`brats-tf train`. What is finished is kept and what was interrupted is resumed, so the same command may be given again.
With several GPUs as many cells train in parallel.

Command:  python experiments/grid.py folds_and_seeds BraTS2020_TrainingData [--set epochs=2 --set crop=64x64x36]
Writes:   RUNS/<name>/<cell>/ (runs, predictions), RESULTS/<name>/<cell>/ (scores) and RESULTS/<name>/summary.json (the
          table).
"""

import argparse
import itertools
import json
import logging
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table

from brats_tf.config.presets import DEFAULT_PRESET
from brats_tf.errors import InputError
from brats_tf.evaluation.results import TABLE_ORDER, read_summary
from brats_tf.runs.files import RECORD_FILE
from brats_tf.runs.record import FINISHED, read_run_record
from brats_tf.runtime.console import console
from brats_tf.runtime.files import read_json, write_json
from brats_tf.runtime.program import BAD_INPUT, run_program
from brats_tf.runtime.tensorflow import import_tensorflow
from brats_tf.training.parallel import run_in_parallel

log = logging.getLogger("brats_tf.experiments")
GRIDS = Path(__file__).resolve().parent / "grids"
REPEATED = ("seed", "fold")  # Cells that differ in these alone make up one row.
OPTIONS_FILE = "options.json"  # Of a cell, beside its scores.
NAME = "network"  # First part of the name of each run, in the folder of its cell.
_NAME = re.compile(r"[A-Za-z0-9_]+")


def main(arguments=None):
    """Reads the arguments and runs the grid. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the file's name without .json")
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with BraTS cases")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="for all cells")
    parser.add_argument("--grids", type=Path, default=GRIDS, help="folder of the grid's file")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    return run_program("grid", partial(run, given))


def run(given):
    """Runs the grid that the arguments name. Returns the exit code."""
    import_tensorflow()
    from brats_tf.training.distribution import gpu_numbers

    grid, options = read_grid(given.grids, given.name)
    more = dict(_setting(text) for text in given.set)
    if varied := sorted(set(more) & set(grid)):
        raise InputError(f"--set must name options that the grid does not vary. Received: {', '.join(varied)}.")
    options |= more
    folders = {"data": given.data, "runs": given.runs / given.name, "results": given.results / given.name}
    summary, failed = run_grid(cells_of(grid), options, folders, devices=gpu_numbers() or [None])
    show_grid(given.name, summary)
    log.info(f"Table written to {folders['results'] / 'summary.json'}.")
    if failed:
        log.info(f"Failed: {', '.join(failed)}.")
    return BAD_INPUT if failed else 0


def read_grid(folder, name):
    """Reads `<folder>/<name>.json`: ({option: values}, {option: value}), options of `brats-tf train`.

    Raises:
        InputError: when there is no such file, or it holds no grid.
    """
    path = Path(folder) / f"{name}.json"
    if not _NAME.fullmatch(name) or not path.is_file():
        grids = ", ".join(sorted(path.stem for path in Path(folder).glob("*.json")))
        raise InputError(f"The grid must be one of {grids}. Received: {name!r}.")
    try:
        content = json.loads(path.read_text())
        grid, options = content["grid"], content.get("options", {})
        if not grid or not all(isinstance(values, list) and values for values in grid.values()):
            raise ValueError("no values")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{path} must hold {{"grid": {{option: [values]}}}}. Received: {error!r}.') from None
    return grid, dict(options)


def cells_of(grid):
    """{name: {option: value}} of every combination, the first option slowest. Raises `InputError` for equal names."""
    cells = {}
    for values in itertools.product(*grid.values()):
        cell = dict(zip(grid, values, strict=True))
        name = ",".join(f"{option}={_flat(value)}" for option, value in cell.items())
        if name in cells:
            raise InputError(
                f"Two cells of the grid would have the same name, {name}. Received: {cells[name]}, {cell}."
            )
        cells[name] = cell
    return cells


def run_grid(cells, options, folders, *, devices):
    """Trains, predicts and scores every cell on the cases that its training does not see; what is finished is kept.

    Args:
        cells: the result of `cells_of`; `options` hold for all of them.
        folders: {"data": cases, "runs": for <cell> and one cache, "results": for <cell> and summary.json}.
        devices: see `parallel.run_in_parallel`.

    Returns:
        (what it wrote, {cell: exit code} of those that failed).
    """
    runs, results = Path(folders["runs"]), Path(folders["results"])
    failed, todo = {}, list(cells)  # Training keeps what is finished, and notices other options or data.
    for stage in ("train", "predict", "evaluate"):
        commands = {
            cell: _command(stage, options | cells[cell], folders["data"], runs / cell, results / cell)
            for cell in todo
            if cell not in failed
        }
        log.info(f"{stage}: {len(commands)} of {len(cells)} cells.")
        failed |= run_in_parallel(commands, devices=devices, logs=runs / "logs")
        if stage == "train":
            todo = [cell for cell in cells if not _is_scored(results / cell, runs / cell, options | cells[cell])]
    for cell in todo:
        if cell not in failed:
            write_json(results / cell / OPTIONS_FILE, options | cells[cell])
    summary = {"options": options, "rows": _rows(cells, runs, results, failed)}
    write_json(results / "summary.json", summary)
    return summary, failed


def show_grid(name, summary):
    """Prints the table of a grid: mean Dice x 100 over all cells of a row, and their standard deviation."""
    table = Table("cell", "runs", *TABLE_ORDER, "minutes", title=f"{name}: Dice x 100, mean ± std of runs")
    for row in summary["rows"]:
        dice = [row["dice"][region] for region in TABLE_ORDER]
        scores = [f"{100 * region['mean']:.2f} ± {100 * region['std']:.2f}" for region in dice]
        table.add_row(row["cell"] or "all", str(row["runs"]), *scores, f"{row['seconds'] / 60:.1f}")
    console.print(table)


def _command(stage, settings, data, runs, results):
    """The arguments of `brats-tf` for one stage of one cell."""
    if stage == "evaluate":
        return [stage, runs / "predictions", "--results", results]
    common = [stage, data, "--runs", runs, "--name", NAME]
    if stage == "train":
        words = [word for option, value in settings.items() for word in _option(option, value)]
        return [*common, "--cache-dir", runs.parent / "cache", *words]
    modality = settings.get("modality", "all")
    networks = ["--networks", f"{NAME}-{modality}"] if modality != "all" else []
    selection = ["--preset", settings.get("preset", DEFAULT_PRESET), *networks, "--cases", "validation"]
    return [*common, *selection, "--out", runs / "predictions", "--replace"]


def _rows(cells, runs, results, failed):
    rows = {}
    for cell, settings in cells.items():
        if cell not in failed:
            kept = {option: _flat(value) for option, value in settings.items() if option not in REPEATED}
            rows.setdefault(",".join(f"{option}={value}" for option, value in kept.items()), []).append(cell)
    return [_row(title, names, runs, results) for title, names in rows.items()]


def _row(title, names, runs, results):
    summaries = [read_summary(results / name) for name in names]
    means = {region: [summary[region]["dice"]["mean"] for summary in summaries] for region in TABLE_ORDER}
    dice = {region: {"mean": float(np.mean(values)), "std": float(np.std(values))} for region, values in means.items()}
    records = [read_run_record(run) for name in names for run in _runs(runs / name, results / name)]
    seconds = sum(record["seconds"] for record in records) / len(names)
    return {"cell": title, "runs": len(names), "cells": names, "dice": dice, "seconds": seconds}


def _is_scored(results, runs, options):
    """Whether a cell's scores are of these options, and newer than its networks, all of which are finished."""
    scores = results / "summary.json"
    try:
        found = _runs(runs, results)
        if read_json(results / OPTIONS_FILE) != json.loads(json.dumps(options)):
            return False
    except (InputError, OSError, ValueError):  # There are none, or of an older version.
        return False
    finished = all(read_run_record(run)["status"] == FINISHED for run in found)
    return finished and scores.stat().st_mtime > max((run / RECORD_FILE).stat().st_mtime for run in found)


def _runs(folder, results):
    """The folders of the networks that a cell's scores are of. Raises `InputError` where there are no scores."""
    return [folder / name for name in read_summary(results)["made_by"]["networks"]]


def _option(option, value):
    if isinstance(value, bool) or value in ("true", "false"):
        return [f"--{'' if value in (True, 'true') else 'no-'}{option}"]
    return [f"--{option}", str(value)]


def _flat(value):
    """A value as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", str(value))


def _setting(text):
    option, equals, value = text.partition("=")
    if not (option and equals):
        raise InputError(f"--set must be OPTION=VALUE. Received: {text!r}.")
    return option, value


if __name__ == "__main__":
    sys.exit(main())
