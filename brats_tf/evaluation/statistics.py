"""Summary statistics and paired tests, with SciPy."""

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES, BATCH = 2000, 10**6  # Of the bootstrap; scores that are drawn at once.
EXACT_PAIRS = 7


def summarise(scores):
    """Mean, its bootstrap interval, standard deviation (of the population), quartiles and number of scores.

    Scores that are NaN (see `metrics.EMPTY_MASK_RULES`) are left out and not counted; without any, the figures are
    None.

    >>> summary = summarise([0.5, 1.0, float("nan")])
    >>> summary["mean"], summary["std"], summary["median"], summary["n"]
    (0.75, 0.25, 0.75, 2)
    """
    scores = np.asarray(scores, dtype=float)
    scores = scores[~np.isnan(scores)]
    if not scores.size:
        return dict.fromkeys(("mean", "low", "high", "std", "median", "quartile1", "quartile3")) | {"n": 0}
    low, high = _interval(scores)
    quartile1, median, quartile3 = np.percentile(scores, (25, 50, 75))
    return {
        "mean": float(scores.mean()),
        "low": low,
        "high": high,
        "std": float(scores.std()),
        "median": float(median),
        "quartile1": float(quartile1),
        "quartile3": float(quartile3),
        "n": len(scores),
    }


def _interval(scores):
    """The percentile bootstrap's interval of the mean; the same scores give the same one."""
    if len(scores) < 2:
        return None, None
    drawn = stats.bootstrap(
        (scores,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH // len(scores)),  # Drawn at once; all of 10,000 cases would take 800 MB.
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def wilcoxon_p(first, second):
    """Two-sided p of Wilcoxon's signed-rank test of paired scores (N,); 1 when every pair is equal."""
    first, second = (np.asarray(values, dtype=float) for values in (first, second))
    differences = first - second
    differences = differences[differences != 0]
    return float(stats.wilcoxon(differences).pvalue) if differences.size else 1.0


def permutation_p(first, second):
    """Two-sided p of the mean difference of paired values (N,), swapping pairs: all swaps, or random ones of many."""
    if len(first) < 2:
        return 1.0  # One pair and its swap are all there is.
    drawn = stats.permutation_test(
        (np.asarray(first, dtype=float), np.asarray(second, dtype=float)),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    return float(drawn.pvalue)


def spearman(first, second):
    """Rank correlation of pairs (N,): {"spearman", "p", "n"}; None for fewer than 3 or where one side never changes.

    p is exact (all permutations) for up to 7 pairs, where SciPy's approximation is far off, else SciPy's.
    """
    pairs = np.array([first, second], dtype=float)
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    count = pairs.shape[1]
    if count < 3 or (np.ptp(pairs, axis=1) == 0).any():
        return {"spearman": None, "p": None, "n": count}
    found = stats.spearmanr(*pairs)
    p = float(found.pvalue)
    if count <= EXACT_PAIRS:
        correlate = lambda one: stats.spearmanr(one, pairs[1]).statistic  # noqa: E731
        test = stats.permutation_test((pairs[0],), correlate, permutation_type="pairings", vectorized=False)
        p = float(test.pvalue)
    return {"spearman": float(found.statistic), "p": p, "n": count}


def format_correlation(correlation):
    """A rank correlation in words.

    >>> format_correlation({"spearman": -0.5, "p": 0.25, "n": 5})
    '-0.50 (p 0.25, 5 cases)'
    """
    return f"{correlation['spearman']:.2f} (p {correlation['p']:.2g}, {correlation['n']} cases)"
