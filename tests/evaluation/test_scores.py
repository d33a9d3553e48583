"""The columns of a score, each of two masks whose figures are known by hand."""

import math

import numpy as np
import pytest

from brats_tf.evaluation.metrics import sensitivity
from brats_tf.evaluation.scores import METRICS, score_region


def test_every_column_is_the_one_that_its_name_says():
    """Three lesions of 125 voxels, of which one is found in part, and 27 voxels elsewhere; a voxel has 2 mm³."""
    truth, prediction = np.zeros((2, 60, 20, 20), bool)
    for first in (2, 22, 52):
        truth[first : first + 5, 2:7, 2:7] = True
    prediction[2:7, 2:7, 2:5] = prediction[40:43, 10:13, 10:13] = True
    found = score_region(truth, prediction, (1, 4, 0.5))
    assert list(found) == list(METRICS)
    assert found["dice"] == pytest.approx(2 * 75 / (375 + 102))
    assert found["sensitivity"] == pytest.approx(75 / 375)
    assert found["specificity"] == pytest.approx(1 - 27 / (60 * 20 * 20 - 375))
    assert (found["lesions_found"], found["lesions_missed"], found["lesions_false"]) == (1, 2, 1)
    assert found["lesion_dice"] == pytest.approx(2 * 75 / (125 + 75) / 4)
    assert (found["truth_ml"], found["prediction_ml"]) == pytest.approx((0.75, 0.204))
    assert found["volume_error_ml"] == pytest.approx(-0.546)


def test_a_false_lesion_beside_a_perfect_one_halves_the_lesion_wise_dice():
    truth = np.zeros((60, 20, 20), bool)
    truth[5:10, 5:10, 5:10] = True
    prediction = truth.copy()
    prediction[40:45, 5:10, 5:10] = True
    assert score_region(truth, prediction, (1, 1, 1))["lesion_dice"] == 0.5


def test_nothing_to_find_has_no_sensitivity_where_the_rule_says_so():
    nothing = np.zeros((4, 4, 4), bool)
    assert sensitivity(nothing, nothing, "brats") == 1
    assert math.isnan(sensitivity(nothing, nothing, "nan"))


def test_more_is_better_or_worse():
    larger = {"dice", "sensitivity", "specificity", "nsd", "lesion_dice"}
    smaller = {"hd95_mm", "lesion_hd95_mm", "lesions_missed", "lesions_false"}
    assert {name for name, metric in METRICS.items() if metric.better == "larger"} == larger
    assert {name for name, metric in METRICS.items() if metric.better == "smaller"} == smaller
