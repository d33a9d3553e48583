"""`prediction.json` beside the label maps: which networks made them, and what is known of each case."""

import json
from pathlib import Path

from brats_tf.errors import InputError

PREDICTION_FILE = "prediction.json"


def read_prediction_record(predictions):
    """The record that `predict_cases` wrote into a folder; {} where there is none. Raises `InputError`."""
    path = Path(predictions) / PREDICTION_FILE
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())
        parts = [record[name] for name in ("networks", "postprocessing", "checkpoints", "cases", "left_out")]
        inner = [*record["cases"].values(), *record["checkpoints"].values()]
        if not all(isinstance(part, dict) for part in [*parts, *inner]):
            raise ValueError("not of this version")
        if set(record["checkpoints"]) != set(record["networks"]) or not all(
            {"checkpoint", "chosen_on", "initial_weights"} <= set(facts) for facts in record["checkpoints"].values()
        ):
            raise ValueError("no `checkpoint` of each network; predict again")
        return record
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} must hold what `brats-tf predict` writes: {error!r}.") from None


def check_networks(record, runs, predictions):
    """Raises `InputError` when other networks than those of the folders `runs` made the predictions of a record."""
    names = [Path(run).name for run in runs]
    if set(names) != set(record["networks"]):
        raise InputError(
            f"{predictions} was predicted by {', '.join(record['networks'])}; name them with --networks and --runs. "
            f"Received: {', '.join(names)}."
        )


def chosen_on(record):
    """The ids of the cases whose scores chose the checkpoint of a network, so that theirs are too good."""
    return {case for facts in record.get("checkpoints", {}).values() for case in facts["chosen_on"]}


def uncertainties(record):
    """The networks' uncertainty in each case that several predicted: {case id: {region: float}}."""
    cases = record.get("cases", {})
    return {case: facts["uncertainty"] for case, facts in cases.items() if facts.get("uncertainty")}
