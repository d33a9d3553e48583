"""Lesion-wise Dice and HD95, the rule of the BraTS 2023 challenges.

Lesions of the truth are what stays connected (26 neighbours) after a dilation; a lesion is matched by every connected
part of the prediction that touches its dilated self. Parts of the prediction that touch none are false positives, and
count as a Dice of 0 and `WORST_MM`. Lesions of the truth up to a threshold do not count, whether found or not.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brats_tf.evaluation.metrics import EMPTY_MASK_RULES, WORST_MM, dice, hausdorff95

DILATION = 3  # Steps over faces and edges (18 neighbours): the challenge's figures for adult glioma.
SMALLEST_MM3 = 50.0
_CONNECTED = np.ones((3, 3, 3), bool)
_GROWN = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionScore:
    """Means over the counted lesions and the false positives, and how many of each there are."""

    dice: float
    hd95_mm: float
    found: int
    missed: int
    false: int


def lesion_wise(truth, prediction, spacing_mm, empty="brats", *, hd95_mm=None):
    """Scores two masks (X, Y, Z), bool, lesion by lesion.

    Args:
        spacing_mm: the edges of a voxel along the three axes.
        empty: with nothing to count, "brats" scores 1 and 0 mm, "nan" has no score (NaN).
        hd95_mm: of both masks as they are, where it is known: a single lesion that all of the prediction touches
            has it.
    """
    spacing_mm = tuple(spacing_mm)
    if not (truth.any() or prediction.any()):
        return _score([], 0, 0, 0, empty)
    truth, prediction = _cropped(truth, prediction)
    grown = ndimage.binary_dilation(truth, structure=_GROWN, iterations=DILATION)
    lesions, count = ndimage.label(grown, structure=_CONNECTED)
    lesions[~truth] = 0
    parts, part_count = ndimage.label(prediction, structure=_CONNECTED)
    scores, matched, found, missed = [], set(), 0, 0
    for lesion, where in enumerate(ndimage.find_objects(lesions, count), start=1):
        mask, box = lesions == lesion, with_margin(where, lesions.shape)
        # Grown alone: where two lesions grow into each other, they are one lesion already.
        near = ndimage.binary_dilation(mask[box], structure=_GROWN, iterations=DILATION)
        touching = np.setdiff1d(np.unique(parts[box][near]), [0])
        matched.update(touching.tolist())
        if np.count_nonzero(mask) * np.prod(spacing_mm) <= SMALLEST_MM3:
            continue
        found, missed = found + bool(touching.size), missed + (not touching.size)
        alone = count == 1 and touching.size == part_count > 0  # One lesion, and all that was found.
        if alone and hd95_mm is not None:
            scores.append((dice(truth, prediction), hd95_mm))
            continue
        matching = np.isin(parts, touching)
        scores.append((dice(mask, matching), hausdorff95(mask, matching, spacing_mm)))
    false = part_count - len(matched)
    return _score(scores, found, missed, false, empty)


def _score(scores, found, missed, false, empty):
    everything = [*scores, *[(0.0, WORST_MM)] * false]
    if not everything:
        rule = EMPTY_MASK_RULES[empty]
        return LesionScore(rule.share_both, rule.mm_both, found, missed, false)
    means = np.mean(everything, axis=0)
    return LesionScore(float(means[0]), float(means[1]), found, missed, false)


def _cropped(truth, prediction):
    """Both masks in the box around them, with a margin for the dilation; nothing outside it can change a score."""
    (box,) = ndimage.find_objects((truth | prediction).astype(np.uint8))
    box = with_margin(box, truth.shape)
    return truth[box], prediction[box]


def with_margin(box, shape):
    """A box with a margin for the dilation of a lesion."""
    return tuple(
        slice(max(0, part.start - DILATION), min(size, part.stop + DILATION))
        for part, size in zip(box, shape, strict=True)
    )
