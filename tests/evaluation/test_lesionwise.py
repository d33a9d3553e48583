"""Lesion-wise scores by hand: the rule of BraTS 2023."""

import math

import numpy as np
import pytest

from brats_tf.evaluation.lesionwise import lesion_wise
from brats_tf.evaluation.metrics import WORST_MM, dice, hausdorff95

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


@pytest.mark.parametrize(("offset", "lesions"), [((0, 7, 7), 1), ((7, 7, 7), 2)])
def test_lesions_grow_over_faces_and_edges_but_not_over_corners(offset, lesions):
    # Six voxels apart in two axes, and in three: three steps over edges meet, over corners they would have to.
    truth = np.zeros((60, 60, 60), bool)
    for corner in ((20, 20, 20), tuple(20 + step + (4 if step else 0) for step in offset)):
        truth[tuple(slice(start, start + 5) for start in corner)] = True
    assert lesion_wise(truth, truth, MM).found == lesions


def test_parts_that_touch_by_a_corner_are_one():
    truth, prediction = cubes((5, 5, 5)), cubes((5, 5, 5))
    for step in range(12):  # A diagonal that begins at the lesion's corner and ends far outside.
        prediction[10 + step, 10 + step, 10 + step] = True
    assert lesion_wise(truth, prediction, MM).false == 0
    assert lesion_wise(truth, prediction, MM).dice == dice(truth, prediction)


@pytest.mark.parametrize(("voxels", "counted"), [(50, 0), (51, 1)])
def test_50_cubic_millimetres_do_not_count_and_51_do(voxels, counted):
    truth = np.zeros((40, 40, 40), bool)
    block = np.zeros(64, bool)
    block[:voxels] = True
    truth[5:9, 5:9, 5:9] = block.reshape(4, 4, 4)
    assert truth.sum() == voxels
    assert lesion_wise(truth, truth, MM).found == counted
