"""Confidence intervals of what was measured with several seeds on several cases."""

import numpy as np

RESAMPLES = 5000


def over_seeds_and_cases(values):
    """Mean of (seeds, cases), and its 95 % interval when both are drawn anew: {"mean", "low", "high"}."""
    random, (seeds, cases) = np.random.default_rng(0), values.shape
    drawn = [
        values[np.ix_(random.integers(seeds, size=seeds), random.integers(cases, size=cases))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}
