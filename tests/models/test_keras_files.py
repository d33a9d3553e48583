"""A whole network in a `.keras` file, loaded where nobody has built one."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from brats_tf.config.config import Config
from brats_tf.models.build import build_network

SETTINGS = {
    "embedding": {"modalities": ("flair",), "crop": (32, 32, 24), "backbone": "tiny", "weights": "none"},
    "embedding-plus": {"crop": (32, 32, 24), "backbone": "tiny", "weights": "none"},
    "albunet3d": {"patch_size": (32, 32, 4), "window_stride": (32, 32, 4), "weights": "none"},
}
PROGRAM = """
import sys
import brats_tf
brats_tf.load_network  # Registers the layers.
import keras, numpy
_, network, volume, output = sys.argv
numpy.save(output, keras.models.load_model(network)(numpy.load(volume)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("preset", SETTINGS)
def test_a_keras_file_loads_elsewhere_and_computes_the_same(preset, tmp_path):
    config = Config.from_preset(preset, **SETTINGS[preset])
    network = build_network(config)
    volume = np.random.default_rng(0).random((1, *config.input_shape), dtype=np.float32)
    network.save(tmp_path / "network.keras")
    np.save(tmp_path / "volume.npy", volume)
    names = ("network.keras", "volume.npy", "output.npy")
    subprocess.run([sys.executable, "-c", PROGRAM, *(tmp_path / name for name in names)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "output.npy"), np.asarray(network(volume)))


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_dropout_keeps_its_precision_when_a_network_is_cloned(policy):
    """Keras's says float32 in its configuration, whatever it is."""
    config = Config.from_preset("embedding-authors", crop=(32, 32, 24), backbone="tiny", weights="none")
    network = build_network(config, precision=policy)
    policies = {layer.name: layer.dtype_policy.name for layer in keras.models.clone_model(network).layers}
    dropouts = [layer for layer in network.layers if layer.name.endswith("_dropout")]
    assert len(dropouts) > 3
    assert {layer.name: policies[layer.name] for layer in dropouts} == {
        layer.name: layer.dtype_policy.name for layer in dropouts
    }
