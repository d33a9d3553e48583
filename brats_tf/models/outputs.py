"""What a network's channels mean: overlapping "regions" (sigmoid) or exclusive "classes" (softmax)."""

import numpy as np
from keras import ops

from brats_tf.regions import CLASSES, MEMBERSHIP, REGIONS, classes_above_threshold

# The probabilities outside the brain, by what the channels are.
BACKGROUND = {"regions": np.zeros(len(REGIONS)), "classes": np.eye(len(CLASSES))[0]}


def to_regions(probabilities, outputs):
    """Region probabilities of any network: (B, H, W, D, C) -> (B, H, W, D, 3) WT, TC, ET.

    Exclusive classes add up to the regions that they belong to.
    """
    if outputs == "regions":
        return probabilities
    return ops.matmul(probabilities, ops.cast(MEMBERSHIP, probabilities.dtype))


def to_classes(probabilities, outputs):
    """The label map of a volume: (H, W, D, C) float32 -> (H, W, D) uint8, see `regions.CLASSES`.

    Takes the likeliest class, or paints the regions above the threshold over each other.
    """
    if outputs == "classes":
        return probabilities.argmax(axis=-1).astype(np.uint8)
    return classes_above_threshold(probabilities)
