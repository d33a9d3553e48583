"""Confidence intervals of what was measured with several seeds on several cases."""

import numpy as np

RESAMPLES = 5000


def over_seeds_and_cases(values):
    """Mean of (seeds, cases), and its 95 % interval when both are drawn anew: {"mean", "low", "high"}."""
    random, (seeds, cases) = np.random.default_rng(0), values.shape
    drawn = [(random.integers(seeds, size=seeds), random.integers(cases, size=cases)) for _ in range(RESAMPLES)]
    rows, columns = map(np.array, zip(*drawn, strict=True))
    means = values[rows[:, :, None], columns[:, None]].mean(axis=(1, 2))
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}
