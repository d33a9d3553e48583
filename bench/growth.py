"""Measure how time and memory grow with the number of cases: preparing with one worker and two, and predicting.

The cases are the same files under other names. Networks are small, so that reading and writing is what shows.
"""

import dataclasses
import logging
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from rich.table import Table

from bench.comparison import one_of_each, random_runs
from bench.timing import in_own_process
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import console, track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.system import machine, peak_gb
from brats_tf.runtime.tensorflow import import_tensorflow

log = logging.getLogger("brats_tf.bench")
COUNTS, WORKERS = (1, 10, 100), (1, 2)
SMALL = {"crop": (64, 64, 36), "spacing_mm": 3.0}


def bench_growth(config, cases, *, results, counts=COUNTS):
    """Measures each number of cases in a process of its own and writes `<results>/bench_growth.json`.

    Returns:
        What it wrote: machine, crop and rows of {"what", "cases", "seconds" (of a case), "peak_gb"}.
    """
    config = config.replace(**SMALL)
    log.info(f"Measuring 1 to {max(counts)} cases: about ten minutes on two cores.")
    kinds = [(f"preparing, {count} worker{'s'[: count - 1]}", _prepare, count) for count in WORKERS]
    kinds += [("predicting", _predict, 1)]
    figures = {"machine": machine(), "commit": git_commit(), "crop": config.data.crop, "rows": []}
    path = Path(results) / "bench_growth.json"
    for count in track(counts, "Measuring"):
        several = _renamed(cases, count)
        for what, measure, workers in kinds:
            with tempfile.TemporaryDirectory(dir=path.resolve().parent.parent) as folder:
                found = in_own_process(measure, config, several, folder, workers)
            figures["rows"].append({"what": what, "cases": count, **found})
    write_json(path, figures)
    table = Table("what", "cases", "s a case", "peak GB", title=figures["machine"])
    for row in figures["rows"]:
        table.add_row(row["what"], str(row["cases"]), f"{row['seconds']:.2f}", f"{row['peak_gb']:.2f}")
    console.print(table)
    log.info(f"Written to {path}.")
    return figures


def _renamed(cases, count):
    """So many cases, the same files again and again."""
    return [
        dataclasses.replace(case, id=f"{case.id}_{number}") for number, case in enumerate(islice(cycle(cases), count))
    ]


def _prepare(config, cases, folder, workers):
    from brats_tf.data.layouts import PARTS
    from brats_tf.preprocessing.cache import CacheSettings
    from brats_tf.preprocessing.fill_cache import prepare_cases

    settings = CacheSettings(config.data.crop, spacing_mm=config.data.spacing_mm)
    started = time.perf_counter()
    prepare_cases(cases, parts=PARTS, settings=settings, folder=folder, workers=workers)
    return {"seconds": (time.perf_counter() - started) / len(cases), "peak_gb": peak_gb()}


def _predict(config, cases, folder, workers):
    import_tensorflow()
    from brats_tf.inference.ensemble import load_ensemble
    from brats_tf.inference.predict import predict_cases

    predictors = load_ensemble(random_runs(one_of_each(config), folder))
    predict_cases(predictors, cases[:1], out=Path(folder) / "first")  # Traces the networks.
    started = time.perf_counter()
    predict_cases(predictors, cases, out=Path(folder) / "maps")
    return {"seconds": (time.perf_counter() - started) / len(cases), "peak_gb": peak_gb()}
