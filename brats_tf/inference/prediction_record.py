"""`prediction.json` beside the label maps, for its readers: the networks, the data, and what is known of each map."""

import json
from dataclasses import asdict
from pathlib import Path

from brats_tf.config.config import CONFIG_FILE, Config
from brats_tf.config.execution import ForwardOptions, PostProcessing, PredictionOptions
from brats_tf.data.layouts import PREDICTION_FILE, PREDICTION_FOLDERS, is_safe
from brats_tf.errors import InputError
from brats_tf.regions import REGIONS
from brats_tf.runs.files import CHECKPOINT_FILES
from brats_tf.runs.record import check_kinds
from brats_tf.runtime.files import read_json, sha256_of, sha256_of_text

PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER = PREDICTION_FOLDERS
FOLDERS = (PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER, ".")  # Of what is written of a case, its label map last.
MADE_BY = ("networks", "settings", "postprocessing", "forward")  # Predictions in one folder share these.
_KINDS = dict.fromkeys((*MADE_BY, "checkpoints", "cases", "left_out"), dict) | {"data": list, "pending": list}
NO_OPTIONS = PredictionOptions()
_FACTS = {"checkpoint": str, "chosen_on": list, "initial_weights": str, "run": str}  # Of each network.


def check_names(names):
    """Raises `InputError` where two networks of an ensemble have the same name."""
    if len(set(names)) < len(names):
        raise InputError(f"The networks of an ensemble must have different names. Received: {', '.join(names)}.")


def is_made_so(record, made_by):
    """Whether a record's predictions were made as `recording.how_made` says; those of an empty one were not."""
    return all(record.get(name) == value for name, value in made_by.items())


def origin_of(record, case_ids):
    """What tells the predictions of these cases from others in their place: `MADE_BY`, and a hash of the label maps.

    Empty where there is no record.
    """
    if not record:
        return {}
    maps = {case: record["cases"].get(case, {}).get("sha256") for case in case_ids}
    return {name: record[name] for name in MADE_BY} | hash_of(maps)


def hash_of(maps):
    """{"label_maps_sha256": one hash} of {case id: SHA-256 of its label map, None where there is none}."""
    return {"label_maps_sha256": sha256_of_text(json.dumps(maps, sort_keys=True))}


def settings_sha256(config):
    """Of the settings that decide what a network with the same weights predicts: how volumes and windows are made."""
    settings = config.preprocessing() | asdict(config.inference) | {"patch_size": config.data.patch_size}
    return sha256_of_text(json.dumps(settings, sort_keys=True))


def read_prediction_record(predictions):
    """The record that `predict_cases` wrote into a folder; {} where there is none. Raises `InputError`."""
    path = Path(predictions) / PREDICTION_FILE
    if not path.exists():
        return {}
    try:
        record = read_json(path)
        if not isinstance(record, dict):
            raise ValueError("no JSON object")
        missing = set(_KINDS) - set(record)
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing, as in an older version; predict again")
        _check_kinds(record)
        return record
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must hold what `brats-tf predict` writes: {error}.") from None


def finished_cases(record, predictions, options=NO_OPTIONS):
    """The ids of the cases of a record whose label map is there, and the recorded one, with what `options` ask for."""
    finished = set()
    for case, facts in record.get("cases", {}).items():
        parts = [".", PROBABILITIES_FOLDER] if options.save_probabilities else ["."]
        if options.save_probabilities and "outputs" not in facts:  # Of an earlier version.
            continue
        if options.save_uncertainty and len(facts.get("networks", ())) > 1:  # A single network has none.
            parts.append(UNCERTAINTY_FOLDER)
        paths = [Path(predictions) / part / f"{case}.nii.gz" for part in parts]
        hashes = {".": facts["sha256"]} | facts.get("beside", {})
        there = case not in record["pending"] and all(map(Path.is_file, paths))
        if there and all(sha256_of(path) == hashes.get(part, "") for path, part in zip(paths, parts, strict=True)):
            finished.add(case)
    return finished


def check_beside(path, facts, *, case_id):
    """Raises `InputError` when a file beside a label map is not the one that its record has a hash of."""
    expected = facts.get("beside", {}).get(path.parent.name)
    if expected and sha256_of(path) != expected:
        raise InputError(
            f"Case {case_id}: {path} is not the file that its {PREDICTION_FILE} records. Predict it again."
        )


