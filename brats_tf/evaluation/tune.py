"""Finds the volume of enhancing tumour below which dropping it scores best."""

import logging
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from brats_tf.config.execution import PostProcessing
from brats_tf.data.notes import leave_out_misread, name_some
from brats_tf.data.splits import SPLIT_FILE, training_cases
from brats_tf.errors import InputError
from brats_tf.evaluation.label_maps import LabelMaps, read_pair
from brats_tf.evaluation.metrics import EMPTY_MASK_RULES, dice
from brats_tf.inference.postprocessing import TUNED, volume_ml
from brats_tf.inference.prediction_record import check_weights, chosen_on
from brats_tf.runs.files import POSTPROCESSING_FILE
from brats_tf.runtime.console import console, track
from brats_tf.runtime.files import atomic, json_text

log = logging.getLogger(__name__)
# Of enhancing tumour below which it is relabelled as necrosis; 0 drops nothing.
THRESHOLDS_ML = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)


class Fold(NamedTuple):
    """A folder of predictions to tune on, the cases with truth that it is of, and the runs that predicted it."""

    maps: LabelMaps
    cases: list
    runs: list

    @property
    def steps(self):
        """What else was done to the predictions, as `save_tuned` stores it."""
        record = self.maps.record
        made = record.get("postprocessing", {}) | {"mirror": record.get("forward", {}).get("mirror", "none")}
        known = asdict(PostProcessing()) | {"mirror": "none"}
        return {name: made.get(name, default) for name, default in known.items() if name != TUNED}


def tune_postprocessing(folds):
    """Tunes the ET volume of `PostProcessing` on predictions of cases with truth, and stores it with the runs.

    Args:
        folds: a `Fold` or more, as of a cross-validation: the volume is that which is best for all cases, and belongs
            to the networks of all folds together. With several, each fold is also scored with the volume that is best
            for the others' cases, which is what other cases may expect.

    Returns:
        A list of (case id, sentence) of the cases that could not be read.

    Raises:
        InputError: when a network was trained on one of its cases, or has other weights than those that predicted, ET
            was dropped from the predictions already, a case or a network's name is in two folders, or the folders were
            predicted with other steps.
    """
    for fold in folds:
        _check_tuning(fold)
    runs, weights = _check_together(folds)
    scores, failures = {}, []
    for fold in folds:
        for case in track(fold.cases, f"Reading {fold.maps.folder}"):
            try:
                pair = read_pair(case, fold.maps)
                scores[case.id] = et_scores(*pair.regions["ET"], pair.spacing_mm)
            except InputError as error:
                failures.append((case.id, str(error)))
                log.info(f"Left out: {error}")
    leave_out_misread([case for fold in folds for case in fold.cases], scores, failures)
    found = {fold.maps.folder: [scores[case.id] for case in fold.cases if case.id in scores] for fold in folds}
    for fold in folds:
        if not found[fold.maps.folder]:
            raise InputError(f"None of {len(fold.cases)} cases could be read from {fold.maps.folder}.")
    tuned = tune_et_threshold(list(scores.values()))
    if len(folds) > 1:
        tuned["cross_validated"] = cross_validate(found)
    if biased := sorted(case_id for fold in folds for case_id in chosen_on(fold.maps.record) & set(scores)):
        tuned["chose_the_checkpoint"] = biased
    _show(tuned)
    save_tuned(tuned, runs, folds[0].steps, weights)
    log.info(
        f"Best: {tuned[TUNED]:g} ml, written to {POSTPROCESSING_FILE} of {', '.join(str(run) for run in runs)}. "
        f"Rule: {EMPTY_MASK_RULES['brats'].sentence}."
    )
    return failures


def et_scores(truth, prediction, spacing_mm):
    """The Dice of ET for each of `THRESHOLDS_ML`, of masks (X, Y, Z) bool with voxel edges in mm."""
    kept, dropped = dice(truth, prediction), dice(truth, np.zeros_like(prediction))
    volume = volume_ml(prediction, spacing_mm)
    return [dropped if volume < threshold else kept for threshold in THRESHOLDS_ML]


def tune_et_threshold(scores):
    """The volume of ET below which dropping it scores best.

    Args:
        scores: `et_scores` of each case.

    Returns:
        {"drop_et_below_ml", "cases", "mean_dice": {threshold: mean ET Dice}}: of equal means the least threshold wins.
    """
    means = np.mean(scores, axis=0)
    return {
        TUNED: THRESHOLDS_ML[int(np.argmax(means))],
        "cases": len(scores),
        "mean_dice": {f"{threshold:g}": float(mean) for threshold, mean in zip(THRESHOLDS_ML, means, strict=True)},
    }


