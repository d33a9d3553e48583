"""What the classifier contributes: the same networks with each plane replaced by its mean, scored beside the normal."""

import logging
from pathlib import Path

import numpy as np
from rich.table import Table

from brats_tf.config.execution import ForwardOptions, PostProcessing, PredictionOptions
from brats_tf.data.notes import misread
from brats_tf.errors import InputError
from brats_tf.evaluation.label_maps import LabelMaps, read_pair
from brats_tf.evaluation.metrics import EMPTY_MASK_RULES, dice
from brats_tf.evaluation.results import TABLE_ORDER
from brats_tf.evaluation.scores import format_score
from brats_tf.evaluation.statistics import summarise, wilcoxon_p
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.inference.prediction_record import check_networks, origin_of, settings_sha256
from brats_tf.models.planes import has_planes
from brats_tf.regions import REGIONS
from brats_tf.runtime.console import console, track
from brats_tf.runtime.files import read_json, write_json

log = logging.getLogger(__name__)
BLINDED_FOLDER = "blinded"  # In the folder of predictions.
CONTRIBUTION_FILE = "classifier.json"


def classifier_contribution(cases, *, runs, predictions, results, empty="brats", convention=None):
    """Predicts the cases with blinded classifiers into `<predictions>/blinded` and compares Dice case by case.

    A classifier that sees the mean of each plane instead of the plane knows nothing of the case; what the networks
    still find, the 3D encoder and its skips do alone. Steps after the networks are those of the predictions.

    Args:
        cases: `Case`s with truth.
        runs: the folders of the networks that made the predictions, embeddings.
        predictions: the folder that `predict_cases` wrote.
        results: the folder for `classifier.json`.
        empty: the rule for empty regions, a key of `metrics.EMPTY_MASK_RULES`.
        convention: of the labels in the predictions; None for that of each case.

    Returns:
        What it wrote: {region: {"normal", "blinded", "difference" (normal minus blinded): `statistics.summarise`, "p"
        of Wilcoxon's test}, "cases": {id: {region: {"normal", "blinded"}}}, "left_out": {id: why}, "made_by":
        `prediction_record.origin_of`, "empty_rule"}.

    Raises:
        InputError: when the predictions have no record or are of other networks, a network has no planes, or no case
            can be scored.
    """
    maps = LabelMaps(predictions, convention)
    record = maps.record
    if not record:
        raise InputError(f"{predictions} must hold what `brats-tf predict` writes. Received: no prediction.json.")
    bare = [case.id for case in cases if not case.volumes]
    if bare:
        raise InputError(
            f"--blind-classifier predicts again and needs images. Received: {len(bare)} cases with truth alone, "
            f"such as {bare[0]}; leave --truth away, or name the data with images."
        )
    predictors = _load_blinded(runs, record, predictions)
    blinded = Path(predictions) / BLINDED_FOLDER
    normal, left_out = _scored(cases, maps, empty)
    left_out |= misread(cases, left_out)
    known = [case for case in cases if case.id in normal and case.id not in left_out]
    left_out = {case_id: why for case_id, why in left_out.items() if case_id in record["cases"]}
    steps = PostProcessing(**record["postprocessing"])
    left_out |= dict(
        predict_cases(predictors, known, out=blinded, postprocessing=steps, options=PredictionOptions(replace=True))
    )
    blind, failed = _scored([case for case in known if case.id not in left_out], LabelMaps(blinded), empty)
    if not blind:
        raise InputError(f"None of {len(cases)} cases in {predictions} could be scored.")
    pairs = {
        case: {region: {"normal": normal[case][region], "blinded": score} for region, score in scores.items()}
        for case, scores in blind.items()
    }
    found = {region: _compared([pair[region] for pair in pairs.values()]) for region in REGIONS}
    found |= {"cases": pairs, "left_out": left_out | failed, "made_by": origin_of(record, pairs), "empty_rule": empty}
    write_json(Path(results) / CONTRIBUTION_FILE, found)
    _show(found)
    log.info(f"Written to {Path(results) / CONTRIBUTION_FILE}; `brats-tf report` shows it.")
    return found


def _load_blinded(runs, record, predictions):
    """The networks that made the predictions, with blinded classifiers."""
    check_networks(record, runs, predictions)
    checkpoints = {facts["checkpoint"] for facts in record["checkpoints"].values()}
    predictors = load_ensemble(runs, checkpoints.pop(), forward=ForwardOptions(**record["forward"]), blind=True)
    for predictor in predictors:
        if not has_planes(predictor.network):
            raise InputError(f"`blind_classifier` needs networks with planes. Received: {predictor.name}, without any.")
        if record["networks"][predictor.name] != predictor.weights_sha256:
            raise InputError(f"{predictions} was predicted by other weights of {predictor.name}. Predict again.")
        if record["settings"].get(predictor.name) != settings_sha256(predictor.config):
            raise InputError(f"{predictions} was predicted with other settings of {predictor.name}. Predict again.")
        # So that nobody takes its label maps for the network's.
        predictor.label = f"{predictor.name}-{BLINDED_FOLDER}"
    return predictors


def read_contribution(results):
    """The `classifier.json` of a folder; None where there is none. Raises `InputError`."""
    path = Path(results) / CONTRIBUTION_FILE
    try:
        found = read_json(path)
        if not all({"normal", "blinded", "difference", "p"} <= set(found[region]) for region in REGIONS) or not (
            isinstance(found["cases"], dict) and isinstance(found["made_by"], dict) and "empty_rule" in found
        ):
            raise ValueError("another version")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} must hold what `brats-tf evaluate --blind-classifier` writes: {error!r}. Run it again, or remove "
            "the file."
        ) from None


def _scored(cases, maps, empty):
    """({case id: {region: Dice}}, {case id: why there is none})."""
    scored, left_out = {}, {}
    for case in track(cases, "Evaluating"):
        try:
            regions = read_pair(case, maps).regions
            scored[case.id] = {region: dice(*pair, empty) for region, pair in regions.items()}
        except InputError as error:
            left_out[case.id] = str(error)
    return scored, left_out


def _compared(pairs):
    pairs = np.array([[pair["normal"], pair["blinded"]] for pair in pairs], dtype=float)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]  # Under the rule `nan` a case without Dice in either is not compared.
    normal, blind = pairs[:, 0], pairs[:, 1]
    figures = {"normal": normal, "blinded": blind, "difference": normal - blind}
    return {name: summarise(values) for name, values in figures.items()} | {"p": wilcoxon_p(normal, blind)}


def _show(found):
    table = Table("Dice x 100", "normal", "blinded", "difference", "95 % interval", "p", "n")
    for region in TABLE_ORDER:
        figures = found[region]
        means = [format_score("dice", figures[name]["mean"]) for name in ("normal", "blinded", "difference")]
        low, high = (format_score("dice", figures["difference"][name]) for name in ("low", "high"))
        table.add_row(region, *means, f"{low} to {high}", f"{figures['p']:.3g}", str(figures["normal"]["n"]))
    console.print(table)
    log.info("Blinded: each plane is replaced by its mean, so that the classifier sees nothing of the case.")
    log.info(f"Rule: {EMPTY_MASK_RULES[found['empty_rule']].sentence}.")
