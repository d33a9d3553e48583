import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import TINY_CROP
from untrained_runs import networks_of_two_convolutions

from brats_tf.cli.main import main
from brats_tf.config.config import Config
from brats_tf.config.execution import ExportOptions, ForwardOptions, PostProcessing
from brats_tf.errors import InputError
from brats_tf.exporting.export import check_averageable, export_networks
from brats_tf.models.forms import one_form
from brats_tf.models.normalisation import GroupNormalization
from brats_tf.runs.network import load_network

onnx_file = pytest.importorskip("brats_tf.exporting.onnx_file", reason="needs the extra `runtimes`")
litert_file = pytest.importorskip("brats_tf.exporting.litert_file", reason="needs the extra `runtimes`")
MODULES = {"onnx": onnx_file, "litert": litert_file}


@pytest.fixture(scope="module", autouse=True)
def small_embedding():
    """Preset `embedding` is small here; `test_runtimes_networks` has the real ones."""
    with networks_of_two_convolutions():
        yield


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_a_file_computes_what_the_networks_compute_for_any_batch(name, runs, tmp_path):
    out = tmp_path / "out"
    assert main(["export", str(runs[1]), "--format", name, "--out", str(out)]) == 0
    _, network = load_network(runs[1])
    loaded = MODULES[name].load(out)
    for batch in (1, 3):
        volumes = np.random.default_rng(1).normal(size=(batch, *TINY_CROP, 1)).astype("float32")
        np.testing.assert_allclose(loaded.run(volumes), network(volumes, training=False), atol=1e-4)
    facts = json.loads((out / "metadata.json").read_text())
    assert facts["format"] == name
    assert set(facts["sha256"]) == {MODULES[name].FILE}
    card = (out / "model_card.md").read_text()
    assert MODULES[name].FILE in card
    assert "label_map" not in card


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"options": ExportOptions(weight_type="float16")}, "is for --format onnx or litert"),
        ({"options": ExportOptions(format="onnx"), "forward": ForwardOptions("bfloat16")}, "holds layers in float32"),
        ({"options": ExportOptions(format="litert"), "forward": ForwardOptions(mirror="lr")}, "has no label map"),
        ({"options": ExportOptions(format="onnx"), "steps": PostProcessing(fill_holes=True)}, "has no label map"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(asked, words, runs, tmp_path):
    with pytest.raises(InputError, match=words):
        export_networks(runs[:1], out=tmp_path / "out", **asked)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.delitem(sys.modules, "brats_tf.exporting.onnx_file")
    with pytest.raises(InputError, match=r"An ONNX file needs the package tf2onnx: pip install '.\[runtimes\]'"):
        export_networks(runs[:1], out=tmp_path / "out", options=ExportOptions(format="onnx"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spacing_mm": 2.0}, "see voxels of the same size. Received: unchanged, 2.0"),
        ({"crop": (64, 64, 36)}, "see volumes of the same size. Received: 32x32x24, 64x64x36"),
        ({"preset": "albunet3d", "patch_size": TINY_CROP}, "have the same outputs"),
    ],
)
def test_networks_whose_probabilities_cannot_be_averaged_are_refused(changes, words):
    first = Config.from_preset("embedding", modalities=("flair",), crop=TINY_CROP)
    preset = {"preset": "embedding", "modalities": ("flair",), "crop": TINY_CROP} | changes
    with pytest.raises(InputError, match=f"exported together must {words}"):
        check_averageable([first, Config.from_preset(preset.pop("preset"), **preset)])


def test_a_conversion_that_fails_is_one_sentence(runs, tmp_path, monkeypatch):
    class Converter:
        def __init__(self):
            self.target_spec = self

        def convert(self):
            raise RuntimeError("MaxPool3D\nis not supported")

    monkeypatch.setattr(litert_file.tf.lite.TFLiteConverter, "from_concrete_functions", lambda *args: Converter())
    with pytest.raises(InputError, match="LiteRT cannot hold this network: RuntimeError: MaxPool3D is not supported"):
        export_networks(runs[:1], out=tmp_path / "out", options=ExportOptions(format="litert"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(16, 16, 24, 128), (64, 64, 36, 16), (5, 7, 9, 64), (4, 4, 6, 160)])
def test_litert_normalises_volumes_of_any_size(shape, tmp_path):
    """In chunks, with and without a rest, and of fewer voxels than a chunk has."""
    inputs = keras.Input(shape)
    network = keras.Model(inputs, GroupNormalization(8, relu=True)(inputs))
    volume = np.random.default_rng(0).normal(2, 1, (1, *shape)).astype("float32")
    signature = [tf.TensorSpec((None, *shape), tf.float32)]
    function = tf.function(lambda x: network(x, training=False), input_signature=signature, autograph=False)
    with one_form():
        concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], function)
    (tmp_path / litert_file.FILE).write_bytes(converter.convert())
    np.testing.assert_allclose(litert_file.load(tmp_path).run(volume), network(volume), atol=1e-5)


@pytest.mark.parametrize("kind", [keras.layers.MaxPooling3D, keras.layers.AveragePooling3D])
@pytest.mark.parametrize(("size", "strides"), [((1, 1, 3), (1, 1, 3)), ((3, 1, 1), (3, 1, 1)), ((3, 3, 1), (2, 2, 1))])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_of_volumes_is_pooling_of_images(kind, size, strides, padding):
    volume = keras.Input((9, 6, 8, 2))
    network = keras.Model(volume, kind(size, strides, padding)(volume))
    volumes = np.random.default_rng(0).normal(size=(2, 9, 6, 8, 2)).astype("float32")
    found = litert_file.without_pooling_in_3d(network)
    assert not any(isinstance(layer, kind) for layer in found.layers)
    np.testing.assert_allclose(found(volumes), network(volumes), rtol=1e-6)


def test_pooling_along_three_axes_is_refused():
    volume = keras.Input((8, 6, 9, 2))
    network = keras.Model(volume, keras.layers.MaxPooling3D(2, name="pool")(volume))
    with pytest.raises(InputError, match=r"no pooling along three axes. Received: pool of \(2, 2, 2\)"):
        litert_file.without_pooling_in_3d(network)
