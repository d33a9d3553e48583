"""Splits cases into training and validation: by patient, stratified by layout and grade, seeded."""

import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from brats_tf.errors import InputError
from brats_tf.runtime.files import read_json, write_json

log = logging.getLogger(__name__)
SPLIT_FILE = "split.json"
# Data sets of the same adults, numbered anew.
_SHARED = re.compile(r"BraTS 20(17-2021|17|18|19|20|21|23 GLI|23 GoAT)|MSD Task01")


@dataclass(frozen=True)
class Split:
    """The ids of training and validation cases, and how they were split; saved in a run's folder."""

    how: str
    seed: int
    training: list
    validation: list

    def save(self, run):
        """Writes `split.json` into a run's folder."""
        write_json(Path(run) / SPLIT_FILE, asdict(self))

    @classmethod
    def load(cls, run):
        """Reads a run's `split.json`. Raises `InputError` when there is none, or it is damaged."""
        path = Path(run) / SPLIT_FILE
        try:
            split = cls(**read_json(path))
            if not all(isinstance(one, str) for one in [*split.training, *split.validation]):
                raise ValueError("case ids must be text")
            return split
        except FileNotFoundError:
            raise InputError(f"{run} has no {SPLIT_FILE}, which a training writes. Train it first.") from None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is no readable split: {error}.") from None


def training_cases(run):
    """The ids of the cases that a run was trained on; None where nobody has kept them. Raises as `Split.load`."""
    return Split.load(run).training if (Path(run) / SPLIT_FILE).is_file() else None


def split_cases(cases, data):
    """Splits cases into training and validation; all scans of a patient stay together, layouts and grades evenly.

    scikit-learn's `StratifiedGroupKFold` knows folds but no shares, and a split must not change with a library.

    Args:
        cases: `Case`s.
        data: `DataSettings`, whose `folds` and `fold`, or `validation_split`, say what training does not see. The same
            `split_seed` splits the same cases alike.

    Returns:
        A `Split`; training has all cases when neither is set.

    Raises:
        InputError: when a part would be empty.
    """
    seed = data.split_seed
    order = _patients_in_order(cases, seed)
    share = data.validation_split
    if data.folds is not None:
        chosen = {patient for number, patient in enumerate(order) if number % data.folds == data.fold}
        how = f"fold {data.fold} of {data.folds}"
    elif share is not None:
        # Every patient whose number takes n * share over a whole number: spread evenly over the order.
        chosen = {p for n, p in enumerate(order) if int((n + 1) * share) > int(n * share)}
        how = f"validation split {share:g}"
    else:
        chosen, how = set(), "all"
    training = [case.id for case in cases if case.patient not in chosen]
    validation = [case.id for case in cases if case.patient in chosen]
    if not training or (how != "all" and not validation):
        raise InputError(
            f"{how} leaves {len(training)} cases for training and {len(validation)} for validation; "
            f"received {len(cases)} cases of {len(order)} patients."
        )
    if validation:
        warn_of_shared_patients(cases)
    return Split(how, seed, training, validation)


def warn_of_shared_patients(cases):
    """Warns where cases that train and validate are of data sets which name the same patients differently."""
    pooled = sorted({case.layout.name for case in cases if _SHARED.fullmatch(case.layout.name)})
    if len(pooled) > 1:
        log.warning(
            f"{', '.join(pooled)} have patients in common under other names: some may train and validate, and "
            "the scores of the validation would be too good."
        )


def validation_cases(cases, runs):
    """The validation cases that all runs share.

    Raises:
        InputError: when a run has no split or no validation cases, the runs differ in them, or none is found.
    """
    splits = {run: Split.load(run) for run in runs}
    first, *others = splits
    for run in others:
        if set(splits[run].validation) != set(splits[first].validation):
            raise InputError(
                f"The networks must share their validation cases. Received: {splits[run].how}, seed {splits[run].seed} "
                f"in {run}; {splits[first].how}, seed {splits[first].seed} in {first}."
            )
    wanted = set(splits[first].validation)
    found = [case for case in cases if case.id in wanted]
    if not found:
        raise InputError(
            f"None of the {len(cases)} cases is a validation case of {first} ({splits[first].how}). Train it with "
            "--validation-split or --folds, and name the same data."
        )
    if len(found) < len(wanted):
        log.info(f"{len(found)} of the {len(wanted)} validation cases of {first} were found.")
    return found


def _patients_in_order(cases, seed):
    """All patients, shuffled within each layout and grade, one stratum after the other."""
    strata = {}
    for case in sorted(cases, key=lambda case: case.id):
        strata.setdefault((case.layout.name, case.grade or ""), {})[case.patient] = None
    order = {}
    for number, key in enumerate(sorted(strata)):
        patients = list(strata[key])
        shuffled = np.random.default_rng([seed, number]).permutation(len(patients))
        order |= dict.fromkeys(patients[index] for index in shuffled)
    return list(order)
