"""What the commands that take PREDICTIONS ask of its record: networks, data, truth."""

import logging
from argparse import Namespace
from pathlib import Path

from brats_tf.cli.options import FOLDERS
from brats_tf.data.case import Case
from brats_tf.data.discovery import find_cases
from brats_tf.data.notes import log_skipped, name_some
from brats_tf.data.truth import find_truth
from brats_tf.errors import InputError
from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.inference.prediction_record import PREDICTION_FILE
from brats_tf.regions import CONVENTIONS, Convention

log = logging.getLogger(__name__)


def results_given(given: Namespace) -> Path:
    """`--results`, or the folder of that name in PREDICTIONS."""
    return given.results or given.predictions / FOLDERS["results"]


def convention_given(given: Namespace) -> Convention | None:
    """What `--prediction-labels` says."""
    return CONVENTIONS.get(given.prediction_labels)


def cases_to_score(given: Namespace, maps: LabelMaps, known: dict | None = None) -> list[Case]:
    """The cases with truth that PREDICTIONS are of: from `--truth`, or from the data that its record names.

    `known`, {root: what `find_truth` found there}, spares several PREDICTIONS of the same data to look again.

    Raises:
        InputError: when neither is there, or has the truth of a prediction.
    """
    cases: list[Case] = []
    skipped: list[tuple[Path, str]] = []
    complaints: list[InputError] = []
    known = {} if known is None else known
    for root in _roots(given.truth, maps, "--truth"):
        try:
            if root not in known:
                known[root] = find_truth(root, given.labels)
                skipped += known[root][1]
        except InputError as error:  # Of several recorded folders, one may have no truth.
            complaints.append(error)
            continue
        cases += known[root][0]
    if not cases and complaints:
        raise complaints[0]
    for complaint in complaints:
        log.info(str(complaint))
    cases = _each_once(cases)
    log_skipped(skipped)
    chosen = [case for case in cases if maps.belongs(case.id)]
    if not chosen:
        raise InputError(
            f"None of the {len(cases)} cases with truth is one of {maps.folder}. Received there: "
            f"{name_some(maps.ids()) or 'no label map'}."
        )
    for case in chosen:
        if maps.is_label_map(case.segmentation):
            raise InputError(
                f"Case {case.id}: its truth must be another file than its label map. Received: {case.segmentation}."
            )
    if len(chosen) < len(cases):
        log.info(f"{len(cases) - len(chosen)} of the {len(cases)} cases with truth were not to be predicted.")
    without = maps.without_truth(cases)
    if without:
        log.info(f"{len(without)} label maps have no truth: {name_some(without)}.")
    return chosen


def cases_predicted(
    given: Namespace, maps: LabelMaps, option: str = "--data", *, complete: bool = False
) -> tuple[list[Case], list[tuple[Path, str]]]:
    """The cases that PREDICTIONS were to be made of, truth or not: from `option`, or as the record says.

    With `complete`, all cases in the folders that the record names, and what was skipped there.
    """
    cases: list[Case] = []
    skipped: list[tuple[Path, str]] = []
    for root in _roots(given.data, maps, option):
        found, left_out = find_cases(root)
        cases += found
        skipped += left_out
    cases = _each_once(cases)
    complete = complete or bool(given.data)
    return cases if complete else [case for case in cases if maps.belongs(case.id)], skipped if complete else []


def runs_of(given: Namespace, maps: LabelMaps) -> list[Path]:
    """The folders of the networks that made PREDICTIONS: as the record says, or in `--runs`; none without a record.

    Raises:
        InputError: when a folder is not there any more.
    """
    runs = [Path(facts["run"]) for facts in maps.record.get("checkpoints", {}).values()]
    if getattr(given, "runs", None) and not maps.record:
        raise InputError(f"--runs is for predictions of this package. Received: {maps.folder}, without a record.")
    if getattr(given, "runs", None):
        runs = [given.runs / run.name for run in runs]
    missing = [str(run) for run in runs if not run.is_dir()]
    if missing:
        raise InputError(
            f"{maps.folder} was predicted by {', '.join(missing)}, which is not there: say with --runs where it is."
        )
    return runs


def _each_once(cases: list[Case]) -> list[Case]:
    """The cases without those that several folders hold. Raises `InputError` where one id names different files."""
    known: dict[str, Case] = {}
    for case in cases:
        other = known.setdefault(case.id, case)
        if other.segmentation != case.segmentation or other.volumes != case.volumes:
            raise InputError(f"Case {case.id} is in {other.folder} and, with other files, in {case.folder}.")
    return list(known.values())


def _roots(given: Path | None, maps: LabelMaps, option: str) -> list[Path]:
    if given:
        return [given]
    if not maps.record:
        raise InputError(f"{maps.folder} has no {PREDICTION_FILE}, so say with {option} which cases it is of.")
    roots = [Path(path) for path in maps.record["data"]]
    missing = [str(path) for path in roots if not path.exists()]
    if missing or not roots:
        where = f"{', '.join(missing)}, which is not there" if missing else "data that its record does not name"
        raise InputError(f"{maps.folder} was predicted from {where}: say with {option} where the cases are.")
    return roots
