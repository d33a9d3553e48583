"""Lesion-wise scores by hand: the rule of BraTS 2023."""

import math

import numpy as np
import pytest

from brats_tf.empty_rules import WORST_MM
from brats_tf.lesions import lesion_wise
from brats_tf.metrics import dice, hausdorff95

MM = (1, 1, 1)


def cubes(*corners, edge=5, shape=(60, 40, 40)):
    mask = np.zeros(shape, bool)
    for corner in corners:
        mask[tuple(slice(start, start + edge) for start in corner)] = True
    return mask


def test_one_lesion_scores_as_a_whole():
    truth, prediction = cubes((5, 5, 5)), cubes((6, 5, 5))
    score = lesion_wise(truth, prediction, MM)
    assert score.dice == dice(truth, prediction)
    assert score.hd95_mm == hausdorff95(truth, prediction, MM)
    assert (score.found, score.missed, score.false) == (1, 0, 0)


def test_a_missed_lesion_and_a_false_one_count_as_nothing():
    both, first, other = cubes((5, 5, 5), (40, 5, 5)), cubes((5, 5, 5)), cubes((5, 5, 5), (5, 30, 30))
    missed = lesion_wise(both, first, MM)
    assert (missed.dice, missed.hd95_mm) == (0.5, WORST_MM / 2)
    assert (missed.found, missed.missed, missed.false) == (1, 1, 0)
    false = lesion_wise(first, other, MM)
    assert (false.dice, false.hd95_mm) == (0.5, WORST_MM / 2)
    assert (false.found, false.missed, false.false) == (1, 0, 1)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (8, 2)])
def test_lesions_that_grow_into_each_other_are_one(gap, lesions):
    # Three steps of growth from either side close a gap of six voxels.
    truth = cubes((5, 5, 5), (10 + gap, 5, 5))
    score = lesion_wise(truth, truth, MM)
    assert (score.dice, score.hd95_mm, score.found) == (1, 0, lesions)


def test_a_part_nearby_belongs_to_the_lesion_and_one_further_off_is_false():
    truth = cubes((5, 5, 5))
    near, far = (cubes((5, 5, 5)) | cubes((start, 5, 5), edge=2) for start in (12, 13))
    assert lesion_wise(truth, near, MM).false == 0
    assert lesion_wise(truth, near, MM).dice == dice(truth, near)
    assert lesion_wise(truth, far, MM).false == 1
    assert lesion_wise(truth, far, MM).dice == 0.5


def test_small_lesions_do_not_count_but_what_finds_them_is_not_false():
    truth = cubes((5, 5, 5)) | cubes((40, 5, 5), edge=3)
    assert 27 <= 50 < 125
    for prediction in (truth, cubes((5, 5, 5))):
        score = lesion_wise(truth, prediction, MM)
        assert (score.dice, score.found, score.missed, score.false) == (1, 1, 0, 0)
    # In voxels of 2 mm the small one has 216 mm3.
    assert lesion_wise(truth, cubes((5, 5, 5)), (2, 2, 2)).missed == 1


def test_nothing_to_count():
    empty, full = cubes(), cubes((5, 5, 5))
    assert (lesion_wise(empty, empty, MM).dice, lesion_wise(empty, empty, MM).hd95_mm) == (1, 0)
    assert math.isnan(lesion_wise(empty, empty, MM, "nan").dice)
    assert (lesion_wise(empty, full, MM).dice, lesion_wise(empty, full, MM).hd95_mm) == (0, WORST_MM)
    assert (lesion_wise(full, empty, MM).dice, lesion_wise(full, empty, MM).missed) == (0, 1)
