"""Joins the scores of several predictions, above all of the folds of a cross-validation, as if one had made all."""

import logging
from pathlib import Path

from brats_tf.data.notes import name_some
from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import scored_by, summarise_regions, write_scores
from brats_tf.evaluation.results import CASES_FILE, SUMMARY_FILE, TOO_GOOD, read_scores, read_summary
from brats_tf.runtime.lock import lock

log = logging.getLogger(__name__)


def pool_results(folders, *, results):
    """Joins what `evaluate` wrote into `folders` to one `cases.csv` and `summary.json` in the folder `results`.

    Means, medians and intervals are over all cases: each counts once, whatever the size of its fold.

    Returns:
        (the content of `summary.json`, {folder: that of each folder}); `made_by["pooled"]` says of each what its
        predictions were made with.

    Raises:
        InputError: when there are not several folders, one has no scores, two score the same case, or they follow two
            rules for empty regions.
    """
    results, folders = Path(results), [Path(folder) for folder in folders]
    different = {folder.resolve() for folder in folders}
    if len(different) < max(2, len(folders)):
        raise InputError(
            f"Two or more folders of scores must be given once each. Received: {', '.join(map(str, folders))}."
        )
    scores = {folder: read_scores(folder) for folder in folders}
    summaries = {folder: read_summary(folder) for folder in folders}
    if results.resolve() in different:
        raise InputError(f"--results must be another folder than those that are joined. Received: {results}.")
    rules = {str(folder): summary["empty_rule"] for folder, summary in summaries.items()}
    if len(set(rules.values())) > 1:
        received = ", ".join(f"{rule} in {folder}" for folder, rule in rules.items())
        raise InputError(f"All must follow one rule for empty regions. Received: {received}.")
    scored = _joined(scores)
    left_out = {case: why for one in summaries.values() for case, why in one["left_out"].items()}
    summary = {
        "empty_rule": summaries[folders[0]]["empty_rule"],
        "cases": len(scored),
        "left_out": {case: why for case, why in left_out.items() if case not in scored},
        "made_by": _made_by(summaries, scores),
        **summarise_regions(scored),
        "without_truth": sorted(name for one in summaries.values() for name in one["without_truth"]),
        "truth_sha256": {case: sha for one in summaries.values() for case, sha in one.get("truth_sha256", {}).items()},
    }
    for name, what in TOO_GOOD.items():
        if found := sorted(case for one in summaries.values() for case in one.get(name, [])):
            log.warning(
                f"{len(found)} of {len(scored)} cases {what} that predicted them, so that scores are too good: "
                f"{name_some(found)}."
            )
            summary[name] = found
    with lock(results):
        write_scores(results, scored, summary)
    log.info(f"Scores of {len(scored)} cases written to {results / CASES_FILE} and {results / SUMMARY_FILE}.")
    if summary["left_out"]:
        log.info(f"Left out, without scores in any of the folders: {name_some(sorted(summary['left_out']))}.")
    return summary, summaries


def _joined(scores):
    """{folder: {case: scores}} as {case: scores}. Raises `InputError` when two folders score the same case."""
    scored, found_in = {}, {}
    for folder, cases in scores.items():
        for case, regions in cases.items():
            if case in scored:
                raise InputError(
                    f"Case {case} must be scored in one of the folders. Received: {found_in[case]} and {folder}."
                )
            scored[case], found_in[case] = regions, folder
    return scored


def _made_by(summaries, scores):
    """What joined the scores, and what the predictions in each folder were made with."""
    origins = {one for summary in summaries.values() for one in summary["made_by"].get("initial_weights", [])}
    pooled = [
        {"folder": str(folder), "cases": len(scores[folder]), **one["made_by"]} for folder, one in summaries.items()
    ]
    return scored_by() | {"networks": {}, "initial_weights": sorted(origins), "pooled": pooled}
