"""Builds and compiles a network for its trainings, with what runs it between their steps."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from brats_tf.config.config import Config
from brats_tf.errors import InputError
from brats_tf.inference.predictor import compiled_forward, compiled_planes
from brats_tf.models.build import build_network, build_with_weights, classifier_hash
from brats_tf.models.planes import has_planes, with_planes
from brats_tf.training.loop import Trainer, make_trainer


@dataclass
class ReadyNetwork:
    """A compiled network and what its trainings share.

    Attributes:
        config: of the first training.
        origin: of the initial weights, in words.
        classifier_sha256: of the initial weights of the ImageNet classifier.
        lacking: why there are no initial weights, of trainings that go on from a checkpoint; None where there are.
        start: the state from which every training starts; empty where only one follows.
        forward: a function that runs the network, compiled once.
        planes_of: likewise for its planes; None for a network without planes.
    """

    config: Config
    network: keras.Model
    trainer: Trainer
    origin: str
    classifier_sha256: str
    lacking: InputError | None
    start: list
    forward: Callable
    planes_of: Callable | None


def make_ready(config, strategy, before=None, *, keep_start=True, begun=False):
    """Builds and compiles, or returns the network of the previous run to where it started.

    A training that has `begun` needs no initial weights any more.
    """
    if before and built_alike(before.config, config):
        for variable, value in zip(before.trainer.state if before.start else [], before.start, strict=True):
            variable.assign(value)
        return before
    keras.utils.clear_session()
    with strategy.scope():
        keras.utils.set_random_seed(config.seed)
        network, origin, lacking = _initial(config, begun)
        trainer = make_trainer(with_planes(network, keep=config.compute.keep), config)
    trainer.prepare(strategy, jit=config.compute.jit)
    start = [keras.ops.convert_to_numpy(variable) for variable in trainer.state] if keep_start else []
    forward, planes_of = between_steps(config, network)
    return ReadyNetwork(config, network, trainer, origin, classifier_hash(network), lacking, start, forward, planes_of)


def _initial(config, begun):
    """(network, origin of its weights, why it has no initial ones: only of a training that has `begun`)."""
    origin, lacking = f"the weights of {config.training.start_from}", None  # Which `train` fills in.
    if not config.training.start_from:
        try:
            return *build_with_weights(config), None
        except InputError as error:
            if not begun:
                raise
            origin, lacking = "weights of before", error
    return build_network(config, precision=config.compute.precision), origin, lacking


def between_steps(config, network):
    """`forward` and `planes_of` of a `ReadyNetwork`: in float32, as predictions are, whatever `precision` says."""
    twin = None if config.compute.precision == "float32" else build_network(config)
    graph = with_planes(network if twin is None else twin)

    def up_to_date(function):
        def run(*arguments):
            for mine, theirs in zip(twin.weights, network.weights, strict=True):
                mine.assign(theirs)
            return function(*arguments)

        return function if twin is None else run

    forward = compiled_forward(keras.Model(graph.inputs[0], graph.outputs[0]))
    planes_of = compiled_planes(graph) if has_planes(network) else None
    return up_to_date(forward), planes_of and up_to_date(planes_of)


def built_alike(first, second):
    """Whether two configs describe the same network and training, whatever the modalities are called."""
    same_count = len(first.data.modalities) == len(second.data.modalities)
    return same_count and first == second.replace(modalities=first.data.modalities)
