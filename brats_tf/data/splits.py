"""Which cases train a network, and which are kept to score it: by patient, even over layouts and grades, seeded."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from brats_tf.errors import InputError
from brats_tf.runtime.console import say
from brats_tf.runtime.files import write_json

FILE = "split.json"


@dataclass(frozen=True)
class Split:
    """Case ids, and how they were parted; saved in a run's folder."""

    how: str
    seed: int
    training: list
    held_out: list

    def save(self, run):
        """Writes `split.json` into a run's folder."""
        write_json(Path(run) / FILE, asdict(self))

    @classmethod
    def load(cls, run):
        """Reads a run's `split.json`. Raises `InputError` when there is none, or it is damaged."""
        path = Path(run) / FILE
        try:
            split = cls(**json.loads(path.read_text()))
            if not all(isinstance(one, str) for one in [*split.training, *split.held_out]):
                raise ValueError("case ids must be text")
            return split
        except FileNotFoundError:
            raise InputError(f"{run} has no {FILE}, which a training writes. Train it first.") from None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is no readable split: {error}.") from None


def check_split(folds, fold, hold_out):
    """Raises `InputError` unless there is one fold of some, or a share to hold out, or neither."""
    if (folds is None) != (fold is None):
        raise InputError(f"`folds` and `fold` belong together. Received: folds={folds}, fold={fold}.")
    if folds is not None and hold_out is not None:
        raise InputError(f"`folds` and `hold_out` exclude each other. Received: folds={folds}, hold_out={hold_out}.")
    if folds is not None and not (folds >= 2 and 0 <= fold < folds):
        raise InputError(
            f"`fold` must be from 0 to folds - 1, `folds` at least 2. Received: fold={fold}, folds={folds}."
        )
    if hold_out is not None and not 0 < hold_out < 1:
        raise InputError(f"`hold_out` must be between 0 and 1. Received: {hold_out}.")


def split_cases(cases, *, seed, folds=None, fold=None, hold_out=None):
    """Parts cases; all scans of a patient stay together, and each layout and grade is parted alike.

    Args:
        cases: `Case`s.
        seed: the same seed parts the same cases alike.
        folds, fold: hold out fold number `fold`, from 0, of `folds`.
        hold_out: or hold out this share.

    Returns:
        A `Split`; nothing is held out when neither is given.

    Raises:
        InputError: when a part would be empty.
    """
    check_split(folds, fold, hold_out)
    order = _patients_in_order(cases, seed)
    if folds is not None:
        chosen, how = {p for n, p in enumerate(order) if n % folds == fold}, f"fold {fold} of {folds}"
    elif hold_out is not None:
        # Every patient whose number takes n * share over a whole number: spread evenly over the order.
        chosen = {p for n, p in enumerate(order) if int((n + 1) * hold_out) > int(n * hold_out)}
        how = f"hold-out {hold_out:g}"
    else:
        chosen, how = set(), "all"
    training = [case.id for case in cases if case.patient not in chosen]
    held_out = [case.id for case in cases if case.patient in chosen]
    if not training or (how != "all" and not held_out):
        raise InputError(
            f"{how} leaves {len(training)} cases to train and {len(held_out)} to score; "
            f"received {len(cases)} cases of {len(order)} patients."
        )
    return Split(how, seed, training, held_out)


def held_out_cases(cases, runs):
    """Those of `cases` that every run's split holds out.

    Raises:
        InputError: when a run has no split, holds nothing out, or the runs hold out different cases; or none is found.
    """
    splits = {run: Split.load(run) for run in runs}
    first, *others = splits
    for run in others:
        if set(splits[run].held_out) != set(splits[first].held_out):
            raise InputError(
                f"The networks must hold out the same cases. Received: {splits[run].how}, seed {splits[run].seed} in "
                f"{run}; {splits[first].how}, seed {splits[first].seed} in {first}."
            )
    wanted = set(splits[first].held_out)
    found = [case for case in cases if case.id in wanted]
    if not found:
        raise InputError(
            f"None of the {len(cases)} cases was held out from {first} ({splits[first].how}). Train it with "
            "--validation or --fold, and name the same data."
        )
    if len(found) < len(wanted):
        say(f"{len(found)} of the {len(wanted)} cases that {first} holds out are here.")
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
