"""Writes `prediction.json` while cases are predicted.

It is true at every moment: a map's SHA-256 is in the record before the map is in the folder. After a kill in between,
the map in the folder is not the recorded one, and whoever reads it notices.
"""

import logging
from dataclasses import asdict
from pathlib import Path

from brats_tf import __version__
from brats_tf.data.case import source_files
from brats_tf.errors import InputError
from brats_tf.inference.prediction_record import (
    FOLDERS,
    NO_OPTIONS,
    PREDICTION_FILE,
    check_names,
    check_same,
    finished_cases,
    is_made_so,
    known_cases,
    read_prediction_record,
    settings_sha256,
)
from brats_tf.runs.record import git_commit
from brats_tf.runtime.files import sha256_of, write_json

log = logging.getLogger(__name__)


class PredictionRecord:
    """The record of a folder of predictions while they are made.

    Args:
        out: the folder.
        predictors: the networks.
        postprocessing: `PostProcessing`.
        cases: the `Case`s to predict.
        data: the folder or list of the cases; None where nobody said.
        options: `PredictionOptions`: `replace`, whether predictions of other networks or steps in that folder give way,
            and files that have no record; `resume`, whether those of the same networks, steps and images stay as they
            are.

    Attributes:
        wanted: the ids of the cases that are to be predicted.

    Raises:
        InputError: when the folder holds such predictions or files, or a damaged record, and `replace` is off.
    """

    def __init__(self, out, predictors, postprocessing, cases, *, data=None, options=NO_OPTIONS):
        self.out, replace = Path(out), options.replace
        before = {} if replace and not _is_readable(out) else read_prediction_record(out)
        made_by = how_made(predictors, postprocessing)
        if before and not replace:
            check_same(before, made_by, out)
        same, known = is_made_so(before, made_by), known_cases(before) | set(before.get("pending", ()))
        kept = before if same else {}
        foreign = [case.id for case in cases if self.path(case.id).exists() and case.id not in known]
        if foreign and not replace:
            raise InputError(
                f"{self.path(foreign[0])} is not of a prediction that {PREDICTION_FILE} records: name another folder "
                f"with --out, or replace it with --replace. Received {len(foreign)} such label maps."
            )
        settled = {name: kept.get(name, {}) for name in ("cases", "left_out")}
        done = finished_in(kept, out, cases, options)
        self.wanted = [case.id for case in cases if case.id not in done]
        folders = [*kept.get("data", []), *([str(Path(data).resolve())] if data else [])]
        self.content = {
            "brats_tf": __version__,
            "commit": git_commit(),
            **made_by,
            "checkpoints": {one.name: one.facts for one in predictors},
            "data": list(dict.fromkeys(folders)),
            **settled,
            "pending": list(dict.fromkeys([*kept.get("pending", []), *self.wanted])),
        }
        for case in known if not same else ():  # Before their record goes: after a kill they are known.
            for folder in FOLDERS:
                (self.out / folder / f"{case}.nii.gz").unlink(missing_ok=True)
        self._write()

    def path(self, case_id):
        """Where the label map of a case lies."""
        return self.out / f"{case_id}.nii.gz"

    def add(self, case_id, facts, label_map):
        """Records a label map that is complete under a temporary name, before it gets its own."""
        self.content["cases"][case_id] = facts | {"sha256": sha256_of(label_map)}
        self.content["left_out"].pop(case_id, None)
        self._done(case_id)

    def leave_out(self, case_id, sentence):
        """Records why a case has no prediction; a label map of an earlier one counts no more."""
        self.content["cases"].pop(case_id, None)
        self.content["left_out"][case_id] = sentence
        self._done(case_id)

    def written(self, case_ids):
        """How many of the cases have their label map."""
        return sum(case in self.content["cases"] and case not in self.content["pending"] for case in case_ids)

    def _done(self, case_id):
        if case_id in self.content["pending"]:
            self.content["pending"].remove(case_id)
        self._write()

    def _write(self):
        write_json(self.out / PREDICTION_FILE, self.content, indent=None)  # After each case, of all of them.


def check_target(out, predictors, postprocessing):
    """The record of a folder that shards will be merged into, {} without one.

    Raises `InputError` where it is of other networks or steps, before they begin.
    """
    record = read_prediction_record(out)
    if record:
        remedy = "shards join those of the same, whatever --replace says; name another folder with --out"
        check_same(record, how_made(predictors, postprocessing), out, remedy)
    return record


def finished_in(record, out, cases, options):
    """The ids of the `Case`s that stay as they are in a folder of predictions, as `PredictionOptions` say."""
    finished = finished_cases(record, out, options) if options.resume else ()
    return {case.id for case in cases if case.id in finished and _is_of(case, record["cases"][case.id])}


def still_wanted(cases, wanted, out):
    """The `Case`s with these ids; says how many of the others lie in a folder of predictions already."""
    if len(wanted) < len(cases):
        log.info(f"{len(cases) - len(wanted)} of {len(cases)} label maps are in {out} already.")
    wanted = set(wanted)
    return [case for case in cases if case.id in wanted]


def how_made(predictors, postprocessing):
    """What predictions in one folder share, as their record holds it under `MADE_BY`.

    Raises:
        InputError: when two networks have the same name.
    """
    check_names([one.name for one in predictors])
    return {
        "networks": {one.name: one.weights_sha256 for one in predictors},
        "settings": {one.name: settings_sha256(one.config) for one in predictors},
        "postprocessing": asdict(postprocessing),
        "forward": {"precision": predictors[0].precision, "mirror": predictors[0].mirror},
    }


def _is_of(case, facts):
    """Whether a recorded label map was predicted from the images that a `Case` has now."""
    try:
        return facts.get("files") == source_files(case)
    except InputError:  # Whoever reads them says so.
        return False


def _is_readable(out):
    try:
        read_prediction_record(out)
    except InputError:
        return False
    return True
