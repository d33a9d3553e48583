"""The results files that tables are made of, and figures as the tables show them."""

import json
from pathlib import Path

from brats_tf.errors import InputError

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent
PAPERS = REPOSITORY / "brats_tf" / "report" / "published_results.json"
OLD_NAMES = {"paper": "embedding", "plus": "nnunet-like"}  # Of presets, in files that earlier versions wrote.
REGIONS = ("ET", "WT", "TC")
MODALITIES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}


def read(name):
    """The content of one results file."""
    path = FOLDER / "results" / f"{name}.json"
    if not path.is_file():
        raise SystemExit(f"{path} is not there; README.md beside it says which command writes it.")
    return json.loads(path.read_text())


def read_measured(name):
    """The content of a results file that says where it is from: commit, versions, the weights' origin and hash."""
    run = read(name)
    missing = [key for key in ("commit", "versions", "machine", "runs") if not run.get(key)]
    missing += [key for key in ("weights", "classifier_sha256") for one in run.get("runs", []) if not one.get(key)]
    if missing:
        raise SystemExit(f"{name}.json lacks {', '.join(sorted(set(missing)))}; measure it again with its command.")
    return run


def papers():
    """The papers' results, typed from their tables: {"embedding", "albunet": {row: {region: {metric: figures}}}}."""
    return json.loads(PAPERS.read_text())


def three(dice):
    """Dice of the regions, largest first, as one cell."""
    return " / ".join(f"{dice[region]:.3f}" for region in ("WT", "TC", "ET"))


def span(values):
    """The least and the largest of some figures, without decimals."""
    return f"{min(values):.0f} to {max(values):.0f}"


def interval(one):
    """A mean with its interval, as percentages: `{"mean", "low", "high"}` between 0 and 1."""
    return f"{100 * one['mean']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})"


def measured_on(run):
    """The machine and the version that a file was measured with."""
    return f"Measured on {run['machine']}, commit {run['commit']}"


def current_name(name):
    """The name that a preset has now."""
    return OLD_NAMES.get(name, name)


def runs_of_folds():
    """The records of the ten networks of `plus_folds`, seed after seed.

    Raises:
        InputError: when the scores are not of them, each case by those that did not see it.
    """
    runs = [[read(f"plus_folds_{name}{fold}") for fold in range(5)] for name in ("run", "second")]
    names = [{one["run"] for one in its} for its in runs]
    folds = [[one["settings"]["data"]["fold"] for one in its] for its in runs]
    for end, seeds in {"": names[:1], "_two": names[1:], "_both": names}.items():
        pooled = [set(one["networks"]) for one in read(f"plus_folds{end}")["made_by"]["pooled"]]
        each = all(len(one) == len(seeds) and all(one & its for its in seeds) for one in pooled)
        if not each or folds != [list(range(5))] * 2:
            raise InputError(f"plus_folds{end} must be of a network of each seed, of its five folds.")
    return [run for its in runs for run in its]
