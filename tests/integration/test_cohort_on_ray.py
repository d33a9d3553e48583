"""A cohort on Ray is the cohort of one process, also when workers are killed."""

import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest
from prediction_records import without_seconds
from repository import REPOSITORY
from untrained_runs import untrained

from brats_tf.cli.main import main
from brats_tf.data.phantoms import write_phantoms
from brats_tf.runtime.files import sha256_of
from brats_tf.runtime.system import available_cores

pytest.importorskip("ray")
NAMES = [f"Phantom_{number:03}" for number in range(1, 13)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Twelve cases, of which one is truncated and one lacks a modality, and two networks that nobody has trained."""
    folder = tmp_path_factory.mktemp("cohort")
    list(write_phantoms(folder / "cases", names=NAMES, spacing_mm=6))
    flair = folder / "cases" / NAMES[3] / f"{NAMES[3]}_flair.nii.gz"
    flair.write_bytes(flair.read_bytes()[:-200])
    (folder / "cases" / NAMES[5] / f"{NAMES[5]}_t1ce.nii.gz").unlink()
    runs = [
        untrained(folder / "runs" / name, modalities=(name,), backbone="mobilenetv2", crop=(96, 96, 24))
        for name in ("flair", "t1ce")
    ]
    words = ["predict", str(folder / "cases"), "--runs", str(folder / "runs"), "--networks", "flair,t1ce"]
    # With as many cores as each of two processes has: others give other last digits.
    cores = {"TF_NUM_INTRAOP_THREADS": str(max(1, available_cores() // 2))}
    command = [sys.executable, "-m", "brats_tf", *words, "--out", str(folder / "one")]
    assert subprocess.run(command, cwd=REPOSITORY, env=os.environ | cores).returncode == 2
    return folder, words, runs


def label_maps(folder):
    return {path.name: sha256_of(path) for path in folder.glob("*.nii.gz")}


def check_same(mine, other):
    assert without_seconds(mine) == without_seconds(other)
    assert label_maps(mine) == label_maps(other)
    assert not (mine / "shards").exists()


def workers():
    """The processes that hold networks."""
    return [process for process in psutil.process_iter(["name", "cmdline"]) if "ray::Worker" in process.info["name"]]


@pytest.mark.large
def test_a_killed_worker_costs_nothing(cohort, tmp_path):
    folder, words, _ = cohort
    command = [*words, "--out", str(tmp_path / "ray"), "--engine", "ray", "--workers", "2"]
    running = subprocess.Popen([sys.executable, "-m", "brats_tf", *command], cwd=REPOSITORY)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "ray").glob("shards/*/*.nii.gz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    victim = next(process for process in workers())
    victim.kill()
    assert running.wait() == 2  # The truncated case.
    check_same(tmp_path / "ray", folder / "one")


@pytest.mark.large
def test_an_ended_cohort_resumes(cohort, tmp_path):
    folder, words, _ = cohort
    command = [*words, "--out", str(tmp_path / "ray"), "--engine", "ray", "--workers", "2", "--resume"]
    running = subprocess.Popen([sys.executable, "-m", "brats_tf", *command], cwd=REPOSITORY)
    while len(list((tmp_path / "ray").glob("shards/*/*.nii.gz"))) < 3 and running.poll() is None:
        time.sleep(0.05)
    running.kill()
    running.wait()
    assert main(command) == 2
    check_same(tmp_path / "ray", folder / "one")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").glob("*.nii.gz")}
    assert main(command) == 2  # Only what failed is tried again.
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").glob("*.nii.gz")} == before


@pytest.mark.large
def test_evaluate_and_preprocess_find_the_same(cohort, tmp_path):
    folder, words, _ = cohort
    shutil.copytree(folder / "one", tmp_path / "one")
    codes = {}
    for engine in ("local", "ray"):
        evaluate = ["evaluate", str(tmp_path / "one"), "--results", str(tmp_path / engine), "--engine", engine]
        preprocess = ["preprocess", words[1], "--cache-dir", str(tmp_path / f"{engine}-cache"), "--crop", "32x32x24"]
        codes[engine] = main(evaluate), main([*preprocess, "--skip-invalid", "--engine", engine])
    assert codes["local"] == codes["ray"]
    assert (tmp_path / "local" / "cases.csv").read_bytes() == (tmp_path / "ray" / "cases.csv").read_bytes()
    caches = [
        {path.name: sha256_of(path) for path in (tmp_path / f"{engine}-cache").glob("*.volume")} for engine in codes
    ]
    assert caches[0] == caches[1] and caches[0]


@pytest.mark.large
def test_networks_that_are_not_there_are_named(cohort, tmp_path, capsys):
    _, words, _ = cohort
    command = [*words[:-1], "flair,nobody", "--out", str(tmp_path / "ray"), "--engine", "ray"]
    assert main(command) == 2
    assert "runs/nobody" in capsys.readouterr().err
