"""A training that was stopped in any way goes on to the same bytes as one that was not."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.config.execution import TrainingOptions
from brats_tf.runtime.files import sha256_of
from brats_tf.training.train import train

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 10, 4
SEED = 20  # Of the moments to kill at.


@pytest.fixture(scope="module")
def arguments(phantom_folder):
    """A command that uses all that a checkpoint must know: augmentation, dropout, an average, validation."""
    return [
        *("train", phantom_folder, "--modality", "flair", "--crop", "32x32x24", "--weights", "none"),
        *(
            "--epochs",
            EPOCHS,
            "--learning-rate",
            "1e-2",
            "--augmentation",
            "albunet-authors",
            "--weight-averaging",
            "ema",
        ),
        *("--validation-data", phantom_folder.parent / "validation", "--validation-frequency", 4),
    ]


@pytest.fixture(scope="module", autouse=True)
def validation_folder(phantom_folder):
    """One phantom under another name."""
    folder = phantom_folder.parent / "validation" / "Other_001"
    folder.mkdir(parents=True)
    for path in (phantom_folder / "Phantom_001").iterdir():
        (folder / path.name.replace("Phantom", "Other")).write_bytes(path.read_bytes())


@pytest.fixture(scope="module")
def straight(trainings, arguments, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    runs = tmp_path_factory.mktemp("straight")
    assert trainings.run([*arguments, "--runs", runs], runs / "log") == 0, (runs / "log").read_text()
    return runs / "embedding-flair"


FILES = ("history.csv", "network.weights.h5", "best.weights.h5", "validation.csv", "config.json", "split.json")


def assert_same_bytes(run, straight, files=FILES):
    for name in files:
        assert (run / name).read_bytes() == (straight / name).read_bytes(), name


def place(run):
    """How many steps the newest checkpoint is after; 0 without one."""
    names = sorted(path.name for path in (run / "checkpoints").glob("epoch-*"))
    if not names:
        return 0
    _, epoch, _, step = names[-1].split("-")
    return int(epoch) * STEPS + int(step)


def wait_for(run, steps):
    until = time.monotonic() + 60
    while place(run) < steps:
        assert time.monotonic() < until, f"{steps} steps were not reached"
        time.sleep(0.005)


def test_killed_at_five_random_moments_it_ends_with_the_same_bytes(trainings, arguments, straight, tmp_path):
    moments, log = np.random.default_rng(SEED), tmp_path / "log"
    command = [*arguments, "--runs", tmp_path, "--checkpoint-minutes", "0.0001"]
    for _ in range(5):
        process = trainings.start(command, log)
        wait_for(tmp_path / "embedding-flair", place(tmp_path / "embedding-flair") + moments.integers(1, 6))
        time.sleep(moments.uniform(0, 0.3))
        os.kill(process, signal.SIGKILL)
        assert trainings.wait(process) == -signal.SIGKILL
    assert trainings.run(command, log) == 0, log.read_text()
    assert log.read_text().count("Resuming ") == 5
    assert_same_bytes(tmp_path / "embedding-flair", straight)
    assert not (tmp_path / "embedding-flair" / "checkpoints").exists()
    assert [path.name for path in (tmp_path / "embedding-flair").glob(".*")] == []
    assert json.loads((tmp_path / "embedding-flair" / "run.json").read_text())["starts"] == 6


def test_batches_of_several_cases_go_on_where_they_were(trainings, phantom_folder, tmp_path):
    """Killed between two steps of an epoch."""
    settings = ["--modality", "flair", "--crop", "32x32x24", "--weights", "none", "--batch-size", 2, "--epochs", 30]
    command = ["train", phantom_folder, *settings, "--augmentation", "albunet-authors"]
    assert trainings.run([*command, "--runs", tmp_path / "straight"], tmp_path / "log") == 0
    stops = [*command, "--runs", tmp_path / "stopped", "--checkpoint-minutes", "0.0001"]
    run, steps = tmp_path / "stopped" / "embedding-flair", 0
    for _ in range(4):
        process = trainings.start(stops, tmp_path / "log")
        until = time.monotonic() + 60
        while steps == (steps := place(run)) or not steps % STEPS % 2:
            assert time.monotonic() < until
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        assert trainings.wait(process) == -signal.SIGKILL
    assert trainings.run(stops, tmp_path / "log") == 0
    assert_same_bytes(run, tmp_path / "straight" / "embedding-flair", ("history.csv", "network.weights.h5"))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.large)])
def test_a_scheduler_s_signal_saves_and_asks_to_be_tried_again(trainings, arguments, straight, tmp_path, number):
    log, command = tmp_path / "log", [*arguments, "--runs", tmp_path]
    process = trainings.start(command, log)
    wait_for(tmp_path / "embedding-flair", 2 * STEPS)
    os.kill(process, number)
    assert trainings.wait(process) == 75
    said = log.read_text()
    assert f"Stopped by {number.name} after" in said
    assert "Run the same command, without --restart, to resume." in said
    assert "Traceback" not in said
    assert trainings.run(command, log) == 0
    assert_same_bytes(tmp_path / "embedding-flair", straight)


def stopped(trainings, arguments, runs, log, steps=2 * STEPS):
    """Leaves a run with two checkpoints."""
    process = trainings.start([*arguments, "--runs", runs, "--checkpoint-minutes", "0.0001"], log)
    wait_for(runs / "embedding-flair", steps)
    os.kill(process, signal.SIGTERM)
    assert trainings.wait(process) == 75
    checkpoints = sorted((runs / "embedding-flair" / "checkpoints").iterdir())
    assert len(checkpoints) == 2
    return checkpoints


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(trainings, arguments, straight, tmp_path):
    log = tmp_path / "log"
    before, newest = stopped(trainings, arguments, tmp_path, log)
    data = next(newest.glob("variables.data*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert trainings.run([*arguments, "--runs", tmp_path], log) == 0
    said = log.read_text()
    assert f"The checkpoint {newest} is not used: {data.name} is damaged: expected the SHA-256" in said
    epoch, step = int(before.name.split("-")[1]), int(before.name.split("-")[3])
    assert f" at epoch {epoch}, step {step}." in said
    assert_same_bytes(tmp_path / "embedding-flair", straight)


def test_a_finished_run_is_kept_and_never_displaced_unasked(trainings, arguments, straight, tmp_path):
    log, run = tmp_path / "log", straight
    weights = (run / "network.weights.h5").stat().st_mtime_ns
    assert trainings.run([*arguments, "--runs", run.parent], log) == 0
    assert f"{run} is already trained with these settings and data" in log.read_text()
    assert (run / "network.weights.h5").stat().st_mtime_ns == weights
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run.parent, copy], check=True)
    other = [*arguments, "--runs", copy, "--learning-rate", "1e-3", "--epochs", 1]
    assert trainings.run(other, log) == 2
    assert f"{copy / run.name} holds a run with epochs " in log.read_text() and "--name" in log.read_text()
    assert_same_bytes(copy / run.name, straight)
    assert trainings.run([*other, "--name", "other"], log) == 0
    assert (copy / "other-flair" / "run.json").is_file()
    assert trainings.run([*other, "--restart"], log) == 0
    assert f"moved to {copy / run.name}.1." in log.read_text()
    assert_same_bytes(copy / f"{run.name}.1", straight)
    assert not list(copy.rglob(".lock*"))


def test_other_data_do_not_go_on_in_an_old_run(trainings, arguments, phantom_folder, tmp_path):
    log, data = tmp_path / "log", tmp_path / "data"
    stopped(trainings, arguments, tmp_path, log)
    subprocess.run(["cp", "-r", phantom_folder, data], check=True)
    subprocess.run(["rm", "-r", data / "Phantom_004"], check=True)
    changed = [data if one == phantom_folder else one for one in arguments]
    assert trainings.run([*changed, "--runs", tmp_path], log) == 2
    assert "holds a run with data " in log.read_text()
    assert place(tmp_path / "embedding-flair") > 0  # The old one can still go on.


def test_a_full_disk_is_a_sentence_and_the_checkpoints_before_stay(trainings, arguments, straight, tmp_path):
    log, disk, store = tmp_path / "log", tmp_path / "disk", tmp_path / "cache"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        command = [*arguments, "--runs", disk, "--cache-dir", store, "--checkpoint-minutes", "0.0001"]
        process = trainings.start(command, log)
        wait_for(disk / "embedding-flair", STEPS)
        filler = disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"0" * 1024)
        assert trainings.wait(process) == 2, log.read_text()
        said = log.read_text()
        assert "could not be written" in said and "Traceback" not in said
        assert 1 <= len(list((disk / "embedding-flair" / "checkpoints").glob("epoch-*"))) <= 2
        assert not list((disk / "embedding-flair").rglob(".partial*"))
        filler.unlink()
        assert trainings.run(command, log) == 0, log.read_text()
        assert_same_bytes(disk / "embedding-flair", straight)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_case_without_numbers_is_named_and_the_last_good_state_is_kept(trainings, arguments, tmp_path):
    log = tmp_path / "log"
    command = [*arguments, "--runs", tmp_path]
    process = trainings.start([*command, "--checkpoint-minutes", "0.0001"], log)
    wait_for(tmp_path / "embedding-flair", STEPS)
    os.kill(process, signal.SIGTERM)
    assert trainings.wait(process) == 75
    (volume,) = (path for path in (tmp_path / "cache").glob("Phantom_003-flair-*.volume"))
    good, state = volume.read_bytes(), place(tmp_path / "embedding-flair")
    volume.write_bytes(b"\xff" * len(good))  # NaN
    assert trainings.run(command, log) == 2
    said = log.read_text()
    assert "The loss must be finite; received nan in epoch" in said
    assert "for Phantom_003." in said
    assert place(tmp_path / "embedding-flair") >= state


def test_a_case_that_is_gone_is_a_sentence(trainings, arguments, straight, tmp_path):
    log = tmp_path / "log"
    process = trainings.start([*arguments, "--runs", tmp_path], log)
    wait_for(tmp_path / "embedding-flair", STEPS)
    for path in (tmp_path / "cache").glob("Phantom_002-flair-*.volume"):
        path.unlink()
    assert trainings.wait(process) == 2
    said = log.read_text()
    assert "The cached case" in said and "Phantom_002-flair" in said and "could not be read while training" in said
    assert "Traceback" not in said
    assert trainings.run([*arguments, "--runs", tmp_path], log) == 0
    assert_same_bytes(tmp_path / "embedding-flair", straight)


@pytest.mark.large
def test_the_same_seed_gives_the_same_bytes(trainings, arguments, straight, tmp_path):
    assert trainings.run([*arguments, "--runs", tmp_path], tmp_path / "log") == 0
    assert_same_bytes(tmp_path / "embedding-flair", straight)


def test_the_history_has_a_line_an_epoch(straight):
    rows = list(csv.DictReader((straight / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(EPOCHS)]
    assert Path(straight / "training.png").is_file()


def test_lost_checkpoints_are_not_taken_for_a_beginning(trainings, arguments, tmp_path):
    log = tmp_path / "log"
    stopped(trainings, arguments, tmp_path, log)
    run = tmp_path / "embedding-flair"
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"epochs": 2}))
    shutil.rmtree(run / "checkpoints")
    before = {path: sha256_of(path) for path in run.glob("*.*")}
    assert trainings.run([*arguments, "--runs", tmp_path], log) == 2
    assert f"{run} must hold a checkpoint to go on from after 2 epochs; none can be used." in " ".join(
        log.read_text().split()
    )
    assert {path: sha256_of(path) for path in run.glob("*.*")} == before


def test_a_restart_sets_all_runs_aside_before_the_first_trains(phantoms, tmp_path, monkeypatch):
    """So that the same command, without --restart, resumes after a signal, and keeps no network of before."""
    configs = [
        Config.from_preset("embedding", modalities=(name,), crop=TINY_CROP, backbone="tiny", weights="none", epochs=1)
        for name in ("flair", "t2")
    ]
    train(configs, phantoms[:1], runs=tmp_path)

    def killed(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("brats_tf.training.train._train", killed)
    with pytest.raises(KeyboardInterrupt):
        train(configs, phantoms[:1], runs=tmp_path, options=TrainingOptions(restart=True))
    for name in ("embedding-flair", "embedding-t2"):
        assert not (tmp_path / name / "run.json").exists()
        assert (tmp_path / f"{name}.1" / "network.weights.h5").is_file()
