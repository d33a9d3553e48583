import numpy as np
import pytest
from tiny_networks import TINY_CROP
from untrained_runs import untrained

from brats_tf.config.execution import ExportOptions
from brats_tf.exporting.export import export_networks
from brats_tf.runs.network import load_network

pytestmark = pytest.mark.large
onnx_file = pytest.importorskip("brats_tf.exporting.onnx_file", reason="needs the extra `runtimes`")
litert_file = pytest.importorskip("brats_tf.exporting.litert_file", reason="needs the extra `runtimes`")
MODULES = {"onnx": onnx_file, "litert": litert_file}


def test_an_onnx_file_of_two_networks_averages_them(runs, tmp_path):
    export_networks(runs, out=tmp_path / "out", options=ExportOptions(format="onnx"))
    volumes = np.random.default_rng(1).normal(size=(1, *TINY_CROP, 2)).astype("float32")
    expected = sum(load_network(run)[1](volumes[..., i, None], training=False) for i, run in enumerate(runs)) / 2
    np.testing.assert_allclose(onnx_file.load(tmp_path / "out").run(volumes), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_weights_of_half_the_size_change_little(name, runs, tmp_path):
    sizes = {}
    for weight_type in ("float32", "float16"):
        out = tmp_path / weight_type
        checked = export_networks(runs[:1], out=out, options=ExportOptions(format=name, weight_type=weight_type))
        sizes[weight_type] = (out / MODULES[name].FILE).stat().st_size
    assert sizes["float16"] < 0.9 * sizes["float32"]  # These have few weights beside the graph.
    assert 1e-7 < checked["largest_difference"] < 0.01


@pytest.mark.parametrize("name", ["onnx", "litert"])
@pytest.mark.parametrize("preset", ["embedding", "embedding-plus", "embedding-authors", "albunet3d", "albunet2d"])
def test_every_network_is_written_or_refused_with_the_reason(name, preset, tmp_path):
    patches = {"albunet3d": (64, 64, 24), "albunet2d": (64, 64, 1)}
    sizes = {"patch_size": patches[preset], "backbone": None, "crop": None} if preset in patches else {}
    sizes |= {"modalities": ("flair",)} if preset == "embedding" else {}
    run = untrained(tmp_path / "run", preset, **sizes)
    checked = export_networks([run], out=tmp_path / "out", options=ExportOptions(format=name))
    assert checked["largest_difference"] <= 1e-4