def cross_validate(folds):
    """The mean Dice of ET where no case takes part in the choice of its own volume.

    Args:
        folds: {folder: `et_scores` of each case}, of two folders or more.

    Returns:
        {"mean_dice", "drop_et_below_ml": {folder: the volume that is best for the cases in the others}}.
    """
    volumes, scores = {}, []
    for folder, cases in folds.items():
        others = [one for other, its in folds.items() if other != folder for one in its]
        volumes[str(folder)] = tune_et_threshold(others)[TUNED]
        scores += [one[THRESHOLDS_ML.index(volumes[str(folder)])] for one in cases]
    return {"mean_dice": float(np.mean(scores)), TUNED: volumes}


def save_tuned(tuned, runs, steps, weights):
    """Writes a tuned threshold into each run's folder, with the networks, the SHA-256 of their weights and the other
    steps that it belongs to; into none where the disk is full.
    """
    content = tuned | {"networks": sorted(Path(one).name for one in runs), "weights": weights, "steps": steps}
    with ExitStack() as files:  # Each gets its name when all are complete.
        for run in runs:
            path = files.enter_context(atomic(Path(run) / POSTPROCESSING_FILE))
            path.write_text(json_text(content))


def _show(tuned):
    table = Table("ET below, ml", "mean Dice of ET x 100", title=f"{tuned['cases']} cases")
    for threshold, mean in tuned["mean_dice"].items():
        table.add_row(threshold, f"{100 * mean:.2f}")
    console.print(table)
    if "cross_validated" in tuned:
        volumes = ", ".join(f"{volume:g} ml" for volume in tuned["cross_validated"][TUNED].values())
        mean = f"{100 * tuned['cross_validated']['mean_dice']:.2f}"
        log.info(f"Each folder with the volume that is best for the others ({volumes}): mean Dice of ET x 100 {mean}.")
    if "chose_the_checkpoint" in tuned:
        log.warning(
            f"{name_some(tuned['chose_the_checkpoint'])} chose the checkpoint that predicted them, or its learning "
            "rate, so these scores are too good: predict with the last checkpoint."
        )


def _check_tuning(fold):
    """Raises `InputError` unless the cases are new to the networks that predicted them, and no ET was dropped."""
    record, predictions = fold.maps.record, fold.maps.folder
    for run in fold.runs:
        trained = training_cases(run)
        if trained is None:
            raise InputError(f"{run} must hold {SPLIT_FILE}, which names the cases that trained it. Received: none.")
        if seen := {case.id for case in fold.cases} & set(trained):
            raise InputError(
                "Tuning needs predictions of cases that training has not seen: predict with --cases validation. "
                f"Received {len(seen)} that trained {run}: {', '.join(sorted(seen)[:3])}."
            )
    dropped = record.get("postprocessing", {}).get(TUNED)
    if dropped:
        raise InputError(f"{predictions} must be predicted without --drop-et-below-ml. Received: {dropped:g} ml.")
    if record:
        check_weights(record, fold.runs, predictions)


def _check_together(folds):
    """(the runs of all folds, each once; {network: SHA-256 of its weights}).

    Raises `InputError` where the folds cannot be tuned together.
    """
    first, found_in, runs, weights = folds[0], {}, {}, {}
    for fold in folds:
        if fold.steps != first.steps:
            raise InputError(
                f"All must be predicted with the same steps. Received: {first.steps} in {first.maps.folder} and "
                f"{fold.steps} in {fold.maps.folder}."
            )
        for case in fold.cases:
            if other := found_in.get(case.id):
                where = f"{other} and {fold.maps.folder}"
                raise InputError(f"Case {case.id} must be predicted in one of the folders. Received: {where}.")
            found_in[case.id] = fold.maps.folder
        for run in map(Path, fold.runs):
            if runs.setdefault(run.name, run) != run:
                raise InputError(f"Networks must have names of their own. Received: {runs[run.name]} and {run}.")
        for name, sha in fold.maps.record.get("networks", {}).items():
            if weights.setdefault(name, sha) != sha:
                raise InputError(f"{fold.maps.folder} was predicted with other weights of {name} than the others.")
    return list(runs.values()), weights
