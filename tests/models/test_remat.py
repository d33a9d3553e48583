"""Rematerialisation changes neither layers nor numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from tiny_networks import TINY_CROP

from brats_tf.models.albunet import albunet
from brats_tf.models.embedding import embedding_network
from brats_tf.models.plus import plus_network
from brats_tf.models.remat import rematerialised

SHAPES = {embedding_network: (*TINY_CROP, 1), plus_network: (64, 64, 8, 4)}
MADE_AGAIN = {"stem_conv", "squeeze1_pool", "squeeze2_pool", "spread1_up", "spread1_skip"}


@pytest.mark.parametrize("build", SHAPES)
@pytest.mark.parametrize("keep", ["step", "block"])
@pytest.mark.slow
def test_a_network_keeps_its_weights_and_its_numbers(keep, build):
    keras.utils.set_random_seed(0)
    network = build(SHAPES[build], backbone="tiny")
    graph = rematerialised(network, keep)
    assert {id(one) for one in graph.trainable_variables} == {id(one) for one in network.trainable_variables}
    volume = tf.constant(np.random.default_rng(0).normal(size=(1, *SHAPES[build])), tf.float32)
    found = []
    for one in (network, graph):
        with tf.GradientTape() as tape:
            y = one(volume, training=True)
            loss = ops.sum(ops.square(y - 0.3))
        found.append([y, *tape.gradient(loss, network.trainable_variables)])
    for expected, received in zip(*found, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max() + 1e-7)


@pytest.mark.parametrize("keep", ["step", "block"])
def test_what_a_block_is_made_of_is_made_again_with_it(keep):
    network = embedding_network((*TINY_CROP, 1), backbone="tiny")
    names = {layer.name for layer in rematerialised(network, keep).layers}
    blocks = {layer.name[:-4] for layer in network.layers if layer.name.endswith("_add")}
    assert len(blocks) == 13
    assert {f"{block}_remat" for block in blocks} <= names
    assert not any(name.startswith(tuple(blocks)) and name.endswith(("_conv1", "_add")) for name in names)
    assert MADE_AGAIN & names == (set() if keep == "block" else MADE_AGAIN)
    assert ("tiny_remat" in names, "tiny" in names) == (keep == "block", keep == "step")


@pytest.mark.parametrize("changes", [{"batch_norm": "batch"}, {"stochastic_depth": True}])
def test_a_classifier_whose_second_pass_would_differ_is_computed_once(changes):
    network = plus_network((32, 32, 8, 4), **changes)
    names = {layer.name for layer in rematerialised(network, "block").layers}
    assert "efficientnetb0" in names and "efficientnetb0_remat" not in names


def test_a_network_without_residual_blocks_comes_back():
    network = albunet((32, 32, 4, 3))
    assert rematerialised(network, "block") is network


@pytest.mark.parametrize("keep", ["all", "step", "block"])
@pytest.mark.slow
def test_a_training_is_traced_without_branches(keep):
    """With one for each normalisation, Grappler takes ten minutes for the step."""
    shape = (64, 64, 24, 1)
    graph = rematerialised(embedding_network(shape, backbone="tiny"), keep)

    @tf.function(autograph=False)
    def step(volume):
        with tf.GradientTape() as tape:
            loss = ops.sum(graph(volume, training=True))
        return tape.gradient(loss, graph.trainable_variables)

    traced = step.get_concrete_function(tf.TensorSpec((1, *shape))).graph
    assert not [one.name for one in traced.get_operations() if one.type in ("If", "StatelessIf")]
    predicting = tf.function(lambda volume: graph(volume, training=False), autograph=False)
    traced = predicting.get_concrete_function(tf.TensorSpec((1, *shape))).graph
    assert [one.name for one in traced.get_operations() if one.type in ("If", "StatelessIf")]
