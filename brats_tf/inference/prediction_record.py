"""`prediction.json` beside the label maps: which networks made them from which data, and what is known of each map.

It is true at every moment: a map's SHA-256 is in the record before the map is in the folder. After a kill in between,
the map in the folder is not the recorded one, and whoever reads it notices.
"""

from dataclasses import asdict
from pathlib import Path

from brats_tf import __version__
from brats_tf.config.config import CONFIG_FILE
from brats_tf.config.execution import ForwardOptions, PostProcessing, PredictionOptions
from brats_tf.data.layouts import is_safe
from brats_tf.errors import InputError
from brats_tf.regions import REGIONS
from brats_tf.runs.files import CHECKPOINT_FILES
from brats_tf.runs.record import check_kinds, git_commit
from brats_tf.runtime.files import read_json, sha256_of, write_json

PREDICTION_FILE = "prediction.json"
PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER = "probabilities", "uncertainty"
FOLDERS = (PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER, ".")  # Of what is written of a case, its label map last.
MADE_BY = ("networks", "postprocessing", "forward")  # Predictions in one folder share these.
_KINDS = dict.fromkeys((*MADE_BY, "checkpoints", "cases", "left_out"), dict) | {"data": list, "pending": list}
NO_OPTIONS = PredictionOptions()
_FACTS = {"checkpoint": str, "chosen_on": list, "initial_weights": str, "run": str}  # Of each network.


class PredictionRecord:
    """The record of a folder of predictions while they are made.

    Args:
        out: the folder.
        predictors: the networks.
        postprocessing: `PostProcessing`.
        case_ids: of the cases to predict.
        data: the folder or list of the cases; None where nobody said.
        options: `PredictionOptions`: `replace`, whether predictions of other networks or steps in that folder give way,
            and files that have no record; `resume`, whether those of the same networks and steps stay as they are.

    Attributes:
        wanted: the ids of the cases that are to be predicted.

    Raises:
        InputError: when the folder holds such predictions or files, or a damaged record, and `replace` is off.
    """

    def __init__(self, out, predictors, postprocessing, case_ids, *, data=None, options=NO_OPTIONS):
        self.out, replace = Path(out), options.replace
        before = {} if replace and not _is_readable(out) else read_prediction_record(out)
        made_by = how_made(predictors, postprocessing)
        if before and not replace:
            check_same(before, made_by, out)
        same, known = is_made_so(before, made_by), known_cases(before)
        kept = before if same else {}
        foreign = [case for case in case_ids if self.path(case).exists() and case not in known]
        if foreign and not replace:
            raise InputError(
                f"{self.path(foreign[0])} is not of a prediction that {PREDICTION_FILE} records: name another folder "
                f"with --out, or replace it with --replace. Received {len(foreign)} such label maps."
            )
        settled = {name: kept.get(name, {}) for name in ("cases", "left_out")}
        finished = finished_cases(kept, out, options) if options.resume else ()
        self.wanted = [case for case in case_ids if case not in finished]
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
        self._write()
        for case in known if not same else ():
            for folder in FOLDERS:
                (self.out / folder / f"{case}.nii.gz").unlink(missing_ok=True)

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
        write_json(self.out / PREDICTION_FILE, self.content)


def how_made(predictors, postprocessing):
    """What predictions in one folder share, as their record holds it under `MADE_BY`.

    Raises:
        InputError: when two networks have the same name.
    """
    names = [one.name for one in predictors]
    if len(set(names)) < len(names):
        raise InputError(f"The networks of an ensemble must have different names. Received: {', '.join(names)}.")
    return {
        "networks": {one.name: one.weights_sha256 for one in predictors},
        "postprocessing": asdict(postprocessing),
        "forward": {"precision": predictors[0].precision, "mirror": predictors[0].mirror},
    }


def is_made_so(record, made_by):
    """Whether a record's predictions were made as `how_made` says; those of an empty one were not."""
    return all(record.get(name) == value for name, value in made_by.items())


def read_prediction_record(predictions):
    """The record that `predict_cases` wrote into a folder; {} where there is none. Raises `InputError`."""
    path = Path(predictions) / PREDICTION_FILE
    if not path.exists():
        return {}
    try:
        record = read_json(path)
        if not isinstance(record, dict):
            raise ValueError("no JSON object")
        missing = set(_KINDS) - set(record)
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing, as in an older version; predict again")
        _check_kinds(record)
        return record
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must hold what `brats-tf predict` writes: {error}.") from None


