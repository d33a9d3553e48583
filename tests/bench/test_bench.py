import json
from importlib.util import find_spec

import pytest
from tiny_networks import TINY_CROP

from bench import augmentation as bench_augmentation
from bench import data as bench_data
from bench import training as bench_training
from bench.__main__ import main
from bench.comparison import bench_comparison, with_ratios
from bench.growth import bench_growth
from bench.network import _file_name, bench_backbones, bench_network
from bench.timing import precisions
from bench.windows import FIGURES, PEERS, _count, bench_windows
from brats_tf.cli.backbones_table import BACKBONES_FILE
from brats_tf.config.config import Config
from brats_tf.pipeline.augment import DRAWS
from brats_tf.regions import MODALITIES
from brats_tf.runtime.tensorflow import free_graphs


def _memory_of_100_steps(*arguments):
    return {"gb": [1.0, 1.0], "growth": 0.0}


@pytest.mark.large
def test_the_bench_measures_and_writes(tmp_path):
    config = Config.from_preset("embedding", modalities=("flair",), crop=(32, 32, 24), weights="none")
    figures = bench_network(config, results=tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(figures))
    assert figures["step_s"] > figures["forward_s"] > 0
    assert 0 < figures["share_of_matrix_rate"] < 1


def test_each_preset_and_backbone_has_a_results_file_of_its_own():
    files = [
        _file_name(Config.from_preset(preset, modalities=MODALITIES, **settings))
        for preset in ("embedding", "embedding-plus")
        for settings in ({}, {"backbone": "resnet34"})
    ]
    assert files == [
        "bench.json",
        "bench_resnet34.json",
        "bench_embedding-plus.json",
        "bench_embedding-plus_resnet34.json",
    ]


