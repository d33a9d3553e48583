"""Several devices, and several machines, train as one does with the same batch."""

import csv
import json
import os
import signal
import socket
import time

import h5py
import numpy as np
import pytest

from brats_tf.config.config import Config
from brats_tf.errors import InputError
from brats_tf.training import distribution as devices

ALIKE = 1e-5


@pytest.fixture(scope="module")
def arguments(phantom_folder):
    return [
        *("train", phantom_folder, "--modality", "flair", "--crop", "32x32x24", "--weights", "none"),
        *("--epochs", 4, "--learning-rate", "1e-2", "--batch-size", 2, "--augmentation", "albunet-authors"),
    ]


def results(runs):
    """The figures of history.csv as an array, and all weights."""
    rows = list(csv.DictReader((runs / "embedding-flair" / "history.csv").read_text().splitlines()))
    with h5py.File(runs / "embedding-flair" / "network.weights.h5") as file:
        weights = {}
        file.visititems(lambda name, one: weights.update({name: one[()]} if isinstance(one, h5py.Dataset) else {}))
    return np.array([[float(row[name]) for name in sorted(row)] for row in rows]), weights


@pytest.fixture(scope="module")
def single(trainings, arguments, tmp_path_factory):
    """One device with the whole batch."""
    runs = tmp_path_factory.mktemp("single")
    assert trainings.run([*arguments, "--runs", runs], runs / "log", DROPOUT="0") == 0, (runs / "log").read_text()
    return results(runs)


def assert_alike(runs, single):
    (curves, weights), (expected, expected_weights) = results(runs), single
    assert curves.shape == expected.shape == (4, 9)
    np.testing.assert_allclose(curves, expected, atol=ALIKE)
    for name, values in expected_weights.items():
        np.testing.assert_allclose(weights[name], values, atol=ALIKE, err_msg=name)


@pytest.mark.slow
def test_two_logical_devices_train_as_one(trainings, arguments, single, tmp_path):
    command, log = [*arguments, "--runs", tmp_path, "--devices", 2], tmp_path / "log"
    assert trainings.run(command, log, DROPOUT="0", LOGICAL_DEVICES="2") == 0, log.read_text()
    assert "on 2 devices, the first CPU" in log.read_text()
    assert_alike(tmp_path, single)
    assert json.loads((tmp_path / "embedding-flair" / "run.json").read_text())["devices"] == 2


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def start_two(trainings, command, folder):
    """Starts two processes that train together; returns their numbers."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    cluster = {"cluster": {"worker": workers}}
    said = [json.dumps(cluster | {"task": {"type": "worker", "index": index}}) for index in (0, 1)]
    return [
        trainings.start(command, folder / f"log{index}", DROPOUT="0", TF_CONFIG=text) for index, text in enumerate(said)
    ]


@pytest.mark.large
def test_two_processes_over_loopback_train_as_one_and_go_on_after_a_stop(trainings, arguments, single, tmp_path):
    command = [*arguments, "--runs", tmp_path, "--checkpoint-minutes", "0.0001"]
    processes = start_two(trainings, command, tmp_path)
    until = time.monotonic() + 60
    while not list((tmp_path / "embedding-flair").glob("checkpoints/epoch-00001-*")):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(processes[1], signal.SIGTERM)  # Both must stop after the same step.
    codes = [trainings.wait(process) for process in processes]
    assert codes == [75, 75], [(tmp_path / f"log{index}").read_text() for index in (0, 1)]
    assert "Stopped by another machine" in (tmp_path / "log0").read_text()
    codes = [trainings.wait(process) for process in start_two(trainings, command, tmp_path)]
    assert codes == [0, 0], [(tmp_path / f"log{index}").read_text() for index in (0, 1)]
    assert "Resuming " in (tmp_path / "log0").read_text()
    assert_alike(tmp_path, single)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "must be a multiple of the 2 devices. Received: 1"),
        ({"batch_size": 4, "gradient_accumulation_steps": 2}, "must be 1 on several devices.* Received: 2 on 2"),
        ({"batch_size": 2, "jit": True}, "`jit` must be off on several devices.* Received: 2"),
        ({"batch_size": 2, "precision": "float16"}, "must be float32 or bfloat16 on several.* Received: float16 on 2"),
    ],
)
def test_what_several_devices_cannot_share_is_refused(changes, sentence, monkeypatch):
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    config = Config.from_preset("embedding", modalities=("t1",), **changes)
    devices.check_devices([config], 1)
    with pytest.raises(InputError, match=sentence):
        devices.check_devices([config], 2)


def test_xla_and_bfloat16_are_refused_without_a_gpu(monkeypatch):
    """XLA fails there with "mixed precision is disallowed", on batches of one volume at least."""
    config = Config.from_preset("embedding", modalities=("t1",), precision="bfloat16", jit=True)
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    with pytest.raises(InputError, match="`jit` must be off in bfloat16 without a GPU"):
        devices.check_devices([config], 1)
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    devices.check_devices([config], 1)


def test_float16_is_refused_without_a_gpu(monkeypatch):
    config = Config.from_preset("embedding", modalities=("t1",), precision="float16")
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    with pytest.raises(InputError, match="must be float32 or bfloat16 without a GPU.* Received: float16"):
        devices.check_devices([config], 1)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(InputError, match="`--devices` must be at most 1, the CPUs of this machine. Received: 7"):
        devices.choose_strategy(7)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}']
)
def test_a_tf_config_that_is_none_is_a_sentence(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match='TF_CONFIG must be {"cluster"'):
        devices.machines()


def test_slurm_is_recognised(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    said = {"STEP_NUM_TASKS": "3", "STEP_NODELIST": "gpu[9-10]", "STEP_TASKS_PER_NODE": "1,2", "PROCID": "0"}
    monkeypatch.setenv("SLURMD_NODENAME", "gpu9")
    for name, value in said.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert devices.machines() == 3
    assert not devices.is_first()
    cluster = devices._cluster()
    assert cluster["cluster"]["worker"] == ["gpu10:29400", "gpu10:29401", "gpu9:29400"]  # Sorted as text.
    assert cluster["task"] == {"type": "worker", "index": 2}


def test_a_process_alone_is_the_first(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    assert devices.machines() == 1
    assert devices.is_first()
