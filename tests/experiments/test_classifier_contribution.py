"""The intervals and comparisons of the classifier's contribution; training and prediction are tested elsewhere."""

import classifier_contribution as experiment
import numpy as np
import pytest


def scored(variant, seed, normal, blinded, networks="flair"):
    dice = {
        kind: dict.fromkeys(("WT", "TC", "ET"), values) for kind, values in (("normal", normal), ("blinded", blinded))
    }
    return {"variant": variant, "seed": seed, "networks": networks, "pulse": {"planes_live": [0.9]}, **dice}


def test_differences_are_paired_by_seed_and_case():
    done = [scored("imagenet", seed, [0.8, 0.6 + seed / 10], [0.7, 0.5]) for seed in (0, 1)]
    done += [scored("random", 0, [0.7, 0.6], [0.7, 0.6])]
    found = experiment.compared(done)
    first, second = found["rows"]
    assert (first["variant"], first["seeds"], second["seeds"]) == ("imagenet", [0, 1], [0])
    assert first["dice"]["WT"]["difference"]["mean"] == pytest.approx(np.mean([[0.1, 0.1], [0.1, 0.2]]))
    assert second["dice"]["ET"]["difference"] == {"mean": 0, "low": 0, "high": 0}
    (between,) = found["differences"]
    assert (between["first"], between["second"], between["seeds"]) == (("imagenet", "flair"), ("random", "flair"), [0])
    assert between["dice"]["TC"]["mean"] == pytest.approx(0.05)


@pytest.mark.slow
def test_each_network_is_compared_with_the_average_of_its_own_variant_alone():
    done = [scored("imagenet", 0, [0.8], [0.7], name) for name in ("flair", "t1", experiment.ENSEMBLE)]
    pairs = {(one["first"][1], one["second"][1]) for one in experiment.compared(done)["differences"]}
    assert pairs == {("flair", "ensemble"), ("t1", "ensemble")}


def test_the_interval_covers_the_spread_of_seeds_and_of_cases():
    by_seed = experiment.over_seeds_and_cases(np.array([[0.0] * 8, [1.0] * 8]))
    by_case = experiment.over_seeds_and_cases(np.array([[0.0, 1.0] * 4] * 2))
    none = experiment.over_seeds_and_cases(np.full((2, 8), 0.5))
    assert (by_seed["mean"], by_seed["low"], by_seed["high"]) == (0.5, 0, 1)
    assert 0.05 < by_case["low"] < 0.25 and 0.75 < by_case["high"] < 0.95
    assert none == {"mean": 0.5, "low": 0.5, "high": 0.5}
