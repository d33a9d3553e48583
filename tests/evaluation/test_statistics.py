import json

import numpy as np
import pytest

from brats_tf.evaluation.statistics import spearman, summarise


def test_summary_by_hand():
    summary = summarise([0.2, 0.4, 0.9])
    assert summary["mean"] == pytest.approx(0.5)
    assert summary["std"] == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 3))
    assert (summary["quartile1"], summary["median"], summary["quartile3"]) == pytest.approx((0.3, 0.4, 0.65))
    assert summary["n"] == 3


def test_scores_that_are_none_are_left_out():
    summary = summarise([0.5, float("nan"), 0.7])
    assert (summary["mean"], summary["n"]) == (pytest.approx(0.6), 2)
    nothing = summarise([float("nan")])
    assert nothing["n"] == 0 and nothing["mean"] is None
    json.dumps(nothing, allow_nan=False)


def test_the_interval_holds_the_mean_and_repeats_and_shrinks_with_more_cases():
    scores = np.random.default_rng(0).normal(0.7, 0.1, 400)
    few, many = summarise(scores[:20]), summarise(scores)
    for summary in (few, many):
        assert summary["low"] < summary["mean"] < summary["high"]
    assert many["high"] - many["low"] < 0.5 * (few["high"] - few["low"])
    # For so many cases the interval is that of the normal distribution.
    assert many["high"] - many["mean"] == pytest.approx(1.96 * scores.std() / 20, rel=0.1)
    assert summarise(scores) == many
    assert summarise([0.5])["low"] is None
    assert (summarise([0.5, 0.5])["low"], summarise([0.5, 0.5])["high"]) == (0.5, 0.5)


def test_a_rank_correlation_has_its_sign_an_exact_p_and_no_pairs_without_a_number():
    found = spearman([1, 2, 3, 4, np.nan], [9, 7, 5, 3, 1])
    assert found == {"spearman": pytest.approx(-1), "p": pytest.approx(2 / 24), "n": 4}  # Two of 24 orders.
    assert spearman([1, 2, 3], [4, 5, 6])["spearman"] == pytest.approx(1)


@pytest.mark.parametrize(("first", "second", "count"), [([1, 2], [2, 1], 2), ([1, 2, 3, 4], [5, 5, 5, 5], 4)])
def test_two_pairs_or_a_side_that_never_changes_have_no_rank_correlation(first, second, count):
    assert spearman(first, second) == {"spearman": None, "p": None, "n": count}
