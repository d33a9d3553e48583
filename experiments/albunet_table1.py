"""The AlbuNet paper's protocol: AlbuNet3D and AlbuNet2D, with and without ImageNet weights, several seeds of each.

Trains what is missing (a run whose scores are there is not made again, so the command may be stopped and given anew),
scores whole cases that training has not seen while it runs and at its end, and writes Table 1 (mean and median Dice and
HD95, averaged over runs), Figure 3 (validation Dice of AlbuNet3D over the epochs, mean and standard deviation over
runs) and Figure 4 (boxplot of the cases' ET Dice, the first run of each method).

Command:  python experiments/albunet_table1.py BraTS2020_TrainingData --length paper --seeds 5
Time:     at full length (50 epochs x 100 batches of 24 patches of 128x128x24) 14 hours for a 3D run on the authors'
          P100 and 5.5 for a 2D one. `--length short` (2 mm, 15 epochs x 20 batches of 12 patches of 64x64x12, 2D: 64 of
          64x64) some 17 minutes for each on two CPU cores; it shows that the protocol runs, not what the paper claims.
Expected: at full length a validation Dice ET/WT/TC of about .72/.89/.78 (3D, pretrained) and .70/.88/.79 (3D, scratch).

Writes into RESULTS/albunet_table1/LENGTH: `summary.json`, `curves.png`, `boxplot.png`, and <method>/<seed>/cases.csv.
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from arguments import count

from brats_tf.runtime.tensorflow import import_tensorflow

import_tensorflow()

import numpy as np
from provenance import provenance

from brats_tf.cli.arguments import cases_in
from brats_tf.config.config import Config
from brats_tf.config.execution import PredictionOptions
from brats_tf.config.settings import DataSettings
from brats_tf.data.splits import Split, split_cases
from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import evaluate
from brats_tf.evaluation.results import CASES_FILE, TABLE_ORDER, read_scores
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.models.build import build_with_weights
from brats_tf.regions import (
    MODALITIES,
    REGIONS,
)
from brats_tf.runs.history import read_validation
from brats_tf.runs.record import FINISHED, read_run_record
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program
from brats_tf.runtime.tensorflow import device_name
from brats_tf.training.train import train
from brats_tf.visualisation.plots import save_bands, save_boxes

log = logging.getLogger("brats_tf.experiments")

METHODS = {
    "AlbuNet3D, pretrained": ("albunet3d", "imagenet"),
    "AlbuNet3D": ("albunet3d", "none"),
    "AlbuNet2D, pretrained": ("albunet2d", "imagenet"),
    "AlbuNet2D": ("albunet2d", "none"),
}
_SHORT = {"spacing_mm": 2.0, "crop": (120, 120, 78), "steps_per_epoch": 20, "epochs": 15, "validation_frequency": 3}
LENGTHS = {
    "paper": {"albunet3d": {"validation_frequency": 5}, "albunet2d": {"validation_frequency": 5}},
    "short": {
        "albunet3d": _SHORT | {"patch_size": (64, 64, 12), "window_stride": (16, 16, 12), "batch_size": 12},
        "albunet2d": _SHORT | {"patch_size": (64, 64, 1), "window_stride": (16, 16, 1), "batch_size": 64},
    },
}
VALIDATION_SPLIT = 0.2
SCORED = ("dice", "hd95_mm")


def main(arguments=None):
    """Reads the arguments, trains what is missing, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with BraTS cases to train on")
    parser.add_argument("--validation", type=Path, help="cases to score (default: a fifth of the patients of DATA)")
    parser.add_argument("--length", choices=tuple(LENGTHS), default="paper")
    parser.add_argument("--seeds", type=count, default=5, help="runs of each method (default: 5, as in the paper)")
    parser.add_argument("--methods", default=";".join(METHODS), help="some of them, joined by semicolons")
    parser.add_argument(
        "--gradient-accumulation-steps", type=int, help="parts that a batch is cut into, to take less memory"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/albunet_table1"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    return run_program(Path(__file__).stem, partial(run, given))


def run(given):
    """Does what the arguments ask for."""
    configs, left_out = planned(given.methods.split(";"), given.length, given.seeds, given.gradient_accumulation_steps)
    training, validation = parted(given.data, given.validation)
    folder = given.results / Path(__file__).stem / given.length
    given.runs = given.runs / given.length
    for done, (method, seed) in enumerate(configs):
        log.info(f"{method}, seed {seed}: run {done + 1} of {len(configs)}.")
        run_once(configs[method, seed], training, validation, place(given.runs, method, seed), folder)
    summary = summed_up(configs, given.runs, folder)
    about = provenance() | {
        "device": device_name(),
        "length": given.length,
        "seeds": given.seeds,
        "cases": {"training": len(training), "validation": len(validation)},
        "left_out": left_out,
        "settings": {preset: LENGTHS[given.length][preset] for preset in LENGTHS[given.length]},
    }
    write_json(folder / "summary.json", about | summary)
    draw(summary, configs, folder, title=f"{given.length} runs, {len(training)} cases, {given.seeds} seeds")
    show(summary)
    log.info(f"Look at {folder}.")


def parted(data, validation):
    """(cases to train on, cases to score): two folders, or a fifth of the patients of one."""
    cases = cases_in(data)
    if validation:
        return cases, cases_in(validation)
    split = split_cases(cases, DataSettings(MODALITIES, validation_split=VALIDATION_SPLIT))
    return tuple([case for case in cases if case.id in ids] for ids in (set(split.training), set(split.validation)))


def planned(methods, length, seeds, accumulation):
    """({(method, seed): config}, {method: why it is left out}): pretrained methods need ResNet34's ImageNet weights."""
    configs, left_out = {}, {}
    for method in methods:
        if method not in METHODS:
            raise InputError(f"`--methods` must be from {'; '.join(METHODS)}. Received: {method!r}.")
        preset, weights = METHODS[method]
        changes = LENGTHS[length][preset] | {"weights": weights, "gradient_accumulation_steps": accumulation}
        seeded = [Config.from_preset(preset, **changes, seed=seed) for seed in range(seeds)]
        if weights != "none":
            try:
                build_with_weights(seeded[0])
            except InputError as error:
                left_out[method] = str(error)
                log.info(f"{method} is left out: {error}")
                continue
        configs |= {(method, config.seed): config for config in seeded}
    if not configs:
        raise InputError("No method is left to run.")
    return configs, left_out


def place(root, method, seed):
    """The folder of one run below `root`: the method's name without blanks, and the seed."""
    return root / method.replace(", ", "-").lower() / f"seed{seed}"


def run_once(config, training, validation, runs, folder):
    """Trains, predicts and scores one run, unless a run of the same settings has been scored."""
    run, results = runs / config.run_name, folder / runs.parent.name / runs.name
    if _is_done(config, training, validation, run, results):
        return
    (results / CASES_FILE).unlink(missing_ok=True)  # Before the training: after an interruption it counts no more.
    train([config], training, runs=runs, cache_dir=runs.parents[1] / "cache", validation=validation)
    predict_cases(load_ensemble([run]), validation, out=runs / "predictions", options=PredictionOptions(replace=True))
    _, failures = evaluate(validation, predictions=runs / "predictions", results=results)
    if failures:
        raise InputError(f"Every run must score all cases; {len(failures)} of {len(validation)} could not be scored.")


def _is_done(config, training, validation, run, results):
    """Whether the same settings were trained on the same cases to the end, and the same ones scored."""
    try:
        if (read_run_record(run) or {}).get("status") != FINISHED:
            return False
        scored, trained = read_scores(results), Split.load(run).training
        return (
            Config.load(run) == config
            and set(trained) == {case.id for case in training}
            and set(scored) == {case.id for case in validation}
        )
    except InputError:
        return False


def summed_up(configs, runs, folder):
    """Table 1 and the figures' numbers, from the files that the runs left."""
    table, curves, boxes = {}, {}, {}
    for method in dict.fromkeys(method for method, _ in configs):
        seeds = [seed for name, seed in configs if name == method]
        scores = [read_scores(place(folder, method, seed)) for seed in seeds]
        table[method] = {
            region: {metric: _over_runs(scores, region, metric) for metric in SCORED} for region in REGIONS
        }
        validated = [read_validation(place(runs, method, seed) / configs[method, seed].run_name) for seed in seeds]
        curves[method] = {region: _curve([one[region] for one in validated]) for region in REGIONS}
        boxes[method] = [regions["ET"]["dice"] for regions in scores[0].values()]
    return {"table": table, "curves": curves, "et_dice_of_the_first_run": boxes}


def _over_runs(scores, region, metric):
    """A run's mean and median over its cases, averaged over the runs; and the spread of the runs' means."""
    values = np.array([[regions[region][metric] for regions in run.values()] for run in scores])
    means, medians = values.mean(axis=1), np.median(values, axis=1)
    return {"mean": float(means.mean()), "median": float(medians.mean()), "std_of_runs": float(means.std())}


def _curve(runs):
    """Each run's mean over its cases at each epoch; their mean and standard deviation over the runs."""
    epochs = sorted(runs[0])
    means = np.array([[np.mean(run[epoch]) for epoch in epochs] for run in runs])
    return {"epochs": epochs, "mean": means.mean(axis=0).tolist(), "std": means.std(axis=0).tolist()}


def draw(summary, configs, folder, *, title):
    """Figures 3 and 4."""
    deep = {method: curves for method, curves in summary["curves"].items() if METHODS[method][0] == "albunet3d"}
    save_bands(folder / "curves.png", deep or summary["curves"], panels=TABLE_ORDER, title=f"Validation Dice: {title}")
    boxes = summary["et_dice_of_the_first_run"]
    save_boxes(folder / "boxplot.png", boxes, title=f"{title}: the cases of one run", y_label="Dice of ET")


def show(summary):
    """Table 1 as text."""
    for method, regions in summary["table"].items():
        for metric in SCORED:
            cells = (f"{regions[r][metric]['mean']:.4f} ({regions[r][metric]['median']:.4f})" for r in TABLE_ORDER)
            log.info(f"{method}, {metric}, {'/'.join(TABLE_ORDER)}, mean (median): {', '.join(cells)}")


if __name__ == "__main__":
    sys.exit(main())
