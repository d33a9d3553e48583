"""Learn one real case by heart at full size: does the whole chain, from file to loss, work?

The embedding paper's network (preset `embedding`) on the FLAIR volume of one case, at 192x160x108, Adam 1e-4, batch 1.

Command:  python experiments/overfit_one_case.py DIR --case ID --steps 100
Time:     10-20 s a step on two CPU cores; 8 GB of memory.
Expected: whole-tumour Dice of at least 0.90 in inference mode within 100 steps.

Writes into RESULTS/overfit_one_case: `curve.csv` and `curve.png` (loss and WT, TC, ET Dice in inference mode, measured
before each update), `overlay.png` (the prepared tensor with its labels, and with the prediction: crop, orientation
and labels must line up) and `summary.json`.
"""

import argparse
import csv
import logging
import sys
import time
from functools import partial
from pathlib import Path

from arguments import count

from brats_tf.runtime.console import progress_bar
from brats_tf.runtime.tensorflow import import_tensorflow

import_tensorflow()

import keras
import numpy as np
from provenance import provenance

from brats_tf.config.config import Config
from brats_tf.data.discovery import find_cases
from brats_tf.errors import InputError
from brats_tf.evaluation.metrics import dice
from brats_tf.models.build import build_with_weights, classifier_hash
from brats_tf.models.planes import blinded, deviation, live_share, with_planes
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import REGION_THRESHOLD, REGIONS, classes_to_regions, regions_to_classes
from brats_tf.runtime.files import atomic, write_json
from brats_tf.runtime.program import run_program
from brats_tf.runtime.tensorflow import device_name
from brats_tf.training.optimisation import compile_network
from brats_tf.visualisation.overlays import save_overlay
from brats_tf.visualisation.plots import save_curves

log = logging.getLogger("brats_tf.experiments")


def main(arguments=None):
    """Reads the arguments, learns, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with BraTS cases")
    parser.add_argument("--case", help="id of the case (default: the first)")
    parser.add_argument("--steps", type=count, default=100)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    return run_program(Path(__file__).stem, partial(run, given))


def run(given):
    """Does what the arguments ask for."""
    case = pick(find_cases(given.data)[0], given.case)
    config = Config.from_preset("embedding", modalities=("flair",), weights=given.weights)
    learn(case, config, steps=given.steps, folder=given.results / Path(__file__).stem)


def pick(cases, case_id):
    """The case of that id, or the first one."""
    chosen = [case for case in cases if case_id in (None, case.id)]
    if not chosen:
        raise InputError(f"`--case` must be one of {', '.join(case.id for case in cases)}. Received: {case_id}.")
    return chosen[0]


def learn(case, config, *, steps, folder):
    """Trains on one prepared case; each row of the curve is measured in inference mode, before the step's update."""
    keras.utils.set_random_seed(config.seed)
    prepared = prepare_case(case, modalities=config.data.modalities, crop=config.data.crop, with_truth=True)
    truth = classes_to_regions(prepared.classes)
    network, origin = build_with_weights(config)
    begun_with = {"classifier_sha256": classifier_hash(network), "weights": origin}
    compile_network(network, config)
    volume, target = prepared.volume[None], truth[None].astype(np.float32)
    log.info(f"{case.id} on {device_name()}, {origin}; about {steps * 15 / 60:.0f} minutes on two CPU cores.")
    rows, started = [], time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("Learning", total=steps, note="compiling")
        for step in range(1, steps + 1):
            # With frozen batch norm and no dropout, training mode and inference mode are one function, so that the
            # Dice of the step's own forward pass is the Dice of a prediction (tests/models/test_embedding.py).
            logs = network.train_on_batch(volume, target, return_dict=True)
            network.reset_metrics()
            rows.append((step, logs["loss"], *(logs[f"dice_{region.lower()}"] for region in REGIONS)))
            bar.update(task, advance=1, note=f"loss {rows[-1][1]:.3f} WT {rows[-1][2]:.3f}")
    seconds = time.monotonic() - started
    prediction = network.predict(volume, verbose=0)[0] > REGION_THRESHOLD
    scores = {region: dice(truth[..., i], prediction[..., i]) for i, region in enumerate(REGIONS)}
    write(folder, case, config, rows, prepared, prediction)
    summary = provenance() | begun_with
    summary |= {"case": case.id, "device": device_name(), "steps": steps, "seconds": seconds, "dice": scores}
    write_json(folder / "summary.json", summary | what_the_classifier_does(network, volume, truth))
    said = ", ".join(f"{region} {score:.3f}" for region, score in scores.items())
    log.info(f"After {steps} steps, predicted: {said}. Look at {folder}.")


def what_the_classifier_does(network, volume, truth):
    """The share of live plane pixels, their deviation, and Dice with each plane replaced by its mean."""
    graph = with_planes(network)
    planes = graph(volume, training=False)[1]
    regions = np.asarray(blinded(graph)(volume, training=False)[0])[0] > REGION_THRESHOLD
    blind = {region: float(dice(truth[..., i] > 0, regions[..., i])) for i, region in enumerate(REGIONS)}
    return {"planes_live": float(live_share(planes)), "planes_std": float(deviation(planes)), "blinded": blind}


def write(folder, case, config, rows, prepared, prediction):
    """The curve as CSV and picture, and the overlay."""
    with atomic(folder / "curve.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "loss", *(f"dice_{region.lower()}" for region in REGIONS)))
        writer.writerows((step, *(f"{value:.6f}" for value in values)) for step, *values in rows)
    names = ("loss", *(f"Dice {region}" for region in REGIONS))
    curves = {name: [row[i] for row in rows] for i, name in enumerate(names, start=1)}
    save_curves(
        folder / "curve.png",
        curves,
        title=f"{case.id}, {config.data.modalities[0]}, learned by heart",
        x_label="step",
    )
    title = f"{case.id}, as the network sees it"
    masks = {"labels": prepared.classes, "prediction": regions_to_classes(prediction)}
    save_overlay(folder / "overlay.png", prepared.volume[..., 0], masks, title=title)


if __name__ == "__main__":
    sys.exit(main())
