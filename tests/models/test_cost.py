import math

import keras
import pytest
from keras import layers

from brats_tf.config.config import Config
from brats_tf.models.build import build_network
from brats_tf.models.cost import multiply_adds, prediction_bytes, training_bytes
from brats_tf.models.plus import plus_network


def test_multiply_adds_by_hand():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(image)  # 64 positions x 9 x 3 x 4
    x = layers.DepthwiseConv2D(5, padding="same")(x)  # 64 positions x 25 x 4
    x = layers.Conv2DTranspose(2, 3, strides=2, padding="same")(x)  # 64 inputs x 9 x 4 x 2
    x = layers.Reshape((16, 16, 2, 1))(x)
    x = layers.Conv3D(5, (3, 3, 1), padding="same")(x)  # 512 positions x 9 x 5
    x = layers.Dense(7)(x)  # 512 positions x 5 x 7
    x = layers.Reshape((16, 16, 14))(x)
    x = layers.SeparableConv2D(3, 5, padding="same")(x)  # 256 positions x (25 x 14 + 14 x 3)
    nested = keras.Model(image, x)
    outer = keras.Input((8, 8, 3))
    network = keras.Model(outer, nested(outer))
    assert multiply_adds(network) == 64 * 108 + 64 * 100 + 64 * 72 + 512 * 45 + 512 * 35 + 256 * 392


def test_a_classifier_is_counted_for_each_of_its_images():
    once, twice = (plus_network((32, 32, depth, 4), backbone="tiny") for depth in (12, 24))
    assert multiply_adds(twice) == 2 * multiply_adds(once)
    one, two = (
        training_bytes(network, batch_size=1) - training_bytes(network, batch_size=0) for network in (once, twice)
    )
    assert two == pytest.approx(2 * one)


def test_a_classifier_s_estimate_does_not_depend_on_the_precision():
    """On a CPU it computes in float32 in any."""
    network = plus_network((32, 32, 12, 4), backbone="tiny")
    classifier = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    full, half = (training_bytes(network, batch_size=1, precision=name) for name in ("float32", "bfloat16"))
    assert 0 < full - half < 0.1 * training_bytes(network, batch_size=1)
    outputs = [layer.output for layer in network.layers if layer is not classifier]
    others = sum(4 * math.prod(one.shape[1:]) * (3 if len(one.shape) == 4 else 1) for one in outputs)
    assert full - half == pytest.approx((0.55 - 0.4556) * others)


def test_a_classifier_that_is_not_recomputed_is_estimated_as_kept():
    def saved(**changes):
        settings = {"crop": (32, 32, 24), "weights": "none", "modalities": ("t1",)} | changes
        network = build_network(Config.from_preset("embedding-plus", **settings))
        kept, recomputed = (training_bytes(network, batch_size=1, rematerialise=one) for one in (False, True))
        return kept - recomputed

    assert saved() > saved(batch_norm="batch") == saved(stochastic_depth=True) > 0


def test_estimates_grow_with_what_they_depend_on():
    volume = keras.Input((64, 64, 64, 1))
    network = keras.Model(volume, layers.Conv3D(16, 1)(volume))
    outputs = 4 * 64**3 * (1 + 16)
    two, one = (training_bytes(network, batch_size=size) for size in (2, 1))
    assert two - one == pytest.approx(0.55 * outputs)
    several, alone = (prediction_bytes(network, networks=count) for count in (4, 1))
    assert several - alone == 3 * 4 * 4 * 64**3  # Volumes of cases; the weights stay in their files.
