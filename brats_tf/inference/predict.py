"""Predicts a list of cases and writes label maps in each case's own geometry and label convention."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from brats_tf import __version__
from brats_tf.config.execution import PostProcessing, PredictionExtras
from brats_tf.data.case import Case
from brats_tf.data.volumes import spacing_of, write_volume
from brats_tf.errors import InputError
from brats_tf.inference.ensemble import mean_uncertainty, predict_case
from brats_tf.inference.postprocessing import postprocess
from brats_tf.inference.prediction_record import PREDICTION_FILE, read_prediction_record
from brats_tf.inference.predictor import Predictor
from brats_tf.models.cost import prediction_bytes
from brats_tf.models.outputs import to_classes
from brats_tf.regions import classes_to_labels
from brats_tf.runtime.console import track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.tensorflow import device_name

log = logging.getLogger(__name__)
PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER = "probabilities", "uncertainty"


NO_EXTRAS, NO_POSTPROCESSING = PredictionExtras(), PostProcessing()


def predict_cases(
    predictors: Sequence[Predictor],
    cases: Sequence[Case],
    *,
    out: str | Path,
    postprocessing: PostProcessing = NO_POSTPROCESSING,
    extras: PredictionExtras = NO_EXTRAS,
) -> list[tuple[str, str]]:
    """Writes `<out>/<case>.nii.gz` for each case, and `<out>/prediction.json`; a bad case is left out, others go on.

    Args:
        predictors: what `load_ensemble` returned.
        cases: `Case`s; truth is not needed.
        out: the folder for label maps.
        postprocessing: steps applied to the label maps; none by default, as in both papers.
        extras: what else is written.

    Returns:
        A list of (case id, sentence) of those that failed.

    Raises:
        InputError: when uncertainty is asked of a single network.
        WriteError: when the disk is full or the folder is read-only.
    """
    out, failures, facts = Path(out), [], {}
    if extras.save_uncertainty and len(predictors) < 2:
        raise InputError("Uncertainty needs at least two networks. Received: 1.")
    log.info(_first_line(predictors, len(cases)))
    for case in track(cases, "Predicting"):
        started = time.monotonic()
        try:
            facts[case.id] = _write(predict_case(predictors, case), case, out, postprocessing, extras)
        except InputError as error:
            failures.append((case.id, str(error)))
            older = " The label map from an earlier prediction was left in place."
            log.info(f"Left out: {error}{older if (out / f'{case.id}.nii.gz').exists() else ''}")
        else:
            facts[case.id]["seconds"] = round(time.monotonic() - started, 2)
    record = _record(predictors, postprocessing, facts, failures, before=read_prediction_record(out))
    write_json(out / PREDICTION_FILE, record)
    log.info(f"{len(cases) - len(failures)} of {len(cases)} label maps written to {out}.")
    if failures:
        log.info(f"Left out: {', '.join(case_id for case_id, _ in failures)}.")
    return failures


def _write(predicted, case, out, postprocessing, extras):
    """Writes the prediction of a case. Returns what the record says of it."""
    prepared, facts = predicted.prepared, {"networks": predicted.networks}
    reference = prepared.reference
    classes = prepared.to_file_axes(to_classes(predicted.average, predicted.outputs))
    if postprocessing:
        before, classes = classes, postprocess(classes, spacing_of(reference.affine), postprocessing)
        facts["voxels_changed"] = int(np.count_nonzero(before != classes))
    uncertainty = predicted.uncertainty()
    if uncertainty is not None:
        facts["uncertainty"] = mean_uncertainty(uncertainty, predicted.regions())
    name = f"{case.id}.nii.gz"
    write_volume(out / name, classes_to_labels(classes, case.convention), like=reference)
    if extras.save_probabilities:
        write_volume(out / PROBABILITIES_FOLDER / name, prepared.to_file_axes(predicted.regions()), like=reference)
    if extras.save_uncertainty and uncertainty is not None:
        write_volume(out / UNCERTAINTY_FOLDER / name, prepared.to_file_axes(uncertainty), like=reference)
    return facts


def _record(predictors, postprocessing, facts, failures, before):
    """The content of `prediction.json`: the networks with their weights, the steps after them, and each case.

    Cases of the record `before` stay where the same networks and steps made them.
    """
    networks = {one.name: one.weights_sha256 for one in predictors}
    made_by = {"networks": networks, "postprocessing": asdict(postprocessing)}
    origin = ("checkpoint", "initial_weights", "chosen_on")
    checkpoints = {one.name: {name: getattr(one, name) for name in origin} for one in predictors}
    failed = dict(failures)
    if all(before.get(name) == value for name, value in made_by.items()):
        facts = {case: known for case, known in before["cases"].items() if case not in failed} | facts
        failed = {case: reason for case, reason in before["left_out"].items() if case not in facts} | failed
    return {"brats_tf": __version__, **made_by, "checkpoints": checkpoints, "cases": facts, "left_out": failed}


def _first_line(predictors, cases):
    largest = max((one.network for one in predictors), key=lambda network: network.count_params())
    memory = prediction_bytes(largest, networks=len(predictors)) / 1e9
    return (
        f"Predicting {cases} case(s) with {len(predictors)} network(s) of {largest.count_params():,} parameters on "
        f"{device_name()}, about {memory:.1f} GB of memory."
    )
