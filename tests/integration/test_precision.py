"""Half precision: what layers compute in; weights, statistics, the last activation and the loss stay float32."""

import csv

import keras
import numpy as np
import pytest
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.models.build import build_network, build_with_weights
from brats_tf.models.cost import all_layers
from brats_tf.models.normalisation import GroupNormalization
from brats_tf.runs.network import load_network
from brats_tf.training.optimisation import compile_network
from brats_tf.training.ready_network import between_steps
from brats_tf.training.train import train


def tiny(**changes):
    settings = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none", "epochs": 1, "learning_rate": 1e-3}
    return Config.from_preset("embedding", modalities=("flair",), **(settings | changes))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_layers_compute_in_half_precision_and_keep_their_weights_whole(precision):
    network, _ = build_with_weights(tiny(precision=precision))
    assert keras.config.dtype_policy().name == "float32"  # As before.
    assert network.get_layer("squeeze1_conv1").compute_dtype == precision
    assert network.get_layer("regions").compute_dtype == "float32"
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert network.output.dtype == "float32"


def test_predictions_are_made_in_float32():
    network = build_network(tiny(precision="bfloat16"))
    assert {layer.compute_dtype for layer in all_layers(network)} == {"float32"}


@pytest.mark.slow
def test_a_training_in_half_precision_validates_in_float32():
    config, whole = tiny(precision="bfloat16"), tiny()
    network, _ = build_with_weights(config)
    forward, planes_of = between_steps(config, network)
    exact = build_network(whole)
    for variable in network.trainable_variables:  # As after some steps: the twin must follow.
        variable.assign(variable + 0.01)
    exact.set_weights(network.get_weights())
    volume = np.random.default_rng(0).normal(size=(1, *TINY_CROP, 1)).astype(np.float32)
    expected = np.asarray(exact(volume, training=False))
    np.testing.assert_allclose(forward(None, volume), expected, atol=1e-5)
    assert np.abs(np.asarray(network(volume, training=False)) - expected).max() > 1e-4
    planes = keras.Model(exact.input, exact.get_layer("planes").output)(volume)[0]
    np.testing.assert_allclose(np.stack(planes_of(volume[0], 0)[0], axis=-1), planes, atol=1e-4)


def test_statistics_of_normalisation_are_float32():
    # A mean of 300 with a deviation of 4: bfloat16 has steps of 2 there, and float32 sums of it are exact enough.
    layer = GroupNormalization(1, dtype="mixed_bfloat16")
    values = np.where(np.arange(4096) % 2, 304.0, 296.0).reshape(1, 16, 16, 16)  # Exact in bfloat16.
    normed = np.asarray(keras.ops.cast(layer(keras.ops.cast(values, "bfloat16")), "float32"))
    np.testing.assert_allclose(np.abs(normed), 1, rtol=0.01)


def test_float16_scales_its_loss_and_the_others_do_not():
    for precision, scaled in (("float16", True), ("bfloat16", False), ("float32", False)):
        config = tiny(precision=precision)
        network, _ = build_with_weights(config)
        compile_network(network, config)
        assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer) == scaled


@pytest.mark.usefixtures("untraced")
@pytest.mark.large
def test_half_precision_learns_nearly_the_same(phantoms, tmp_path):
    changes, losses = {"precision": "bfloat16", "rematerialise": True}, []
    for name, settings in (("whole", {}), ("half", changes)):
        (run,) = train([tiny(**settings)], phantoms[:2], runs=tmp_path / name, cache_dir=tmp_path / "cache")
        (row,) = csv.DictReader((run / "history.csv").read_text().splitlines())
        losses.append(float(row["loss"]))
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert load_network(tmp_path / "half" / "embedding-flair")[1].compute_dtype == "float32"
