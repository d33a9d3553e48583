"""`history.csv` and `validation.csv` of a run, read without Keras."""

from brats_tf.errors import InputError
from brats_tf.regions import REGIONS
from brats_tf.runs.files import HISTORY_FILE, VALIDATION_FILE
from brats_tf.runtime.files import read_csv

VALIDATION_DICE = "validation_dice"  # In the logs of an epoch: the mean over cases and regions.
VALIDATION_COLUMNS = ("epoch", "case", "region", "dice")  # Of validation.csv.


def read_history(run):
    """Loss and Dice of the training batches, one value per epoch: {"loss", "Dice WT", ...}. Raises `InputError`."""
    path = run / HISTORY_FILE
    columns = {"loss": "loss"} | {f"Dice {region}": f"dice_{region.lower()}" for region in REGIONS}
    try:
        rows = read_csv(path)
        return {name: [float(row[column]) for row in rows] for name, column in columns.items()}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} must hold the columns {', '.join(columns.values())}: {error!r}.") from None


def read_validation(run):
    """The scores that `validation.Validate` wrote: {region: {epoch: [Dice of each case]}}. Raises `InputError`."""
    path = run / VALIDATION_FILE
    curves = {region: {} for region in REGIONS}
    try:
        for row in read_csv(path):
            curves[row["region"]].setdefault(int(row["epoch"]), []).append(float(row["dice"]))
        if len({tuple((epoch, len(dice)) for epoch, dice in curve.items()) for curve in curves.values()}) > 1:
            raise ValueError("a region has other epochs, or fewer scores, than another")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} must hold the columns {', '.join(VALIDATION_COLUMNS)}: {error}.") from None
    return curves
