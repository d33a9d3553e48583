"""A cohort in parts: each process predicts a share of the cases into a folder of its own; then they are joined."""

import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from brats_tf.errors import InputError, WriteError
from brats_tf.inference.prediction_record import (
    FOLDERS,
    MADE_BY,
    PREDICTION_FILE,
    check_beside,
    check_same,
    known_cases,
    read_prediction_record,
)
from brats_tf.runtime.console import track
from brats_tf.runtime.files import read_json, sha256_of, temporary_prefix, write_json
from brats_tf.runtime.lock import check_unlocked, linked, lock

log = logging.getLogger(__name__)
SHARDS_FOLDER, CASES_FILE = "shards", "cases.json"
_MERGED = ".merged"
_NAME = re.compile(r"(\d+)of(\d+)")


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a list of cases, counted from 1.

    >>> Shard(2, 3).of(["a", "b", "c", "d", "e"])
    ['b', 'e']
    """

    number: int
    count: int

    def of(self, cases):
        """Every `count`-th of the cases, so that shards are as long as each other."""
        return cases[self.number - 1 :: self.count]

    def folder(self, out):
        """Where its predictions lie until they are merged."""
        return Path(out) / SHARDS_FOLDER / f"{self.number}of{self.count}"


def merge_shards(out):
    """Joins the predictions of all shards in `<out>/shards` into `<out>`, as one process would have written them.

    The record names a label map before the map is in its folder; after an interruption the same call goes on.

    Returns:
        (how many label maps, {case id: sentence} of the cases left out).

    Raises:
        InputError: when a shard is missing, unfinished, being written or of other networks, or a map is not the
            recorded one, or `out` holds predictions of other networks.
        WriteError: when the folder cannot be written to.
    """
    out = Path(out)
    with lock(out):
        shutil.rmtree(out / _MERGED, ignore_errors=True)  # What a kill at the very end leaves.
        folders = _complete(out)
        records = {folder: _finished(folder) for folder in folders}
        before, first = read_prediction_record(out), next(iter(records.values()))
        made_by = {name: first[name] for name in MADE_BY}
        for folder, record in [*([(out, before)] if before else []), *records.items()]:
            check_same(record, made_by, folder, remedy="all shards must be of the same")
        _refuse_foreign(out, before, records)
        content = first | {
            name: dict(sorted(item for record in records.values() for item in record[name].items()))
            for name in ("cases", "left_out")
        }
        content["data"] = list(dict.fromkeys(path for record in records.values() for path in record["data"]))
        write_json(out / PREDICTION_FILE, _joined(before, content))
        for folder, record in track(list(records.items()), "Merging"):
            _move(folder, out, record["cases"])
        os.replace(out / SHARDS_FOLDER, out / _MERGED)
        shutil.rmtree(out / _MERGED)
    log.info(f"{len(content['cases'])} label maps of {len(folders)} shards are in {out}.")
    return len(content["cases"]), content["left_out"]


def agree_on_cases(out, case_ids, finished=()):
    """Writes what all shards in `out` are shares of, into `<out>/shards/cases.json`, where another has not yet.

    Those that are `finished` are in `out` already: no shard needs to predict them again.

    Returns:
        The ids of the cases that all shards divide.

    Raises:
        InputError: when another shard began with other cases: the shares of two lists do not add up.
    """
    path = Path(out) / SHARDS_FOLDER / CASES_FILE
    wanted = [case_id for case_id in case_ids if case_id not in finished]
    if not path.exists():
        if not wanted:
            return []
        mine = path.with_name(f"{temporary_prefix()}{os.getpid()}-{path.name}")
        write_json(mine, wanted)
        linked(mine, path)  # Unless another shard was faster.
        mine.unlink()
    try:
        before = _read_when_written(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must list the cases of all shards: {error}.") from None
    if before not in (wanted, list(case_ids)):  # The latter of shards that began before any case was finished.
        count = len(before) if isinstance(before, list) else 0
        raise InputError(
            f"All shards must divide the same cases: another began with {count}, this one with {len(wanted)}, or in "
            f"another order. Predict with the cases of {path}, or remove {path.parent if _folders(out) else path} and "
            "begin again."
        )
    return before


def _read_when_written(path):
    """A file that another process may be filling at this moment, where the file system has no hard links."""
    for _ in range(10):
        if path.stat().st_size:
            break
        time.sleep(0.1)
    return read_json(path)


def check_count(out, count):
    """Raises `InputError` when `out` holds shards of another number of parts than `count`."""
    counts = {others for others, _ in _folders(out)}
    if counts - {count}:
        raise InputError(
            f"{Path(out) / SHARDS_FOLDER} must be empty or hold shards of {count} parts, as these cases are. Received "
            f"shards of {', '.join(map(str, sorted(counts)))}: finish what wrote them, or remove them."
        )


def _folders(out):
    """The shards that are there: {(how many parts, which of them): folder}."""
    return {
        (int(match[2]), int(match[1])): path
        for path in (Path(out) / SHARDS_FOLDER).glob("*")
        if (match := _NAME.fullmatch(path.name))
    }


def _complete(out):
    """The folders of all shards, in order. Raises `InputError` when one is missing, or two counts are there."""
    found = _folders(out)
    counts = {count for count, _ in found}
    if len(counts) != 1:
        raise InputError(
            f"{out / SHARDS_FOLDER} must hold the shards of one prediction. Received shards of "
            f"{', '.join(str(count) for count in sorted(counts)) or 'none: `brats-tf predict --shard` writes them'}."
        )
    (count,) = counts
    missing = [f"{number}/{count}" for number in range(1, count + 1) if (count, number) not in found]
    if missing:
        raise InputError(f"{out / SHARDS_FOLDER} lacks {len(missing)} of {count} shards: {', '.join(missing[:5])}.")
    return [found[count, number] for number in range(1, count + 1)]


def _finished(folder):
    """The record of a shard whose cases are all predicted. Raises `InputError`."""
    check_unlocked(folder)
    record = read_prediction_record(folder)
    if not record:
        raise InputError(f"{folder} has no {PREDICTION_FILE}: predict this shard again.")
    if record["pending"]:
        raise InputError(f"{folder} is unfinished, {len(record['pending'])} cases are pending: predict with --resume.")
    return record


def _refuse_foreign(out, before, records):
    """Raises `InputError` where a label map in `out` that no record knows would give way to one of a shard."""
    known = {*known_cases(before), *before.get("pending", ())}
    for record in records.values():
        for case, facts in record["cases"].items():
            path = out / f"{case}.nii.gz"
            if path.is_file() and case not in known and sha256_of(path) != facts["sha256"]:
                raise InputError(
                    f"{path} is not of a prediction that {PREDICTION_FILE} records: move it elsewhere, then merge."
                )


def _joined(before, content):
    """The record of `out` with the cases of the shards on top of those that it has."""
    if not before:
        return content
    cases = {case: facts for case, facts in before["cases"].items() if case not in content["left_out"]}
    left_out = {case: why for case, why in before["left_out"].items() if case not in content["cases"]}
    pending = [case for case in before["pending"] if case not in {*content["cases"], *content["left_out"]}]
    data = list(dict.fromkeys([*before["data"], *content["data"]]))
    merged = {"cases": cases | content["cases"], "left_out": left_out | content["left_out"]}
    return content | merged | {"pending": pending, "data": data}


def _move(folder, out, cases):
    """Moves the files of a shard's cases. Raises `InputError` where a label map is not the recorded one."""
    for case, facts in cases.items():
        name = f"{case}.nii.gz"
        source = folder / name if (folder / name).is_file() else out / name  # Moved before an interruption.
        if not source.is_file() or sha256_of(source) != facts["sha256"]:
            raise InputError(f"Case {case}: {folder / name} is not the label map that its {PREDICTION_FILE} records.")
        try:
            for part in FOLDERS:
                if (folder / part / name).is_file():
                    if part != ".":
                        check_beside(folder / part / name, facts, case_id=case)
                    (out / part).mkdir(exist_ok=True)
                    os.replace(folder / part / name, out / part / name)
                elif part not in (".", *facts.get("beside", FOLDERS)):  # Of an earlier prediction.
                    (out / part / name).unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(f"{out / name} could not be written: {error.strerror or error}.") from error
