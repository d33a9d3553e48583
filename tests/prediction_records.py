"""The record that `predict` leaves beside its label maps."""

import json

from brats_tf.inference.prediction_record import read_prediction_record
from brats_tf.runtime.files import sha256_of


def write_record(folder, case_ids=(), **changes):
    """A `prediction.json` as `predict` would write it about the label maps that are in a folder."""
    facts = {"checkpoint": "last", "chosen_on": [], "initial_weights": "random weights", "run": "/nowhere/flair"}
    cases = {case_id: {"sha256": sha256_of(folder / f"{case_id}.nii.gz"), "outputs": "regions"} for case_id in case_ids}
    record = {"networks": {"flair": "0"}, "postprocessing": {}, "cases": cases, "left_out": {}, "data": []}
    record |= {
        "pending": [],
        "settings": {"flair": "0"},
        "forward": {"precision": "float32", "mirror": "none"},
    } | changes
    record = {"checkpoints": dict.fromkeys(record["networks"], facts)} | record
    (folder / "prediction.json").write_text(json.dumps(record))
    return record


def without_seconds(folder):
    """The record in a folder but for the time that each case took."""
    record = read_prediction_record(folder)
    for facts in record["cases"].values():
        del facts["seconds"]
    return record