@pytest.mark.large
def test_the_data_plane_is_measured_and_written(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_data, "_memory", _memory_of_100_steps)
    figures = bench_data.bench_data(phantoms, results=tmp_path / "results", crop=(32, 32, 24))
    assert json.loads((tmp_path / "results" / "bench_data.json").read_text()) == json.loads(json.dumps(figures))
    assert 0 < figures["gunzip_s"] < figures["prepare_s"]
    assert figures["stream_ratio"] == pytest.approx(figures["step_with_stream_s"] / figures["step_in_memory_s"])
    assert set(figures["augmentation_ms"]) == set(bench_augmentation.OPERATIONS) == set(DRAWS)
    assert all(took["ours"] > 0 for took in figures["augmentation_ms"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["results"]  # Its own store is gone.


def test_what_the_data_plane_is_measured_with_runs(phantoms, tmp_path):
    """Parts of the two measurements above and below, which take minutes."""
    crop = (32, 32, 24)
    stored = bench_data._stored(phantoms[:1], tmp_path, crop)
    volumes, classes, seeds = next(iter(bench_data._stream(stored, crop)))
    assert volumes.shape == (1, *crop, 1)
    logs = bench_data._network(crop, filters=(), augmentation="none").train_step_on((volumes, classes, seeds))
    assert float(logs["loss"]) > 0
    config = Config.from_preset("albunet3d", crop=(40, 40, 26), patch_size=(32, 32, 4), window_stride=(16, 16, 4))
    assert _count((40, 40, 26), config) == 2 * 2 * 7


@pytest.mark.large
def test_a_full_size_step_stays_below_9_gb_and_near_its_estimate(tmp_path):
    figures = bench_network(Config.from_preset("embedding", modalities=("flair",), weights="none"), results=tmp_path)
    assert figures["step_peak_gb"] < 9
    assert figures["step_estimated_gb"] == pytest.approx(figures["step_peak_gb"], rel=0.15)
    assert figures["forward_estimated_gb"] == pytest.approx(figures["forward_peak_gb"], rel=0.25)


@pytest.mark.large
@pytest.mark.parametrize("name", ["efficientnetb0", "convnext_tiny"])
def test_a_backbone_measured_anew_is_the_packaged_one_but_for_the_time(name, tmp_path):
    measured = bench_backbones((name,), results=tmp_path)
    assert json.loads((tmp_path / "backbones-some.json").read_text()) == json.loads(json.dumps(measured))
    row = json.loads(json.dumps(measured["backbones"][name]))
    packaged = json.loads(BACKBONES_FILE.read_text())["backbones"][name]
    for figures in (row, packaged):
        assert figures.pop("seconds") > 0
        assert figures.pop("peak_gb") > 0
    assert row == packaged


@pytest.mark.large
def test_windows_are_measured_beside_pytorch(phantoms, tmp_path):
    config = Config.from_preset(
        "albunet3d", crop=(40, 40, 26), patch_size=(32, 32, 4), window_stride=(16, 16, 4), batch_size=2, weights="none"
    )
    figures = bench_windows(config, phantoms[0], results=tmp_path)
    assert json.loads((tmp_path / "bench_windows.json").read_text()) == json.loads(json.dumps(figures))
    assert figures["ours"]["forward_s"] > 0 and figures["ours"]["windows_peak_gb"] > 0
    inside, every = figures["windows"]
    assert 0 < inside < every == 2 * 2 * 7
    if all(find_spec(name) for name in PEERS):
        assert set(figures["peers"]) == set(FIGURES)


@pytest.mark.large
def test_our_networks_are_compared_in_one_run(phantoms, tmp_path):
    config = Config.from_preset("embedding", modalities=("flair",), crop=(32, 32, 24), weights="none")
    figures = bench_comparison(
        config, phantoms[0], results=tmp_path / "results", rows=("matrix", "forward", "start", "files")
    )
    name = "bench_comparison.json" if figures["bfloat16"] else "bench_comparison-float32.json"
    assert json.loads((tmp_path / "results" / name).read_text()) == json.loads(json.dumps(figures))
    assert {row["precision"] for row in figures["rows"]} == set(precisions())
    assert {row["kind"] for row in figures["rows"]} == {"matrix", "forward", "start", "files"}
    assert all(row["seconds"] > 0 for row in figures["rows"])
    assert [path.name for path in tmp_path.iterdir()] == ["results"]  # Runs and maps are gone.


@pytest.mark.large
def test_growth_is_measured_over_numbers_of_cases(phantoms, tmp_path):
    config = Config.from_preset("embedding", modalities=("flair",), weights="none")
    figures = bench_growth(config, phantoms, results=tmp_path / "results", counts=(1, 2))
    assert json.loads((tmp_path / "results" / "bench_growth.json").read_text()) == json.loads(json.dumps(figures))
    assert [row["cases"] for row in figures["rows"]] == [1, 1, 1, 2, 2, 2]
    assert all(row["seconds"] > 0 and row["peak_gb"] > 0 for row in figures["rows"])


def test_ratios_refer_to_the_first_of_a_kind():
    def row(what, kind, precision, seconds, gflop):
        return {"what": what, "kind": kind, "precision": precision, "seconds": seconds, "gflop": gflop}

    rows = [row("matrix", "matrix", "float32", 2.0, 400.0), row("forward", "forward", "float32", 4.0, 750.0)]
    rows += [row("forward", "forward", "bfloat16", 2.0, 750.0), row("step", "step", "float32", 8.0, 1.0)]
    found = with_ratios(rows)
    assert [one.get("ratio") for one in found] == [1.0, 1.0, 0.5, None]  # No step of Keras's normalisation.
    assert [one["share_of_matrix_rate"] for one in found[1:3]] == [0.9375, 1.875]


@pytest.mark.parametrize(("stage", "preset"), [("comparison", "albunet3d"), ("growth", "embedding-authors")])
def test_what_compares_ensembles_refuses_other_networks(stage, preset, phantom_folder, capsys):
    assert main([stage, str(phantom_folder), "--preset", preset]) == 2
    assert f"four one-modality networks of whole crops, for example --preset embedding. Received: preset {preset}" in (
        capsys.readouterr().err.replace("\n", " ")
    )


@pytest.fixture
def trainings(phantoms, tmp_path, monkeypatch):
    """A function preset -> what `bench_training` found of its tiny network, in this process, and in which file."""
    monkeypatch.setattr(bench_training, "in_own_process", free_graphs()(lambda function, *given: function(*given)))
    monkeypatch.setattr(bench_training, "precisions", lambda: ("float32",))
    monkeypatch.setattr(bench_training, "STEPS", 2)
    monkeypatch.setattr(bench_training, "SMALL", TINY_CROP)

    def measured(preset, modalities):
        settings = {"modalities": modalities, "crop": TINY_CROP, "backbone": "tiny", "weights": "none"}
        before = set(tmp_path.iterdir())
        figures = bench_training.bench_training(Config.from_preset(preset, **settings), phantoms[0], results=tmp_path)
        (path,) = set(tmp_path.iterdir()) - before
        assert json.loads(path.read_text()) == json.loads(json.dumps(figures))
        return figures, path.name

    return measured


def test_each_preset_has_a_file_of_its_own_for_the_training(trainings, monkeypatch):
    monkeypatch.setattr(bench_training, "_step", lambda *_: {"step_s": 2, "step_peak_gb": 1, "step_estimated_gb": 1})
    monkeypatch.setattr(bench_training, "_losses", lambda *_: {"first_loss": 1, "last_loss": 0})
    assert trainings("embedding", ("flair",))[1] == "bench_training-float32.json"
    assert trainings("embedding-plus", MODALITIES)[1] == "bench_training-embedding-plus-float32.json"


@pytest.mark.slow
def test_recomputing_measures_the_same_training(trainings):
    figures, _ = trainings("embedding-plus", MODALITIES)
    assert [row["rematerialise"] for row in figures["rows"]] == [False, True]
    first, second = figures["rows"]
    assert first["first_loss"] > first["last_loss"]
    assert first["last_loss"] == pytest.approx(second["last_loss"], abs=1e-3)  # The same step, recomputed or kept.


@pytest.mark.parametrize("ignored", [("--crop", "64x64x36"), ("--modality", "t1"), ("--preset", "embedding-plus")])
def test_the_table_of_backbones_takes_no_options_that_do_nothing(ignored, capsys):
    assert main(["backbones", *ignored]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"takes --backbone and --results alone. Received also: {ignored[0].removeprefix('--')}." in said


@pytest.mark.parametrize(
    ("words", "ignored"), [(["growth", "--crop", "96x96x72"], "crop"), (["data", "--planes", "6"], "planes")]
)
def test_what_a_stage_does_not_use_is_refused(words, ignored, tmp_path, capsys):
    assert main([*words, "--phantoms", "--results", str(tmp_path / "new" / "results")]) == 2
    assert f"Stage {words[0]} measures without it. Received: {ignored}." in " ".join(capsys.readouterr().err.split())


def test_the_folder_of_the_results_is_made_with_those_above_it(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.network.bench_network", lambda config, results: (results / "x.json").write_text("{}"))
    assert main(["network", "--results", str(tmp_path / "new" / "deep" / "results")]) == 0
