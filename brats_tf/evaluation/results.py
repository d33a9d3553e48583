"""What `evaluate` wrote into a folder, read and checked."""

from pathlib import Path

from brats_tf.data.layouts import SEGMENTATION
from brats_tf.errors import InputError, in_one_line
from brats_tf.evaluation.metrics import EMPTY_MASK_RULES
from brats_tf.evaluation.scores import METRICS
from brats_tf.evaluation.statistics import summarise
from brats_tf.regions import REGIONS
from brats_tf.runtime.files import read_csv, read_json, sha256_of

CASES_FILE, SUMMARY_FILE = "cases.csv", "summary.json"
TABLE_ORDER = ("ET", "WT", "TC")  # The columns of the embedding paper's Tables 2 and 3.
# Keys of a summary that name cases whose scores are too good, and what these cases did.
TOO_GOOD = {"chose_the_checkpoint": "chose the checkpoint", "trained_the_networks": "trained networks"}


def read_scores(results):
    """The scores that `evaluate` wrote: {case id: {region: {metric: float}}}. Raises `InputError`."""
    path = Path(results) / CASES_FILE
    scored = {}
    try:
        for row in read_csv(path):
            values = {metric: float(row[metric]) for metric in METRICS}
            scored.setdefault(row["case"], {})[row["region"]] = values
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `brats-tf evaluate` writes it.") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} must hold the columns case, region, {', '.join(METRICS)}: {error}.") from None
    if not scored or any(set(regions) != set(REGIONS) for regions in scored.values()):
        raise InputError(f"{path} must hold a row for each of {', '.join(REGIONS)} of every case.")
    return scored


def read_summary(results):
    """The `summary.json` that `evaluate` wrote. Raises `InputError`."""
    path = Path(results) / SUMMARY_FILE
    try:
        summary = read_json(path)
        lacking = [name for name in ("without_truth", "cases_sha256", *REGIONS) if name not in summary]
        if lacking:
            raise ValueError(f"{', '.join(lacking)} missing, as in an older version")
        figures = [summary[region][metric] for region in REGIONS for metric in METRICS]
        missing = [name for one in figures for name in summarise([]) if name not in one]
        expected = summary["cases_sha256"]
        if expected != sha256_of(Path(results) / CASES_FILE):
            raise ValueError(f"{CASES_FILE} is of another evaluation")
        kinds = all(isinstance(summary[name], dict) for name in ("left_out", "made_by"))
        kinds = kinds and isinstance(summary["without_truth"], list)
        if summary["empty_rule"] not in EMPTY_MASK_RULES or not kinds or missing:
            raise ValueError("scores of another version")
    except FileNotFoundError:
        raise InputError(f"{path} is missing; `brats-tf evaluate` writes it.") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} must hold what `brats-tf evaluate` writes: {in_one_line(error)}. Run it again."
        ) from None
    return summary


def check_origin(made_by, maps, case_ids, results):
    """Raises `InputError` when scores in `results` are not of these `LabelMaps`."""
    expected = maps.origin(case_ids)
    if any(made_by.get(name) != value for name, value in expected.items()):
        raise InputError(
            f"{results} must hold the scores of these predictions; received those of earlier ones, or of an older "
            "version: run `brats-tf evaluate` again."
        )


def check_truth(summary, cases, results):
    """Raises `InputError` when the truth of a `Case` is not the one that the scores in `results` are of."""
    for case in cases:
        if summary.get("truth_sha256", {}).get(case.id) != sha256_of(case.require(SEGMENTATION)):
            raise InputError(
                f"Case {case.id}: the scores in {results} must be of {case.segmentation}; it has changed since, or "
                "its scores are of an earlier version: run `brats-tf evaluate` again."
            )