def check_same(record, made_by, out, remedy="name another folder with --out, or replace them with --replace"):
    """Raises `InputError` when a record's predictions are of other networks, weights or steps than `made_by` says."""
    if not is_made_so(record, made_by):
        raise InputError(f"{out} holds predictions with other {_differing(record, made_by)}: {remedy}.")


def check_networks(record, runs, predictions):
    """Raises `InputError` when other networks than those of the folders `runs` made the predictions of a record."""
    names = [Path(run).name for run in runs]
    if set(names) != set(record["networks"]):
        raise InputError(
            f"{predictions} was predicted by {', '.join(record['networks'])}. "
            f"Received: the networks {', '.join(names)}."
        )


def check_weights(record, runs, predictions):
    """Raises `InputError` when other networks than those of `runs`, or other weights, made the predictions."""
    check_networks(record, runs, predictions)
    for run in map(Path, runs):
        files = [run / name for name in CHECKPOINT_FILES.values() if (run / name).is_file()]
        there = (run / CONFIG_FILE).is_file()  # Perhaps a training that has no weights yet.
        if (files or there) and record["networks"][run.name] not in {sha256_of(file) for file in files}:
            raise InputError(f"{predictions} was predicted with other weights than those of {run}. Predict again.")
        if there and record["settings"].get(run.name) != settings_sha256(Config.load(run)):
            raise InputError(f"{predictions} was predicted with other settings than those of {run}. Predict again.")


def chosen_on(record):
    """The ids of the cases whose scores chose the checkpoint of a network, so that theirs are too good."""
    return {case for facts in record.get("checkpoints", {}).values() for case in facts["chosen_on"]}


def uncertainties(record):
    """The networks' uncertainty in each case that several predicted: {case id: {region: float}}."""
    cases = record.get("cases", {})
    return {case: facts["uncertainty"] for case, facts in cases.items() if facts.get("uncertainty")}


def known_cases(record):
    """The ids of all cases that a record speaks of."""
    return {*record.get("cases", {}), *record.get("left_out", {})}


def _differing(before, made_by):
    """What differs between a record and a prediction, in words."""
    if before["networks"].keys() != made_by["networks"].keys():
        return f"networks ({', '.join(before['networks'])})"
    for what, title in (("networks", "weights"), ("settings", "settings")):
        names = [name for name, sha256 in made_by[what].items() if before[what].get(name) != sha256]
        if names:
            return f"{title} of {', '.join(names)}"
    return f"steps ({before['postprocessing'] | before['forward']})"


def _check_kinds(record):
    """Raises `ValueError` unless every part of a record has the kind that its readers expect."""
    cases, checkpoints = record["cases"], record["checkpoints"]
    check_kinds(record, _KINDS)
    check_kinds(record["forward"], {"precision": str, "mirror": str})
    if not record["networks"]:
        raise ValueError("`networks` is empty")
    if set(checkpoints) != set(record["networks"]):
        raise ValueError(f"each network needs {', '.join(_FACTS)}")
    for one in checkpoints.values():
        check_kinds(one, _FACTS)
    for one in cases.values():
        check_kinds(one, {"sha256": str})
        if isinstance(one.get("beside"), list):  # Of an earlier version, without their hashes.
            one["beside"] = dict.fromkeys(map(str, one["beside"]), "")
        found = {"beside": one.get("beside", {}), "trained": one.get("trained", [])}
        check_kinds(found, {"beside": dict, "trained": list})
    ids = [*cases, *record["left_out"], *record["pending"]]
    if not all(isinstance(one, str) and is_safe(one) for one in ids):
        raise ValueError("the id of a case cannot be the name of a file")
    try:
        ForwardOptions(**record["forward"]), PostProcessing(**record["postprocessing"])
    except (TypeError, InputError) as error:
        raise ValueError(str(error)) from None
    texts = [*record["networks"].values(), *record["settings"].values(), *record["left_out"].values(), *record["data"]]
    texts += [case for one in checkpoints.values() for case in one["chosen_on"]]
    if not all(isinstance(one, str) for one in texts):
        raise ValueError("a sentence, a path or a hash is no text")
    for one in cases.values():
        uncertainty = one.get("uncertainty")
        if uncertainty is not None and not (
            isinstance(uncertainty, dict) and all(isinstance(uncertainty.get(one), int | float) for one in REGIONS)
        ):
            raise ValueError("`uncertainty` must hold a number for each region")
