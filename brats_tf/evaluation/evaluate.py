"""Scores predicted label maps against the truth: one row per case and region, and the papers' tables."""

import csv
import logging
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from brats_tf import __version__
from brats_tf.config.execution import EvaluationOptions
from brats_tf.data.case import Case
from brats_tf.data.notes import leave_out_misread
from brats_tf.errors import InputError, about
from brats_tf.evaluation.label_maps import LabelMaps, read_pair
from brats_tf.evaluation.metrics import EMPTY_MASK_RULES
from brats_tf.evaluation.results import CASES_FILE, SUMMARY_FILE, TABLE_ORDER
from brats_tf.evaluation.scores import METRICS, format_score, score_region
from brats_tf.evaluation.statistics import format_correlation, spearman, summarise
from brats_tf.inference.prediction_record import chosen_on, uncertainties
from brats_tf.regions import REGIONS, Convention
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import cell, console, track
from brats_tf.runtime.files import atomic, json_text, sha256_of
from brats_tf.runtime.lock import lock
from brats_tf.runtime.system import available_cores, machine

log = logging.getLogger(__name__)

TABLE_ROWS = (("Mean", "mean"), ("StdDev", "std"), ("Median", "median"))


def evaluate(
    cases: Sequence[Case],
    *,
    predictions: str | Path,
    results: str | Path,
    options: EvaluationOptions | None = None,
    convention: Convention | None = None,
    executor: Executor | None = None,
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Scores the label map of each case and writes `cases.csv` and `summary.json`.

    Args:
        cases: `Case`s with truth.
        predictions: the folder of label maps, of `brats-tf predict` or of another program, in each case's geometry.
        results: the folder for `cases.csv` (case, region, `scores.METRICS`) and `summary.json`
            ({region: {metric: `statistics.summarise`}}, the rule for empty regions, the cases left out and why).
        options: `EvaluationOptions`: the rule for empty regions, and how many cases are scored at once.
        convention: of the labels in the predictions; None for that of each case.
        executor: what scores the cases, see `runtime.ray_pool`; None for threads of this process.

    Returns:
        (summary, failures): the content of `summary.json`, and a list of (case id, sentence).

    Raises:
        InputError: when no case at all can be scored.
    """
    options, results = options or EvaluationOptions(), Path(results)
    failures: list[tuple[str, str]] = []
    maps = LabelMaps(predictions, convention)
    with lock(results):
        pool = executor or ThreadPoolExecutor(options.workers or available_cores())
        found = _score_all(cases, partial(_scores_and_hash, maps=maps, empty=options.empty_masks), pool, failures)
        leave_out_misread(cases, found, failures)
        scored = {case_id: scores for case_id, (scores, _) in found.items()}
        if not scored:
            raise InputError(f"None of {len(cases)} cases could be scored against {predictions}.")
        summary = _summarise(scored, failures, maps, options) | {"without_truth": maps.without_truth(cases)}
        summary["truth_sha256"] = {case_id: sha256 for case_id, (_, sha256) in found.items()}
        write_scores(results, scored, summary)
    log.info(f"Scores written to {results / CASES_FILE} and {results / SUMMARY_FILE}.")
    return summary, failures


def _summarise(scored, failures, maps, options):
    """The content of `summary.json`."""
    record = maps.record
    summary = {
        "empty_rule": options.empty_masks,
        "cases": len(scored),
        "left_out": dict(failures),
        "made_by": _made_by(maps, scored),
        **summarise_regions(scored),
    }
    biased = sorted(chosen_on(record) & set(scored))
    if biased:
        log.warning(
            f"{len(biased)} of {len(scored)} cases chose the checkpoint that predicted them, or its learning rate, so "
            "their scores are too good: score other cases, or predict with the last checkpoint."
        )
        summary["chose_the_checkpoint"] = biased
    trained = sorted(case for case in scored if record.get("cases", {}).get(case, {}).get("trained"))
    if trained:
        log.warning(f"{len(trained)} of {len(scored)} cases trained networks that predicted them: score others.")
        summary["trained_the_networks"] = trained
    uncertainty = _uncertainty(record, scored)
    return summary | ({"uncertainty": uncertainty} if uncertainty else {})


def summarise_regions(scored):
    """{case id: {region: {metric: float}}} -> {region: {metric: `statistics.summarise`}}."""
    return {
        region: {metric: summarise([regions[region][metric] for regions in scored.values()]) for metric in METRICS}
        for region in REGIONS
    }


def _made_by(maps, scored):
    """The version and the commit, what the predictions were made with, and where the networks' training began."""
    checkpoints = maps.record.get("checkpoints", {})
    origins = sorted({facts["initial_weights"] for facts in checkpoints.values()})
    return scored_by() | {"networks": {}} | maps.origin(scored) | {"initial_weights": origins}


def scored_by():
    """What writes scores: the version, the commit and the machine."""
    return {"brats_tf": __version__, "commit": git_commit(), "machine": machine()}


def _score_all(cases, score, pool, failures):
    """Scores cases: {case id: scores}; those that cannot be scored are added to `failures`."""
    scored = {}
    with pool:
        started = {case.id: pool.submit(score, case) for case in cases}
        try:
            for case in track(cases, "Evaluating"):
                try:
                    scored[case.id] = started[case.id].result()
                except InputError as error:
                    failures.append((case.id, about(case.id, error)))
                    log.info(f"Left out: {about(case.id, error)}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for all the others.
            raise
    return scored


def score_case(case, maps, empty="brats"):
    """All scores of one case against its map in `LabelMaps`: {region: {metric: float}}.

    Raises:
        InputError: when truth or prediction is missing, differs in geometry, or holds unknown labels.
    """
    return _scores_and_hash(case, maps, empty)[0]


def _scores_and_hash(case, maps, empty):
    """(what `score_case` returns, the SHA-256 of the truth)."""
    pair = read_pair(case, maps)
    spacing_mm, voxels = pair.spacing_mm, pair.voxels
    scores = {
        region: score_region(truth, prediction, spacing_mm, empty, voxels=voxels)
        for region, (truth, prediction) in pair.regions.items()
    }
    return scores, pair.truth_sha256


def _uncertainty(record, scored):
    """Rank correlation of the networks' uncertainty with Dice, region by region; {} where it is not known."""
    known = uncertainties(record)
    both = [case for case in scored if case in known]
    if not both:
        return {}
    return {
        region: spearman([known[case][region] for case in both], [scored[case][region]["dice"] for case in both])
        for region in REGIONS
    }


def show_table(summaries):
    """Prints mean, deviation and median of Dice and HD95 for each {title: summary}, and the rule for empty regions."""
    for metric in ("dice", "hd95_mm"):
        table = Table(title=METRICS[metric].title)
        for column in ("", "", *TABLE_ORDER, "cases"):
            table.add_column(column, justify="right" if column else "left")
        for title, summary in summaries.items():
            for row, key in TABLE_ROWS:
                values = [format_score(metric, summary[region][metric][key]) for region in TABLE_ORDER]
                table.add_row(cell(title) if key == "mean" else "", row, *values, _counts(summary, metric))
        console.print(table)
    rules = dict.fromkeys(EMPTY_MASK_RULES[summary["empty_rule"]].sentence for summary in summaries.values())
    log.info(f"Rule: {'; '.join(rules)}. Standard deviations divide by n. HD95 as MedPy defines it.")
    for title, summary in summaries.items():
        for region, correlation in summary.get("uncertainty", {}).items():
            found = "not defined" if correlation["spearman"] is None else format_correlation(correlation)
            log.info(f"Uncertainty of the networks ({title}) and Dice, {region}: Spearman {found}.")


def _counts(summary, metric):
    """The number of cases with a score: one, or that of each region."""
    counts = [str(summary[region][metric]["n"]) for region in TABLE_ORDER]
    return counts[0] if len(set(counts)) == 1 else ", ".join(counts)


def write_scores(folder, scored, summary):
    """Writes `cases.csv` and `summary.json`, or neither where the disk is full.

    The second is complete before the first gets its name.
    """
    with atomic(folder / SUMMARY_FILE) as summary_file, atomic(folder / CASES_FILE) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("case", "region", *METRICS))
            for case, regions in scored.items():
                for region, values in regions.items():
                    writer.writerow((case, region, *(f"{values[metric]:.6f}" for metric in METRICS)))
        summary["cases_sha256"] = sha256_of(temporary)
        summary_file.write_text(json_text(summary))