def finished_cases(record, predictions, options=NO_OPTIONS):
    """The ids of the cases of a record whose label map is there, and the recorded one, with what `options` ask for."""
    finished = set()
    for case, facts in record.get("cases", {}).items():
        parts = [".", PROBABILITIES_FOLDER] if options.save_probabilities else ["."]
        if options.save_uncertainty and len(facts.get("networks", ())) > 1:  # A single network has none.
            parts.append(UNCERTAINTY_FOLDER)
        paths = [Path(predictions) / part / f"{case}.nii.gz" for part in parts]
        if case not in record["pending"] and all(map(Path.is_file, paths)) and sha256_of(paths[0]) == facts["sha256"]:
            finished.add(case)
    return finished


def check_same(record, made_by, out, remedy="name another folder with --out, or replace them with --replace"):
    """Raises `InputError` when a record's predictions are of other networks, weights or steps than `made_by` says."""
    if not is_made_so(record, made_by):
        raise InputError(f"{out} holds predictions with other {_differing(record, made_by)}: {remedy}.")


def check_networks(record, runs, predictions):
    """Raises `InputError` when other networks than those of the folders `runs` made the predictions of a record."""
    names = [Path(run).name for run in runs]
    if set(names) != set(record["networks"]):
        raise InputError(
            f"{predictions} was predicted by {', '.join(record['networks'])}. "
            f"Received: the networks {', '.join(names)}."
        )


def check_weights(record, runs, predictions):
    """Raises `InputError` when other networks than those of `runs`, or other weights, made the predictions."""
    check_networks(record, runs, predictions)
    for run in map(Path, runs):
        files = [run / name for name in CHECKPOINT_FILES.values() if (run / name).is_file()]
        unfinished = (run / CONFIG_FILE).is_file()  # A training that has no weights yet.
        if (files or unfinished) and record["networks"][run.name] not in {sha256_of(file) for file in files}:
            raise InputError(f"{predictions} was predicted with other weights than those of {run}. Predict again.")


def chosen_on(record):
    """The ids of the cases whose scores chose the checkpoint of a network, so that theirs are too good."""
    return {case for facts in record.get("checkpoints", {}).values() for case in facts["chosen_on"]}


def uncertainties(record):
    """The networks' uncertainty in each case that several predicted: {case id: {region: float}}."""
    cases = record.get("cases", {})
    return {case: facts["uncertainty"] for case, facts in cases.items() if facts.get("uncertainty")}


def _is_readable(out):
    try:
        read_prediction_record(out)
    except InputError:
        return False
    return True


def known_cases(record):
    """The ids of all cases that a record speaks of."""
    return {*record.get("cases", {}), *record.get("left_out", {})}


def _differing(before, made_by):
    """What differs between a record and a prediction, in words."""
    if before["networks"].keys() != made_by["networks"].keys():
        return f"networks ({', '.join(before['networks'])})"
    names = [name for name, sha256 in made_by["networks"].items() if before["networks"][name] != sha256]
    steps = before["postprocessing"] | before["forward"]
    return f"weights of {', '.join(names)}" if names else f"steps ({steps})"


def _check_kinds(record):
    """Raises `ValueError` unless every part of a record has the kind that its readers expect."""
    cases, checkpoints = record["cases"], record["checkpoints"]
    check_kinds(record, _KINDS)
    check_kinds(record["forward"], {"precision": str, "mirror": str})
    if not record["networks"]:
        raise ValueError("`networks` is empty")
    if set(checkpoints) != set(record["networks"]):
        raise ValueError(f"each network needs {', '.join(_FACTS)}")
    for one in checkpoints.values():
        check_kinds(one, _FACTS)
    for one in cases.values():
        check_kinds(one, {"sha256": str})
        check_kinds({"beside": one.get("beside", [])}, {"beside": list})
    ids = [*cases, *record["left_out"], *record["pending"]]
    if not all(isinstance(one, str) and is_safe(one) for one in ids):
        raise ValueError("the id of a case cannot be the name of a file")
    try:
        ForwardOptions(**record["forward"]), PostProcessing(**record["postprocessing"])
    except (TypeError, InputError) as error:
        raise ValueError(str(error)) from None
    texts = [*record["networks"].values(), *record["left_out"].values(), *record["data"]]
    texts += [case for one in checkpoints.values() for case in one["chosen_on"]]
    if not all(isinstance(one, str) for one in texts):
        raise ValueError("a sentence, a path or a hash is no text")
    for one in cases.values():
        uncertainty = one.get("uncertainty")
        if uncertainty is not None and not (
            isinstance(uncertainty, dict) and all(isinstance(uncertainty.get(one), int | float) for one in REGIONS)
        ):
            raise ValueError("`uncertainty` must hold a number for each region")
