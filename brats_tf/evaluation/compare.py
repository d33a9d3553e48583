"""Do two sets of predictions differ? Paired tests on what `brats-tf evaluate` wrote for each."""

import itertools
import logging
from pathlib import Path

import numpy as np
from rich.table import Table

from brats_tf.errors import InputError
from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.evaluation.metrics import EMPTY_MASK_RULES
from brats_tf.evaluation.results import TABLE_ORDER, TOO_GOOD, check_origin, read_scores, read_summary
from brats_tf.evaluation.scores import METRICS, format_score
from brats_tf.evaluation.statistics import permutation_p, wilcoxon_p
from brats_tf.runtime.console import cell, console
from brats_tf.runtime.files import write_json

log = logging.getLogger(__name__)

COMPARED = tuple(name for name, metric in METRICS.items() if metric.better)
RANKED = ("dice", "hd95_mm")  # BraTS 2017-2020 ranks cases x regions x these.
COMPARISON_FILE = "comparison.json"
VOLUME_TOLERANCE_ML = 5e-4  # By which the volumes of one truth may differ, of two layouts.


def scores_of(folder, name):
    """The folder of scores that FIRST or SECOND names: itself, or the one of this name in a folder of label maps.

    Raises:
        InputError: when the scores there are not of the label maps.
    """
    results = Path(folder) / name
    if not results.is_dir():
        return Path(folder)
    maps = LabelMaps(folder)
    if maps.record or maps.ids():  # Elsewhere the scores are of maps that lie in another place, or nowhere any more.
        check_origin(read_summary(results)["made_by"], maps, read_scores(results), results)
    return results


def compare_results(first, second, *, results):
    """Compares two folders of `evaluate`, case by case, prints tables and writes `<results>/comparison.json`.

    Returns:
        What it wrote: the cases that both have and those that only one has; for each region and metric the means, their
        difference (second minus first) and the p of Wilcoxon's signed-rank test (two-sided, scores that are equal left
        out); and the mean ranks over cases, regions, Dice and HD95 (1 is better) with the p of a permutation test that
        swaps the two sets case by case.

    Raises:
        InputError: when a folder has no scores, or they share no case.
    """
    scores = [read_scores(folder) for folder in (first, second)]
    summaries = [read_summary(folder) for folder in (first, second)]
    rules = [summary["empty_rule"] for summary in summaries]
    if rules[0] != rules[1]:
        raise InputError(f"Both must follow one rule for empty regions. Received: {rules[0]} and {rules[1]}.")
    both = [case for case in scores[0] if case in scores[1]]
    if not both:
        raise InputError(f"{first} and {second} must share cases. Received: none in both.")
    for case, region in itertools.product(both, TABLE_ORDER):
        volumes = [one[case][region]["truth_ml"] for one in scores]
        if abs(volumes[0] - volumes[1]) > VOLUME_TOLERANCE_ML:
            raise InputError(
                f"Case {case}: both must be scored against one truth. Received: {region} of {volumes[0]:.3f} ml in "
                f"{first} and {volumes[1]:.3f} ml in {second}."
            )
    regions = {
        region: {metric: _compared(scores, both, region, metric) for metric in COMPARED} for region in TABLE_ORDER
    }
    ranks = np.array([_ranks(scores, case) for case in both])
    comparison = {
        "first": str(first),
        "empty_rule": rules[0],
        "second": str(second),
        "cases": both,
        "only_in_one": sorted(set(scores[0]) ^ set(scores[1])),
        "regions": regions,
        "mean_ranks": ranks.mean(axis=0).tolist(),
        "ranks_p": permutation_p(ranks[:, 0], ranks[:, 1]),
        "too_good": [_too_good(summary, both) for summary in summaries],
    }
    write_json(Path(results) / COMPARISON_FILE, comparison)
    _show(comparison)
    return comparison


def _too_good(summary, cases):
    """{what they did: those of the cases whose scores a summary calls too good}."""
    found = {name: [case for case in cases if case in summary.get(name, ())] for name in TOO_GOOD}
    return {name: ids for name, ids in found.items() if ids}


def _compared(scores, cases, region, metric):
    """Means, difference and p of one metric; cases without a score in either set are left out."""
    pairs = np.array([[one[case][region][metric] for one in scores] for case in cases])
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if not len(pairs):
        return {"n": 0, "first": None, "second": None, "difference": None, "p": None}
    means = pairs.mean(axis=0)
    return {
        "n": len(pairs),
        "first": float(means[0]),
        "second": float(means[1]),
        "difference": float(means[1] - means[0]),
        "p": wilcoxon_p(pairs[:, 0], pairs[:, 1]),
    }


def _ranks(scores, case):
    """Both sets' mean rank on one case: 1 for the better score, 2 for the worse, 1.5 where equal.

    A region without Dice is empty in truth and prediction, which is right and the best result there is; a distance that
    lacks elsewhere is that of a region which one of them lacks, the worst.
    """
    ranks = []
    for region in TABLE_ORDER:
        found = [one[case][region] for one in scores]
        for metric in RANKED:
            sign = 1 if METRICS[metric].better == "larger" else -1
            first, second = (_rankable(sign * values[metric], right=np.isnan(values["dice"])) for values in found)
            ahead = int(first > second) - int(first < second)
            ranks.append((1.5 - ahead / 2, 1.5 + ahead / 2))
    return np.mean(ranks, axis=0)


def _rankable(score, *, right):
    """A score of which more is better, without NaN."""
    if np.isnan(score) or right:
        return np.inf if right else -np.inf
    return score


def _show(comparison):
    title = cell(f"{comparison['first']} and {comparison['second']}")
    table = Table("", "", "first", "second", "difference", "p", "n", title=title)
    for region, metrics in comparison["regions"].items():
        for number, (metric, values) in enumerate(metrics.items()):
            figures = [format_score(metric, values[name]) for name in ("first", "second", "difference")]
            p = "–" if values["p"] is None else f"{values['p']:.3g}"
            table.add_row("" if number else region, METRICS[metric].title, *figures, p, str(values["n"]))
    console.print(table)
    first, second = comparison["mean_ranks"]
    log.info(
        f"Mean rank over {len(comparison['cases'])} cases, regions, Dice and HD95: {first:.3f} and {second:.3f} (1 is "
        f"better), permutation p = {comparison['ranks_p']:.3g}. p of the metrics: Wilcoxon, uncorrected. Rule: "
        f"{EMPTY_MASK_RULES[comparison['empty_rule']].sentence}."
    )
    for name, cases in zip(("first", "second"), comparison["too_good"], strict=True):
        for key, ids in cases.items():
            log.warning(
                f"{len(ids)} cases {TOO_GOOD[key]} that predicted them in {comparison[name]}: scores are too good."
            )
    if comparison["only_in_one"]:
        log.info(f"Only in one of them, left out: {', '.join(comparison['only_in_one'])}.")
