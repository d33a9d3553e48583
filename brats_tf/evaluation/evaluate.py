"""Score predicted label maps against the truth: one line a case and region, and the tables of the papers."""

import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.table import Table

from brats_tf.data import volumes
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.splits import Split
from brats_tf.errors import InputError
from brats_tf.evaluation.empty_rules import EMPTY_RULES
from brats_tf.evaluation.scores import METRICS, score_region, shown
from brats_tf.evaluation.statistics import spearman, summarise
from brats_tf.inference.postprocessing import FILE, save_tuned, tune_et_threshold
from brats_tf.inference.prediction_record import disagreements, read_record
from brats_tf.preprocessing.preprocess import read_classes
from brats_tf.regions import REGIONS, classes_to_regions
from brats_tf.runtime.console import console, say, track
from brats_tf.runtime.files import atomic, write_json

ET = REGIONS.index("ET")
CASES_FILE, SUMMARY_FILE = "cases.csv", "summary.json"
TABLE_ORDER = ("ET", "WT", "TC")  # The columns of paper A's Tables 2 and 3.
TABLE_ROWS = (("Mean", "mean"), ("StdDev", "std"), ("Median", "median"))


def evaluate(cases, *, predictions, results, empty="brats", workers=None):
    """Scores `<predictions>/<case>.nii.gz` of each case and writes `cases.csv` and `summary.json`.

    Args:
        cases: `Case`s with truth.
        predictions: the folder of label maps, in the geometry and the label convention of each case.
        results: the folder for `cases.csv` (case, region, `scores.METRICS`) and `summary.json`
            ({region: {metric: `aggregates.summarise`}}, the rule for empty regions, the cases left out and why).
        empty: what an empty region scores, a key of `metrics.EMPTY_RULES`.
        workers: cases scored at once; None for one a core.

    Returns:
        (summary, failures): the content of `summary.json`, and a list of (case id, sentence).

    Raises:
        InputError: when no case at all can be scored.
    """
    record, failures = read_record(predictions), []
    scored = _score_all(cases, predictions, empty, workers, record, failures)
    if not scored:
        raise InputError(f"None of {len(cases)} cases could be scored against {predictions}.")
    summary = {
        "empty_rule": empty,
        "cases": len(scored),
        "left_out": dict(failures),
        **{
            region: {metric: summarise([regions[region][metric] for regions in scored.values()]) for metric in METRICS}
            for region in REGIONS
        },
    }
    disagreement = _disagreement(record, scored)
    summary |= {"disagreement": disagreement} if disagreement else {}
    _write(Path(results), scored, summary)
    return summary, failures


