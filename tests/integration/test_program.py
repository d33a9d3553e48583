"""The whole program once, on phantoms, with a tiny network: train four, predict, evaluate."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from tiny_networks import TINY_CROP

from brats_tf.cli.demo import run_demo
from brats_tf.cli.main import main
from brats_tf.data import phantoms as phantom
from brats_tf.regions import MODALITIES

LONG = ["--epochs", 2, "--steps-per-epoch", 12, "--learning-rate", 5e-3]
TINY = ["--crop", "x".join(map(str, TINY_CROP)), "--backbone", "tiny", "--weights", "none"]


@pytest.fixture
def few_phantoms(monkeypatch):
    monkeypatch.setattr(phantom, "COUNTS", {"training": 3, "unseen": 2})


def call(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.large
def test_from_folders_to_scores(phantom_folder, phantoms, tmp_path):
    runs, out, results = (tmp_path / name for name in ("runs", "out", "results"))
    data = [phantom_folder, "--runs", runs]
    assert call("train", "--modality", "all", *data, *TINY, *LONG) == 0
    assert {path.name for path in runs.iterdir()} == {*(f"embedding-{name}" for name in MODALITIES), "cache"}
    assert call("predict", *data, "--out", out) == 0
    for case in phantoms:
        image, flair = nib.load(out / f"{case.id}.nii.gz"), nib.load(case.volumes["flair"])
        assert image.shape == flair.shape
        np.testing.assert_array_equal(image.affine, flair.affine)
        assert set(np.unique(np.asanyarray(image.dataobj))) <= {0, 1, 2, 4}
    assert call("evaluate", out, "--results", results) == 0
    summary = json.loads((results / "summary.json").read_text())
    # Learned from these very cases: far above the 0.1 of untrained networks, or something is not connected.
    assert summary["WT"]["dice"]["mean"] > 0.3
    rows = list(csv.DictReader((results / "cases.csv").read_text().splitlines()))
    wt = [float(row["dice"]) for row in rows if row["region"] == "WT"]
    assert np.mean(wt) == pytest.approx(summary["WT"]["dice"]["mean"], abs=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_a_bad_case_among_good_ones_ends_with_exit_code_2(phantoms, damaged, tmp_path, capsys):
    folder = damaged[0].folder.parent
    for path in phantoms[1].folder.iterdir():
        (folder / "good").mkdir(exist_ok=True)
        (folder / "good" / f"good_{path.name.rpartition('_')[2]}").write_bytes(path.read_bytes())
    data = [folder, "--runs", tmp_path / "runs"]
    assert call("train", "--modality", "t2", *data, *TINY, "--epochs", 1) == 0  # Nothing is wrong with their T2.
    assert call("train", "--modality", "flair", *data, *TINY, "--epochs", 1) == 2
    complaint = capsys.readouterr().err
    assert "Case truncated" in complaint
    assert "Traceback" not in complaint
    assert call("train", "--modality", "flair", *data, *TINY, "--epochs", 1, "--skip-invalid") == 0
    assert call("predict", *data, "--networks", "embedding-flair,embedding-t2", "--out", tmp_path / "out") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "good.nii.gz",
        "no_flair.nii.gz",
        "prediction.json",
    ]
    assert call("evaluate", tmp_path / "out") == 2
    summary = json.loads((tmp_path / "out" / "results" / "summary.json").read_text())
    assert summary["WT"]["dice"]["n"] == 2 and list(summary["left_out"]) == ["truncated"]


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_synthetic_cases_have_a_place_of_their_own(tmp_path, capsys, few_phantoms, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ["--crop", "32x32x36", "--backbone", "tiny", "--weights", "none", "--epochs", 1]
    assert call("train", "--modality", "t1", *tiny) == 2
    assert "DATA is missing" in capsys.readouterr().err
    assert call("train", "--modality", "t1", "--phantoms", *tiny) == 0
    assert "Using synthetic cases (training)" in capsys.readouterr().out
    assert call("predict", "--phantoms", "--networks", "embedding-t1") == 0
    assert call("evaluate", "phantoms/predictions") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["phantoms"]
    names = [path.name for path in sorted((tmp_path / "phantoms" / "predictions").glob("*.nii.gz"))]
    assert names == [f"Phantom_Unseen_{number:03}.nii.gz" for number in (1, 2)]


def test_training_never_falls_back_to_random_weights(phantom_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(tmp_path))
    arguments = ["train", phantom_folder, "--modality", "t1", "--runs", tmp_path / "runs", *TINY[:4]]
    assert call(*arguments) == 2
    assert "must hold tiny.weights.h5 or tiny_notop.h5" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_goes_on_without_weights_and_says_so_first(tmp_path, capsys, monkeypatch, few_phantoms):
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(tmp_path))
    run_demo(
        runs=tmp_path / "runs",
        out=tmp_path / "out",
        results=tmp_path / "results",
        crop=(32, 32, 36),
        backbone="tiny",
        epochs=1,
    )
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("Demo on ")
    assert "RANDOM WEIGHTS" in first
    assert any("untrained" in line for line in others)
    assert (tmp_path / "results" / "overlay.png").stat().st_size > 10_000
    report = (tmp_path / "results" / "report.html").read_text()
    assert "Rank correlation (Spearman) with Dice" in report and "flair: loss and Dice" in report
    assert json.loads((tmp_path / "results" / "summary.json").read_text())["ET"]["dice"]["n"] == 2
