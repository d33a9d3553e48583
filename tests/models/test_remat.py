"""Rematerialisation changes neither layers nor numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_CROP
from keras import layers, ops

from brats_tf.models.albunet import albunet
from brats_tf.models.embedding import embedding_network
from brats_tf.models.normalisation import normalise_and_rectify
from brats_tf.models.remat import fused_graph

SHAPE = (2, 6, 5, 4, 16)


def make_norm(shape):
    layer = layers.GroupNormalization(8)
    layer.build(shape)
    random = np.random.default_rng(0)
    layer.gamma.assign(random.uniform(0.5, 2, 16))
    layer.beta.assign(random.uniform(-1, 1, 16))
    return layer


def gradients(function, x, upstream, weights):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, *tape.gradient(y, [x, *weights], output_gradients=upstream)


@pytest.mark.parametrize("shape", [SHAPE, (3, 6, 5, 16)])
def test_normalisation_and_its_gradient_are_keras_s(shape):
    norm = make_norm(shape)
    random = np.random.default_rng(1)
    x = tf.constant(random.normal(3, 2, shape), tf.float32)
    upstream = tf.constant(random.normal(size=shape), tf.float32)
    weights = [norm.gamma.value, norm.beta.value]

    def ours(x):
        factors = (1.0 * weight for weight in weights)
        return normalise_and_rectify(x, *factors, groups=8, epsilon=norm.epsilon)

    theirs = gradients(lambda x: ops.relu(norm(x)), x, upstream, weights)
    for expected, received in zip(theirs, gradients(ours, x, upstream, weights), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_network_keeps_its_weights_and_its_numbers():
    keras.utils.set_random_seed(0)
    network = embedding_network((*TINY_CROP, 1), backbone="tiny")
    graph = fused_graph(network, rematerialise=True)
    assert {id(one) for one in graph.trainable_variables} == {id(one) for one in network.trainable_variables}
    names = {layer.name for layer in graph.layers}
    blocks = {layer.name[:-4] for layer in network.layers if layer.name.endswith("_add")}
    assert len(blocks) == 13
    assert {f"{block}_remat" for block in blocks} <= names
    assert not any(name.startswith(tuple(blocks)) and name.endswith(("_conv1", "_add")) for name in names)
    random = np.random.default_rng(0)
    volume = tf.constant(random.normal(size=(1, *TINY_CROP, 1)), tf.float32)
    found = []
    for one in (network, graph):
        with tf.GradientTape() as tape:
            y = one(volume, training=True)
            loss = ops.sum(ops.square(y - 0.3))
        found.append([y, *tape.gradient(loss, network.trainable_variables)])
    (expected, *gradients), (received, *others) = found
    np.testing.assert_allclose(received, expected, atol=1e-4)
    rounding = 1e-5 * float(tf.linalg.global_norm(gradients))  # Before a normalisation a bias has a gradient of 0.
    for expected, received in zip(gradients, others, strict=True):
        # A ReLU near 0 may be on in one and off in the other.
        assert np.linalg.norm(received - expected) <= 0.01 * np.linalg.norm(expected) + rounding


def test_a_network_without_residual_blocks_comes_back():
    network = albunet((32, 32, 4, 3))
    assert fused_graph(network, rematerialise=True) is network


def test_sums_are_exact_where_keras_s_mean_is_not():
    random = np.random.default_rng(0)
    x = (random.standard_normal((1, 96, 96, 96, 8), dtype=np.float32) + 2) * np.float32(3)
    exact = (x.astype(np.float64) - x.mean(dtype=np.float64)) / np.sqrt(x.var(dtype=np.float64) + 1e-3)
    ones, zeros = tf.ones(8), tf.zeros(8)
    ours = normalise_and_rectify(tf.constant(x), ones, zeros, groups=1, epsilon=1e-3)
    np.testing.assert_allclose(ours, np.maximum(exact, 0), atol=2e-5)
