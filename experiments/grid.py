"""Run the grid that an experiment's file states: train, predict and score every cell on the cases it holds out.

A file of this folder states `GRID = {option: values}`, options of `brats-tf train` (seeds, folds, presets ...), and
`OPTIONS` for all cells. What is finished is kept and what was stopped goes on, so the same command may be given again.
With several GPUs as many cells train side by side.

Command:  make experiment NAME=folds_and_seeds DATA=BraTS2020_TrainingData
          python experiments/grid.py folds_and_seeds --data DIR [--set epochs=2 --set crop=64x64x36]
Writes RUNS/<name>/<cell>/ (runs, predictions), RESULTS/<name>/<cell>/ (scores) and RESULTS/<name>/summary.json (the
table).
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from brats_tf.runtime.console import import_tensorflow

import_tensorflow()

from sweeps import cells_of, read_grid, run_grid, show_grid  # noqa: E402

from brats_tf.errors import InputError  # noqa: E402
from brats_tf.runtime.console import say  # noqa: E402
from brats_tf.runtime.program import BAD_INPUT, run_program  # noqa: E402
from brats_tf.training.distribution import gpu_numbers  # noqa: E402

HERE = Path(__file__).resolve().parent


def main(arguments=None):
    """Reads the arguments and runs the grid. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the file's name without .py")
    parser.add_argument("--data", type=Path, required=True, help="folder with BraTS cases")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="for all cells")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the experiment's file lies")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    return run_program("grid", partial(run, given))


def run(given):
    """Runs the grid that the arguments name. Returns the exit code."""
    grid, options = read_grid(given.folder, given.name)
    options |= dict(_setting(text) for text in given.set)
    places = {"data": given.data, "folder": given.runs, "results": given.results}
    summary, failed = run_grid(given.name, cells_of(grid), options, **places, devices=gpu_numbers() or [None])
    show_grid(summary)
    say(f"Written to {given.results / given.name / 'summary.json'}.")
    if failed:
        say(f"Failed: {', '.join(failed)}.")
    return BAD_INPUT if failed else 0


def _setting(text):
    option, equals, value = text.partition("=")
    if not (option and equals):
        raise InputError(f"--set must be OPTION=VALUE. Received: {text!r}.")
    return option, value


if __name__ == "__main__":
    sys.exit(main())