def _score_all(cases, predictions, empty, workers, record, failures):
    """Scores cases in threads: {case id: scores}; those that cannot be scored are added to `failures`."""
    scored = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        started = {case.id: pool.submit(score_case, case, predictions, empty) for case in cases}
        try:
            for case in track(cases, "Evaluating"):
                try:
                    if record:
                        _check_predicted(case, record)
                    scored[case.id] = started[case.id].result()
                except InputError as error:
                    failures.append((case.id, str(error)))
                    say(f"Left out: {error}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for all the others.
            raise
    return scored


def _check_predicted(case, record):
    """Raises `InputError` where a label map can only be of an earlier prediction than the record."""
    if case.id in record["left_out"]:
        raise InputError(f"Case {case.id}: its prediction was left out: {record['left_out'][case.id]}")
    if case.id not in record["cases"]:
        raise InputError(f"Case {case.id}: no prediction by {', '.join(record['networks'])}.")


def score_case(case, predictions, empty="brats"):
    """All scores of one case: {region: {metric: float}}.

    Raises:
        InputError: when truth or prediction is missing, differs in geometry, or holds unknown labels.
    """
    expected, received, spacing_mm = _read_pair(case, predictions)
    return {
        region: score_region(expected[..., i], received[..., i], spacing_mm, empty) for i, region in enumerate(REGIONS)
    }


def _read_pair(case, predictions):
    """Truth and prediction as regions (X, Y, Z, 3), bool, and the edges of their voxels in mm."""
    path = Path(predictions) / f"{case.id}.nii.gz"
    if not path.is_file():
        raise InputError(f"Case {case.id}: no prediction; expected {path}.")
    truth = volumes.read_segmentation(case.require(SEGMENTATION), case_id=case.id)
    prediction = volumes.read_segmentation(path, case_id=case.id)
    volumes.check_same_geometry(truth.geometry, prediction.geometry, case_id=case.id)
    expected, received = (classes_to_regions(read_classes(labels, case)) for labels in (truth, prediction))
    return expected, received, volumes.spacing_mm(truth.affine)


def tune(cases, *, predictions, runs):
    """Tunes the ET volume of `postprocessing.Steps` on predictions of cases with truth, and stores it with the runs.

    Returns:
        A list of (case id, sentence) of the cases that could not be read.

    Raises:
        InputError: when a network was trained on one of the cases, or ET was dropped from the predictions already.
    """
    steps = _check_tuning(cases, predictions, runs)
    pairs, failures = [], []
    for case in track(cases, "Reading"):
        try:
            truth, prediction, spacing_mm = _read_pair(case, predictions)
            pairs.append((truth[..., ET], prediction[..., ET], spacing_mm))
        except InputError as error:
            failures.append((case.id, str(error)))
            say(f"Left out: {error}")
    if not pairs:
        raise InputError(f"None of {len(cases)} cases could be read from {predictions}.")
    tuned = tune_et_threshold(pairs)
    save_tuned(tuned, runs, steps)
    table = Table("ET below, ml", "mean Dice of ET x 100", title=f"{len(pairs)} cases")
    for threshold, mean in tuned["mean_dice"].items():
        table.add_row(threshold, f"{100 * mean:.2f}")
    console.print(table)
    say(f"Best: {tuned['drop_et_below_ml']:g} ml, written to {FILE} of {', '.join(str(run) for run in runs)}.")
    return failures


def _check_tuning(cases, predictions, runs):
    """The steps of the predictions; `InputError` unless the cases are new to their networks and no ET was dropped."""
    for run in runs:
        seen = {case.id for case in cases} & set(Split.load(run).training)
        if seen:
            raise InputError(
                f"Tuning needs cases that training has not seen: --held-out. Received {len(seen)} that trained {run}: "
                f"{', '.join(sorted(seen)[:3])}."
            )
    record = read_record(predictions)
    dropped = record.get("postprocessing", {}).get("drop_et_below_ml")
    if dropped:
        raise InputError(f"{predictions} must be predicted without --drop-et-below-ml. Received: {dropped:g} ml.")
    names = {Path(run).name for run in runs}
    if record and set(record["networks"]) != names:
        raise InputError(
            f"{predictions} must be predicted by {', '.join(sorted(names))}. Received: {', '.join(record['networks'])}."
        )
    return record.get("postprocessing", {})


def _disagreement(record, scored):
    """Rank correlation of the networks' disagreement with Dice, region by region; {} where it is not known."""
    told = disagreements(record)
    both = [case for case in scored if case in told]
    if not both:
        return {}
    return {
        region: spearman([told[case][region] for case in both], [scored[case][region]["dice"] for case in both])
        for region in REGIONS
    }


def read_scores(results):
    """The scores that `evaluate` wrote: {case id: {region: {metric: float}}}. Raises `InputError`."""
    path = Path(results) / CASES_FILE
    scored = {}
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                values = {metric: float(row[metric]) for metric in METRICS}
                scored.setdefault(row["case"], {})[row["region"]] = values
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `brats-tf evaluate` writes it.") from None
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} must hold the columns case, region, {', '.join(METRICS)}: {error}.") from None
    if not scored or any(set(regions) != set(REGIONS) for regions in scored.values()):
        raise InputError(f"{path} must hold a row for each of {', '.join(REGIONS)} of every case.")
    return scored


def read_summary(results):
    """The `summary.json` that `evaluate` wrote. Raises `InputError`."""
    path = Path(results) / SUMMARY_FILE
    try:
        summary = json.loads(path.read_text())
        figures = [summary[region][metric]["n"] for region in REGIONS for metric in METRICS]
        if summary["empty_rule"] not in EMPTY_RULES or not isinstance(summary["left_out"], dict) or not figures:
            raise ValueError("scores of another version")
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `brats-tf evaluate` writes it.") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} must hold what `brats-tf evaluate` writes: {error!r}. Run it again.") from None
    return summary


def show_table(summaries):
    """Prints mean, deviation and median of Dice and HD95 for each {title: summary}, and the rule for empty regions."""
    for metric in ("dice", "hd95_mm"):
        table = Table(title=METRICS[metric].title)
        for column in ("", "", *TABLE_ORDER, "cases"):
            table.add_column(column, justify="right" if column else "left")
        for title, summary in summaries.items():
            for row, key in TABLE_ROWS:
                values = [shown(metric, summary[region][metric][key]) for region in TABLE_ORDER]
                table.add_row(title if key == "mean" else "", row, *values, str(summary["WT"][metric]["n"]))
        console.print(table)
    rules = dict.fromkeys(EMPTY_RULES[summary["empty_rule"]].sentence for summary in summaries.values())
    say(f"Rule: {'; '.join(rules)}. StdDev is that of the population. HD95 as MedPy defines it.")
    for summary in summaries.values():
        for region, its in summary.get("disagreement", {}).items():
            if its["spearman"] is not None:
                said = f"{its['spearman']:.2f} (Spearman, p {its['p']:.2g}, {its['n']} cases)"
                say(f"Disagreement of the networks with Dice, {region}: {said}.")


def _write(folder, scored, summary):
    with atomic(folder / CASES_FILE) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "region", *METRICS))
        for case, regions in scored.items():
            for region, values in regions.items():
                writer.writerow((case, region, *(f"{values[metric]:.6f}" for metric in METRICS)))
    write_json(folder / SUMMARY_FILE, summary)
