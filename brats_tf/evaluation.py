"""Score predicted label maps against the truth: one line a case and region, and the table of paper A."""

import csv
from pathlib import Path

from rich.table import Table

from brats_tf.data import volumes
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.preparation import read_classes
from brats_tf.errors import InputError
from brats_tf.files import atomic, write_json
from brats_tf.metrics import EMPTY_RULE, dice, summarise
from brats_tf.regions import REGIONS, classes_to_regions
from brats_tf.screen import console, say, track

CASES_FILE, SUMMARY_FILE = "cases.csv", "summary.json"
TABLE_ORDER = ("ET", "WT", "TC")  # The columns of the paper's Tables 2 and 3.


def evaluate(cases, *, predictions, results):
    """Scores `<predictions>/<case>.nii.gz` of each case and writes `cases.csv` and `summary.json`.

    Args:
        cases: `Case`s with truth.
        predictions: the folder of label maps, in the geometry and the label convention of each case.
        results: the folder for `cases.csv` (case, region, dice) and `summary.json`
            ({region: {"dice": {"mean", "std", "median", "n"}}}).

    Returns:
        (summary, failures): the content of `summary.json`, and a list of (case id, sentence).

    Raises:
        InputError: when no case at all can be scored.
    """
    rows, failures = [], []
    for case in track(cases, "Evaluating"):
        try:
            rows += [(case.id, region, score) for region, score in score_case(case, predictions).items()]
        except InputError as error:
            failures.append((case.id, str(error)))
            say(f"Left out: {error}")
    if not rows:
        raise InputError(f"None of {len(cases)} cases could be scored against {predictions}.")
    scores = {region: [score for _, name, score in rows if name == region] for region in REGIONS}
    summary = {region: {"dice": summarise(scores[region])} for region in REGIONS}
    _write(Path(results), rows, summary)
    return summary, failures


def score_case(case, predictions):
    """Dice of each region of one case: {"WT": ..., "TC": ..., "ET": ...}.

    Raises:
        InputError: when truth or prediction is missing, differs in geometry, or holds unknown labels.
    """
    path = Path(predictions) / f"{case.id}.nii.gz"
    if not path.is_file():
        raise InputError(f"Case {case.id}: no prediction; expected {path}.")
    truth = volumes.read_segmentation(case.require(SEGMENTATION), case_id=case.id)
    prediction = volumes.read_segmentation(path, case_id=case.id)
    volumes.check_same_geometry(truth.geometry, prediction.geometry, case_id=case.id)
    expected, received = (classes_to_regions(read_classes(labels, case)) for labels in (truth, prediction))
    return {region: dice(expected[..., i], received[..., i]) for i, region in enumerate(REGIONS)}


def show_table(summaries):
    """Prints the paper's table, mean Dice x 100, for each {title: summary}, and the rule for empty regions."""
    table = Table(title="Dice x 100")
    for column in ("", "", *TABLE_ORDER, "cases"):
        table.add_column(column, justify="right" if column else "left")
    for title, summary in summaries.items():
        for row, key in (("Mean", "mean"), ("StdDev", "std"), ("Median", "median")):
            values = [f"{100 * summary[region]['dice'][key]:.2f}" for region in TABLE_ORDER]
            table.add_row(title if key == "mean" else "", row, *values, str(summary["WT"]["dice"]["n"]))
    console.print(table)
    say(f"Rule: {EMPTY_RULE}. StdDev is that of the population.")


def _write(folder, rows, summary):
    with atomic(folder / CASES_FILE) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "region", "dice"))
        writer.writerows((case, region, f"{score:.6f}") for case, region, score in rows)
    write_json(folder / SUMMARY_FILE, summary)
