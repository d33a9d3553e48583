"""Several commands at once on the same folders, and commands that are killed: no byte of a finished thing changes."""

import json
import signal
import time

import numpy as np
import pytest

from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.runtime.files import sha256_of
from brats_tf.runtime.lock import lock

pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
KILLS = 10
WEIGHTS = "network.weights.h5"


@pytest.fixture(scope="module")
def training(phantom_folder):
    """A command that trains one small network for a second or two."""
    words = ("train", phantom_folder, "--modality", "flair", "--crop", "32x32x24", "--weights", "none", "--epochs", 25)
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def finished(trainings, training, tmp_path_factory):
    """The runs of an undisturbed training."""
    runs = tmp_path_factory.mktemp("finished")
    assert trainings.run([*training, "--runs", runs], runs / "log") == 0, (runs / "log").read_text()
    return runs


@pytest.fixture(scope="module")
def predicted(trainings, finished, phantom_folder, tmp_path_factory):
    """The label maps of an undisturbed prediction."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    assert trainings.run(prediction(phantom_folder, finished, out), out.parent / "log") == 0
    return out


def prediction(data, runs, out):
    return ["predict", data, "--runs", runs, "--networks", "embedding-flair", "--out", out]


def contents(folder):
    """{name: bytes} of the files in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def wait_for(path):
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.002)


@pytest.mark.parametrize(
    "changes",
    [pytest.param([], marks=pytest.mark.large), ["--learning-rate", "1e-3"], ["--restart"]],
    ids=["same", "other", "restart"],
)
def test_a_second_training_of_a_run_is_refused_and_the_first_does_not_notice(
    trainings, training, finished, tmp_path, changes
):
    first = trainings.start([*training, "--runs", tmp_path], tmp_path / "first")
    wait_for(tmp_path / "embedding-flair" / "checkpoints")
    assert trainings.run([*training, "--runs", tmp_path, *changes], tmp_path / "second") == 2
    assert f"{tmp_path / 'embedding-flair'} is in use by process {first} on " in (tmp_path / "second").read_text()
    assert trainings.wait(first) == 0, (tmp_path / "first").read_text()
    for name in (WEIGHTS, "history.csv", "config.json"):
        assert (tmp_path / "embedding-flair" / name).read_bytes() == (finished / "embedding-flair" / name).read_bytes()
    assert not list(tmp_path.glob("*.1"))


def test_a_run_may_predict_while_it_trains(trainings, training, finished, phantom_folder, tmp_path):
    first = trainings.start([*training, "--runs", tmp_path], tmp_path / "first")
    wait_for(tmp_path / "embedding-flair" / WEIGHTS)
    code = trainings.run(prediction(phantom_folder, tmp_path, tmp_path / "out"), tmp_path / "second")
    assert code == 0, (tmp_path / "second").read_text()
    assert trainings.wait(first) == 0
    weights = (tmp_path / "embedding-flair" / WEIGHTS).read_bytes()
    assert weights == (finished / "embedding-flair" / WEIGHTS).read_bytes()


def test_a_second_prediction_and_an_evaluation_of_a_folder_in_use_are_refused(
    trainings, finished, predicted, phantom_folder, tmp_path
):
    before = contents(predicted)
    with lock(predicted):
        for command in (
            prediction(phantom_folder, finished, predicted),
            ["evaluate", predicted],
            ["report", predicted],
        ):
            assert trainings.run(command, tmp_path / command[0]) == 2
            assert f"{predicted} is in use by process" in (tmp_path / command[0]).read_text()
    assert contents(predicted) == before
    scores = tmp_path / "scores"
    with lock(scores):
        assert trainings.run(["evaluate", predicted, "--results", scores], tmp_path / "evaluate") == 2
    assert f"{scores} is in use by process" in (tmp_path / "evaluate").read_text()
    assert list(scores.iterdir()) == []


def test_another_training_in_a_finished_run_changes_nothing(trainings, training, finished, tmp_path):
    before = contents(finished / "embedding-flair")
    for changes in (["--learning-rate", "1e-3"], ["--crop", "32x32x36"], ["--seed", "1"]):
        assert trainings.run([*training, "--runs", finished, *changes], tmp_path / "log") == 2
        assert (
            "Choose another folder with --name or --runs, or train anew with --restart"
            in (tmp_path / "log").read_text()
        )
    assert contents(finished / "embedding-flair") == before


@pytest.mark.large
def test_a_killed_prediction_never_lies_and_ends_as_an_undisturbed_one(
    trainings, finished, predicted, phantom_folder, phantoms, tmp_path
):
    moments, seen = np.random.default_rng(3), 0
    for number in range(KILLS):
        out = tmp_path / f"out{number}"
        command = prediction(phantom_folder, finished, out)
        process = trainings.start(command, tmp_path / "log")
        wait_for(out / "prediction.json")
        time.sleep(moments.uniform(0, 0.4))
        trainings.signal(process, SIGNALS[number % len(SIGNALS)])
        trainings.wait(process)
        if (out / ".lock").exists():
            assert SIGNALS[number % len(SIGNALS)] != signal.SIGINT
            (out / ".lock").unlink()  # Only to look inside; `predict` takes it over.
        maps = LabelMaps(out)
        for case in phantoms:
            path = out / f"{case.id}.nii.gz"
            if path.exists() and case.id in maps.record["cases"]:
                seen += maps.record["cases"][case.id]["sha256"] == sha256_of(path)
        assert trainings.run(command, tmp_path / "log") == 0
        expected, received = contents(predicted), contents(out)
        del expected["prediction.json"], received["prediction.json"]
        assert received == expected
        assert json.loads((out / "prediction.json").read_text())["pending"] == []
    assert 0 < seen < KILLS * len(phantoms)


@pytest.mark.large
@pytest.mark.parametrize("command", ["preprocess", "evaluate", "train"])
def test_a_killed_command_ends_as_an_undisturbed_one(
    trainings, training, finished, predicted, phantom_folder, tmp_path, command
):
    moments = np.random.default_rng(5)
    words = {
        "preprocess": ["preprocess", phantom_folder, "--crop", "32x32x24", "--workers", 1, "--cache-dir"],
        "evaluate": ["evaluate", predicted, "--results"],
        "train": [*training, "--cache-dir", tmp_path / "cache", "--runs"],
    }[command]
    began = time.monotonic()
    assert trainings.run([*words, tmp_path / "straight"], tmp_path / "log") == 0
    longest = time.monotonic() - began
    for number in range(KILLS):
        folder = tmp_path / f"killed{number}"
        process = trainings.start([*words, folder], tmp_path / "log")
        time.sleep(moments.uniform(0.05, longest))
        trainings.signal(process, SIGNALS[number % len(SIGNALS)])
        trainings.wait(process)
        assert trainings.run([*words, folder], tmp_path / "log") == 0, (tmp_path / "log").read_text()[-2000:]
        inside = "embedding-flair" if command == "train" else "."
        expected, received = contents(tmp_path / "straight" / inside), contents(folder / inside)
        for timed in ("run.json", "training.png"):
            expected.pop(timed, None), received.pop(timed, None)
        assert received == expected
