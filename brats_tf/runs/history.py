"""What a training leaves to be drawn: its files `history.csv` and `validation.csv`, read without Keras."""

import csv

from brats_tf.errors import InputError
from brats_tf.regions import REGIONS

HISTORY_FILE, VALIDATION_FILE = "history.csv", "validation.csv"
VALIDATION_DICE = "validation_dice"  # In the logs of an epoch: the mean over cases and regions.
COLUMNS = ("epoch", "case", "region", "dice")  # Of validation.csv.


def read_history(run):
    """Loss and Dice of the training batches, a value an epoch: {"loss", "Dice WT", ...}. Raises `InputError`."""
    path = run / HISTORY_FILE
    columns = {"loss": "loss"} | {f"Dice {region}": f"dice_{region.lower()}" for region in REGIONS}
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[column]) for row in rows] for name, column in columns.items()}
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} must hold the columns {', '.join(columns.values())}: {error!r}.") from None


def read_validation(run):
    """What `Validate` wrote: {region: {epoch: [Dice of each case]}}. Raises `InputError`."""
    path = run / VALIDATION_FILE
    curves = {region: {} for region in REGIONS}
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                curves[row["region"]].setdefault(int(row["epoch"]), []).append(float(row["dice"]))
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} must hold the columns {', '.join(COLUMNS)}: {error}.") from None
    return curves
