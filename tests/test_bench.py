import json

import pytest

from brats_tf.bench import bench, bench_backbones
from brats_tf.config import Config
from brats_tf.listing import BACKBONES_FILE


@pytest.mark.slow
def test_the_bench_measures_and_writes(tmp_path):
    config = Config.from_preset("paper", modalities=("flair",), crop=(32, 32, 24), weights="none")
    figures = bench(config, results=tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(figures))
    assert figures["step_s"] > figures["forward_s"] > 0
    assert 0 < figures["share_of_matrix_rate"] < 1


@pytest.mark.slow
def test_a_full_size_step_stays_below_9_gb_and_near_its_estimate(tmp_path):
    figures = bench(Config.from_preset("paper", modalities=("flair",), weights="none"), results=tmp_path)
    assert figures["step_peak_gb"] < 9
    assert figures["step_estimated_gb"] == pytest.approx(figures["step_peak_gb"], rel=0.15)
    assert figures["forward_estimated_gb"] == pytest.approx(figures["forward_peak_gb"], rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnetb0", "convnext_tiny"])
def test_a_backbone_measured_anew_is_the_packaged_one_but_for_the_time(name, tmp_path):
    measured = bench_backbones((name,), results=tmp_path)
    assert json.loads((tmp_path / "backbones.json").read_text()) == json.loads(json.dumps(measured))
    row = json.loads(json.dumps(measured["backbones"][name]))
    packaged = json.loads(BACKBONES_FILE.read_text())["backbones"][name]
    for figures in (row, packaged):
        assert figures.pop("seconds") > 0
        assert figures.pop("peak_gb") > 0
    assert row == packaged
