"""The classifier of an embedding sees something, and a training says so when it does not."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.models import planes as planes_of_network
from brats_tf.models.build import build_network, build_with_weights
from brats_tf.models.losses import CrossEntropyMinusDice
from brats_tf.models.planes import blinded, with_planes
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import classes_to_regions
from brats_tf.training.loop import make_trainer
from brats_tf.training.pulse import WatchPulse


def config(**changes):
    settings = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none"} | changes
    return Config.from_preset("embedding", modalities=("flair",), **settings)


def batch(case):
    prepared = prepare_case(case, modalities=("flair",), crop=TINY_CROP, with_truth=True)
    return tf.constant(prepared.volume[None]), tf.constant(prepared.classes[None]), tf.zeros((1, 2), tf.int64)


@pytest.fixture(scope="module")
def training(phantoms):
    """The graph of a tiny network, its trainer, and batches; frozen batch norm and no input scaling, with which one
    filter and a ReLU died within a dozen steps."""
    keras.utils.set_random_seed(0)
    settings = config(learning_rate=1e-3, input_scaling="none")
    graph = with_planes(build_with_weights(settings)[0])
    trainer = make_trainer(graph, settings)
    trainer.prepare(tf.distribute.get_strategy(), jit=False)
    return graph, trainer, [batch(case) for case in phantoms]


def step(trainer, batch):
    trainer.reset_metrics()
    trainer.step(batch)
    return trainer.logs()


@pytest.mark.slow
def test_the_gradient_of_the_pulse_is_that_of_the_loss(training):
    graph, trainer, ((volume, classes, seeds), *_) = training
    weights = [weight.value for weight in graph.trainable_variables if weight.path.startswith("squeeze4_")]
    assert len(weights) == 10
    target = classes_to_regions(classes.numpy()).astype("float32")
    with tf.GradientTape() as tape:
        loss = CrossEntropyMinusDice()(target, graph(volume, training=True)[0])
    expected = float(tf.linalg.global_norm(tape.gradient(loss, weights)))
    logs = step(trainer, (volume, classes, seeds))
    assert logs["squeeze_gradient"] == pytest.approx(expected, rel=1e-3)
    assert logs["loss"] == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.large
def test_the_last_block_of_the_squeeze_still_learns_after_twenty_steps(training):
    graph, trainer, batches = training
    start = step(trainer, batches[0])["planes_std"]
    for number in range(1, 20):
        logs = step(trainer, batches[number % len(batches)])
        assert logs["squeeze_gradient"] > 0 and logs["planes_live"] > 0.9, (number, logs)
    assert logs["planes_std"] > 0.3 * start
    seeing, blind = (one(batches[0][0])[0].numpy() for one in (graph, blinded(graph)))
    assert np.abs(seeing - blind).max() > 1e-3


def test_a_blinded_classifier_sees_nothing_of_the_volume():
    network = build_network(config())
    planes = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    blind = planes_of_network.MeanOfPlanes()(planes)
    np.testing.assert_allclose(blind, np.broadcast_to(planes.mean(axis=(1, 2), keepdims=True), planes.shape), atol=1e-6)
    graph = blinded(network)
    assert {id(weight) for weight in graph.weights} == {id(weight) for weight in network.weights}


@pytest.mark.parametrize(
    ("live", "deviation", "gradient", "warns"),
    [(0.5, 1.0, 0.1, False), (0.0, 0.0, 0.0, True), (0.5, 0.005, 0.1, True), (0.5, 1.0, 0.0, True)],
)
def test_a_collapse_is_a_warning(live, deviation, gradient, warns, capsys):
    watch, resumed = WatchPulse("flair"), WatchPulse("flair")
    watch.on_train_batch_end(0, {"planes_std": 1.0})
    resumed.restore(watch.state())
    resumed.on_epoch_end(0, {"planes_live": live, "planes_std": deviation, "squeeze_gradient": gradient})
    assert ("flair epoch 1: the classifier sees next to nothing" in capsys.readouterr().out) == warns
