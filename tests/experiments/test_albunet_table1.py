"""The AlbuNet paper's protocol on tiny networks: its plan, its resumption, its table and its two figures."""

import csv
import importlib.util
import json

import numpy as np
import pytest
from repository import REPOSITORY

from brats_tf.evaluation.scores import METRICS
from brats_tf.runs.history import VALIDATION_COLUMNS

TINY = {"crop": (40, 40, 26), "steps_per_epoch": 1, "epochs": 2, "validation_frequency": 1, "batch_size": 1}
TINY_LENGTH = {
    "albunet3d": TINY | {"patch_size": (32, 32, 4), "window_stride": (16, 16, 4)},
    "albunet2d": TINY | {"patch_size": (32, 32, 1), "window_stride": (16, 16, 1)},
}


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("albunet_table1", REPOSITORY / "experiments" / "albunet_table1.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(experiment, folders, method, seed, dice, config):
    """The files that a scored run leaves: two cases, two epochs, every region's Dice equal but for the case."""
    results, runs = (experiment.place(folder, method, seed) for folder in folders)
    for folder in (results, runs / config.run_name):
        folder.mkdir(parents=True)
    with open(results / "cases.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "region", *METRICS))
        for case, more in (("A", 0), ("B", 0.1), ("C", 0.5)):
            for region in ("WT", "TC", "ET"):
                writer.writerow((case, region, dice + more, 10 * more, *[0] * (len(METRICS) - 2)))
    with open(runs / config.run_name / "validation.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(VALIDATION_COLUMNS)
        for epoch in (1, 2):
            for case, more in (("A", 0), ("B", 0.2)):
                writer.writerows(
                    (epoch, case, region, dice + more - 0.1 * (2 - epoch)) for region in ("WT", "TC", "ET")
                )


def test_table_and_curves_by_hand(experiment, tmp_path):
    configs, left_out = experiment.planned(["AlbuNet3D", "AlbuNet2D"], "short", 2, None)
    assert left_out == {} and list(configs) == [(m, seed) for m in ("AlbuNet3D", "AlbuNet2D") for seed in (0, 1)]
    for (method, seed), config in configs.items():
        write_run(experiment, (tmp_path / "r", tmp_path / "runs"), method, seed, 0.2 + 0.2 * seed, config)
    summary = experiment.summed_up(configs, tmp_path / "runs", tmp_path / "r")
    its = summary["table"]["AlbuNet3D"]["ET"]
    # Runs of means 0.4 and 0.6, of medians 0.3 and 0.5.
    assert its["dice"] == pytest.approx({"mean": 0.5, "median": 0.4, "std_of_runs": 0.1})
    assert its["hd95_mm"] == pytest.approx({"mean": 2, "median": 1, "std_of_runs": 0})
    curve = summary["curves"]["AlbuNet2D"]["WT"]
    assert curve["epochs"] == [1, 2]
    np.testing.assert_allclose((curve["mean"], curve["std"]), ((0.3, 0.4), (0.1, 0.1)))
    assert summary["et_dice_of_the_first_run"]["AlbuNet3D"] == pytest.approx([0.2, 0.3, 0.7])
    experiment.draw(summary, configs, tmp_path, title="tiny")
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("curves.png", "boxplot.png"))


def test_without_the_file_pretrained_methods_are_left_out_and_said_so(experiment, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(experiment.LENGTHS, "short", TINY_LENGTH)
    configs, left_out = experiment.planned(list(experiment.METHODS), "short", 1, None)
    assert {method for method, _ in configs} == {"AlbuNet3D", "AlbuNet2D"}
    assert all("resnet34.safetensors" in sentence for sentence in left_out.values()) and len(left_out) == 2
    assert "AlbuNet3D, pretrained is left out" in capsys.readouterr().out


def test_bad_arguments_are_sentences(experiment, phantom_folder, capsys):
    assert experiment.main(["/nowhere", "--methods", "AlbuNet2D"]) == 2
    assert "The data folder /nowhere does not exist" in capsys.readouterr().err
    assert experiment.main([str(phantom_folder), "--methods", "UNet"]) == 2
    assert "`--methods` must be from AlbuNet3D, pretrained; AlbuNet3D;" in capsys.readouterr().err


@pytest.mark.slow
def test_it_trains_what_is_missing_and_only_that(experiment, monkeypatch, phantom_folder, tmp_path, untraced, capsys):
    monkeypatch.setitem(experiment.LENGTHS, "short", TINY_LENGTH)
    command = [str(phantom_folder), "--length", "short", "--methods", "AlbuNet2D", "--seeds", "1"]
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(experiment, "VALIDATION_SPLIT", 0.25)
    assert experiment.main(command + folders) == 0
    folder = tmp_path / "results" / "albunet_table1" / "short"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cases"] == {"training": 3, "validation": 1}
    assert summary["curves"]["AlbuNet2D"]["WT"]["epochs"] == [1, 2]
    assert len(summary["et_dice_of_the_first_run"]["AlbuNet2D"]) == 1
    before = (folder / "albunet2d" / "seed0" / "cases.csv").stat().st_mtime_ns
    capsys.readouterr()
    assert experiment.main(command + folders) == 0
    assert (folder / "albunet2d" / "seed0" / "cases.csv").stat().st_mtime_ns == before
    assert "Training" not in capsys.readouterr().out
