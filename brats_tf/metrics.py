"""Scores of a prediction against the truth, in NumPy."""

import numpy as np

# The rule of the BraTS evaluation platform for a region that is empty.
DICE_BOTH_EMPTY = 1.0
DICE_ONE_EMPTY = 0.0
EMPTY_RULE = (
    f"a region empty in truth and prediction scores Dice {DICE_BOTH_EMPTY:g}, empty in one of them {DICE_ONE_EMPTY:g} "
    "(as the BraTS platform does)"
)


def dice(truth, prediction):
    """Dice of two masks of equal shape, bool: 2 |T and P| / (|T| + |P|), between 0 and 1.

    >>> dice(np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool))
    0.6666666666666666
    >>> dice(np.zeros(4, bool), np.zeros(4, bool)), dice(np.zeros(4, bool), np.ones(4, bool))
    (1.0, 0.0)

    Raises:
        ValueError: when the shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"Masks must have equal shapes. Received: {truth.shape} and {prediction.shape}.")
    sizes = np.count_nonzero(truth) + np.count_nonzero(prediction)
    if sizes == 0:
        return DICE_BOTH_EMPTY
    # With one mask empty the overlap is 0, which is DICE_ONE_EMPTY.
    return float(2 * np.count_nonzero(truth & prediction) / sizes)


def summarise(scores):
    """Mean, standard deviation (of the population), median and number of scores, as a dict of floats and an int.

    >>> summarise([0.5, 1.0])
    {'mean': 0.75, 'std': 0.25, 'median': 0.75, 'n': 2}
    """
    scores = np.asarray(scores, dtype=float)
    return {
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "median": float(np.median(scores)),
        "n": len(scores),
    }
