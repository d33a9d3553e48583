"""Finds the volume of enhancing tumour below which dropping it scores best."""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from brats_tf.config.execution import PostProcessing
from brats_tf.data.notes import leave_out_misread
from brats_tf.data.splits import Split
from brats_tf.errors import InputError
from brats_tf.evaluation.label_maps import LabelMaps, read_pair
from brats_tf.evaluation.metrics import EMPTY_MASK_RULES, dice
from brats_tf.inference.postprocessing import TUNED
from brats_tf.runs.files import POSTPROCESSING_FILE
from brats_tf.runtime.console import console, track
from brats_tf.runtime.files import write_json

log = logging.getLogger(__name__)
# Of enhancing tumour below which it is relabelled as necrosis; 0 drops nothing.
THRESHOLDS_ML = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)


def tune_postprocessing(cases, *, predictions, runs, convention=None):
    """Tunes the ET volume of `PostProcessing` on predictions of cases with truth, and stores it with the runs.

    `convention` is that of the labels in the predictions; None for that of each case.

    Returns:
        A list of (case id, sentence) of the cases that could not be read.

    Raises:
        InputError: when a network was trained on one of the cases, or ET was dropped from the predictions already.
    """
    maps = LabelMaps(predictions, convention)
    record = maps.record
    _check_tuning(cases, maps, runs)
    read, failures = {}, []
    for case in track(cases, "Reading"):
        try:
            pair = read_pair(case, maps)
            read[case.id] = (*pair.regions["ET"], pair.spacing_mm)
        except InputError as error:
            failures.append((case.id, str(error)))
            log.info(f"Left out: {error}")
    leave_out_misread(cases, read, failures)
    pairs = list(read.values())
    if not pairs:
        raise InputError(f"None of {len(cases)} cases could be read from {predictions}.")
    tuned = tune_et_threshold(pairs)
    steps = record.get("postprocessing", {}) | {"mirror": record.get("forward", {}).get("mirror", "none")}
    save_tuned(tuned, runs, steps, record.get("networks", {}))
    table = Table("ET below, ml", "mean Dice of ET x 100", title=f"{len(pairs)} cases")
    for threshold, mean in tuned["mean_dice"].items():
        table.add_row(threshold, f"{100 * mean:.2f}")
    console.print(table)
    log.info(
        f"Best: {tuned['drop_et_below_ml']:g} ml, written to {POSTPROCESSING_FILE} of "
        f"{', '.join(str(run) for run in runs)}. Rule: {EMPTY_MASK_RULES['brats'].sentence}."
    )
    return failures


def tune_et_threshold(pairs):
    """The volume of ET below which dropping it scores best.

    Args:
        pairs: an iterable of (truth ET, predicted ET, spacing_mm), masks (X, Y, Z) bool, one for each case.

    Returns:
        {"drop_et_below_ml", "cases", "mean_dice": {threshold: mean ET Dice}}: of equal means the least threshold wins.
    """
    scores = []
    for truth, prediction, spacing_mm in pairs:
        volume_ml = np.count_nonzero(prediction) * float(np.prod(spacing_mm)) / 1000
        kept, dropped = dice(truth, prediction), dice(truth, np.zeros_like(prediction))
        scores.append([dropped if volume_ml < threshold else kept for threshold in THRESHOLDS_ML])
    means = np.mean(scores, axis=0)
    return {
        "drop_et_below_ml": THRESHOLDS_ML[int(np.argmax(means))],
        "cases": len(scores),
        "mean_dice": {f"{threshold:g}": float(mean) for threshold, mean in zip(THRESHOLDS_ML, means, strict=True)},
    }


def save_tuned(tuned, runs, steps, weights):
    """Writes a tuned threshold into each run's folder, with the networks, the SHA-256 of their weights and the other
    steps that it belongs to.
    """
    known = asdict(PostProcessing()) | {"mirror": "none"}
    others = {name: steps.get(name, default) for name, default in known.items() if name != TUNED}
    for run in runs:
        write_json(
            Path(run) / POSTPROCESSING_FILE,
            tuned | {"networks": sorted(Path(one).name for one in runs), "weights": weights, "steps": others},
        )


def _check_tuning(cases, maps, runs):
    """Raises `InputError` unless the cases are new to the networks that predicted them, and no ET was dropped."""
    record, predictions = maps.record, maps.folder
    for run in runs:
        seen = {case.id for case in cases} & set(Split.load(run).training)
        if seen:
            raise InputError(
                "Tuning needs predictions of cases that training has not seen: predict with --cases validation. "
                f"Received {len(seen)} that trained {run}: {', '.join(sorted(seen)[:3])}."
            )
    dropped = record.get("postprocessing", {}).get("drop_et_below_ml")
    if dropped:
        raise InputError(f"{predictions} must be predicted without --drop-et-below-ml. Received: {dropped:g} ml.")
    names = {Path(run).name for run in runs}
    if record and set(record["networks"]) != names:
        raise InputError(
            f"{predictions} must be predicted by {', '.join(sorted(names))}. Received: {', '.join(record['networks'])}."
        )
