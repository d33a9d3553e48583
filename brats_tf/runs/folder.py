"""The folder of a run: created, resumed, kept when finished, never displaced unasked."""

import logging
import shutil
from pathlib import Path
from typing import Any

from brats_tf.config.config import CONFIG_FILE
from brats_tf.data.notes import name_some
from brats_tf.errors import InputError
from brats_tf.runs.files import CHECKPOINTS_FOLDER, RECORD_FILE
from brats_tf.runs.record import FINISHED, TRAINING, read_run_record
from brats_tf.runtime.files import remove_partial
from brats_tf.runtime.lock import check_unlocked, lock, move_lock

log = logging.getLogger(__name__)
SHORT_LIST = 4  # As long as one of sizes or modalities.
_REMEDY = "Choose another folder with --name or --runs, or train anew with --restart, which keeps the old run."


def open_run(run: Path, identity: dict[str, Any]) -> str:
    """Creates a run's folder, or finds the one of a training to resume, or of one that is finished.

    Args:
        run: the folder.
        identity: {"config", "data", "validation"}, what decides the numbers of the training, as JSON can hold it.

    Returns:
        `record.FINISHED` when there is nothing to do, else `record.TRAINING`.

    Raises:
        InputError: when the folder holds another run.
    """
    if not (run / CONFIG_FILE).exists():
        return _create(run)
    record = _same_run(run, identity)
    for folder in (run, run / CHECKPOINTS_FOLDER):
        remove_partial(folder)
    if record["status"] == FINISHED:
        shutil.rmtree(run / CHECKPOINTS_FOLDER, ignore_errors=True)  # What a kill at the very end leaves.
        _say_trained(run)
    return record["status"]


def is_trained(run: Path, identity: dict[str, Any]) -> bool:
    """Whether a folder holds this run, finished: then nothing is written there. Raises `InputError` as `open_run`."""
    if not (run / CONFIG_FILE).exists() or (run / CHECKPOINTS_FOLDER).exists():
        return False
    check_unlocked(run)
    trained = _same_run(run, identity)["status"] == FINISHED
    if trained:
        _say_trained(run)
    return trained


def _say_trained(run: Path) -> None:
    log.info(f"{run} is already trained with these settings and data. Use --restart to train it again.")


def has_begun(run: Path) -> bool:
    """Whether the training in a folder is finished or has a checkpoint to go on from."""
    if any((run / CHECKPOINTS_FOLDER).glob("epoch-*")):
        return True
    record = read_run_record(run)
    return record is not None and record["status"] == FINISHED


def set_aside(run: Path) -> None:
    """Moves a run that a folder holds to <name>.1, <name>.2, ..., where it stays.

    Raises:
        InputError: when it is in use, or cannot be renamed.
    """
    if not any((run / name).exists() for name in (CONFIG_FILE, RECORD_FILE)):
        return
    number = 1
    while (aside := run.with_name(f"{run.name}.{number}")).exists():
        number += 1
    with lock(run):
        try:
            run.rename(aside)
            run.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"The run's folder {run} could not be renamed to {aside}: {error.strerror}.") from error
        move_lock(aside, run)
    log.info(f"The earlier run {run} was moved to {aside}.")


def check_run(run: Path, settings: dict[str, Any], *, restart: bool = False) -> None:
    """What `open_run` refuses that can be known before the cases are preprocessed. Raises `InputError`."""
    check_unlocked(run)
    if (run / CONFIG_FILE).exists() and not restart:
        _same_run(run, {"config": settings})


def _same_run(run: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The record of the run in a folder. Raises `InputError` unless it has that identity, as far as that is given."""
    record = read_run_record(run)
    if record is None:
        raise InputError(f"{run} holds a run without {RECORD_FILE}, so its settings are not known. {_REMEDY}")
    existing = {"config": record["settings"], "data": record["data"], "validation": record["validation"]}
    differences = describe_differences({name: existing[name] for name in identity}, identity)
    if differences:
        raise InputError(f"{run} holds a run with {differences}. {_REMEDY}")
    return record


def describe_differences(existing: dict[str, Any], wanted: dict[str, Any]) -> str:
    """How two identities differ, in a clause such as "epochs 5 instead of 6"; "" when they are equal."""
    existing, wanted = _flat(existing), _flat(wanted)
    names = dict.fromkeys([*wanted, *existing])
    return ", ".join(
        _difference(name, existing.get(name), wanted.get(name))
        for name in names
        if existing.get(name) != wanted.get(name)  # A setting that was not there before is None unless it is used.
    )


def _difference(name: str, before: Any, now: Any) -> str:
    """How one value differs; of long lists, as of case ids, only what was added and removed."""
    if not (isinstance(before, list) and isinstance(now, list)) or max(len(before), len(now)) <= SHORT_LIST:
        return f"{name} {before} instead of {now}"
    changes = {
        "having also": [one for one in before if one not in now],
        "lacking": [one for one in now if one not in before],
    }
    said = [f"{word} {name_some(list(map(str, ones)))}" for word, ones in changes.items() if ones]
    return f"{name} {' and '.join(said) or 'in another order'}"


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """{"config": {"training": {"epochs": 5}}} -> {"epochs": 5}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _create(run: Path) -> str:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The run's folder {run} could not be created: {error.strerror}.") from error
    return TRAINING
