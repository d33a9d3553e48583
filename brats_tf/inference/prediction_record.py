"""What a prediction tells about itself: `prediction.json` beside the label maps."""

import json
from pathlib import Path

from brats_tf.errors import InputError

RECORD = "prediction.json"


def read_record(predictions):
    """What `inference.predict_cases` told of its predictions; {} where there is no record. Raises `InputError`."""
    path = Path(predictions) / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())
        parts = [record[name] for name in ("networks", "postprocessing", "cases", "left_out")]
        if not all(isinstance(part, dict) for part in [*parts, *record["cases"].values()]):
            raise ValueError("not of this version")
        return record
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} must hold what `brats-tf predict` writes: {error!r}.") from None


def disagreements(record):
    """How far the networks disagreed on each case, where there were several: {case id: {region: float}}."""
    return {case: its["disagreement"] for case, its in record.get("cases", {}).items() if its.get("disagreement")}
