"""Options of a training that meet: each combination either trains two steps or is refused in a sentence."""

import itertools
import json

import pytest

CHOICES = {
    "--precision": ("float32", "bfloat16", "float16"),
    "--devices": (1, 2),
    "--gradient-accumulation-steps": (1, 2),
    "--weight-averaging": ("none", "ema"),
    "--augmentation": ("none", "albunet", "albunet-authors", "nnunet-like"),
    "--jit": (False, True),
}
ALL = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]
OFTEN = [one for index, one in enumerate(ALL) if index % 61 == 5 or index == 33]  # A few of all kinds.


def refused_for(combination):
    """What the sentence says of the reason; None for a combination that trains."""
    if combination["--precision"] == "float16":
        return "without a GPU"  # As these tests run.
    if combination["--jit"] and combination["--precision"] == "bfloat16":
        return "in bfloat16 without a GPU"
    accumulates = combination["--gradient-accumulation-steps"] > 1
    return "on several devices" if combination["--devices"] > 1 and (accumulates or combination["--jit"]) else None


def train(trainings, combination, data, folder):
    """The exit code, and what was printed."""
    given = [part for name, value in combination.items() if name != "--jit" for part in (name, value)]
    given += ["--jit"] if combination["--jit"] else []
    arguments = ["train", data, "--modality", "flair", "--crop", "32x32x24", "--weights", "none", *given]
    arguments += ["--epochs", 1, "--steps-per-epoch", 2, "--batch-size", 4, "--runs", folder]
    arguments += ["--cache-dir", data.parent / "cache-of-combinations"]
    code = trainings.run(arguments, folder / "log", LOGICAL_DEVICES=str(combination["--devices"]))
    return code, (folder / "log").read_text()


def check(trainings, combination, data, folder):
    code, printed = train(trainings, combination, data, folder)
    assert "Traceback" not in printed, printed
    reason = refused_for(combination)
    if reason:
        assert (code, reason in printed) == (2, True), printed
        return
    assert code == 0, printed
    record = json.loads((folder / "embedding-flair" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["last"]["squeeze_gradient"] > 0 and record["last"]["planes_live"] > 0.3


@pytest.mark.parametrize("combination", OFTEN, ids=str)
@pytest.mark.slow
def test_it_trains_or_is_refused(trainings, combination, phantom_folder, tmp_path):
    check(trainings, combination, phantom_folder, tmp_path)


@pytest.mark.large
def test_all_combinations(trainings, phantom_folder, tmp_path):
    for number, combination in enumerate(ALL):
        folder = tmp_path / str(number)
        folder.mkdir()
        check(trainings, combination, phantom_folder, folder)
