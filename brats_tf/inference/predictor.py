"""A trained network that predicts whole volumes: at once, or in sliding windows when it sees patches."""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from brats_tf.config.config import Config
from brats_tf.inference.sliding_window import Windows, sliding_window_inference
from brats_tf.models.outputs import BACKGROUND
from brats_tf.models.planes import blinded, has_planes
from brats_tf.models.registry import get_network
from brats_tf.runs.stored_weights import StoredWeights
from brats_tf.runtime.tensorflow import free_graphs

SMALLEST_PROBABILITY = 1e-30  # That has a logarithm here.
LEFT_RIGHT = 1  # The axis of (H, W, D) along which the brain is nearly symmetric.
# The axes along which each image of a volume is mirrored, by the setting `mirror`.
MIRRORED = {
    "none": [()],
    "lr": [(), (LEFT_RIGHT,)],
    "all": [axes for count in range(4) for axes in itertools.combinations(range(3), count)],
}


@dataclass
class Predictor:
    """One network of an ensemble: its config, the function that runs it, and its weights.

    Without weights it runs with those that the network has at that moment, as during training.
    """

    config: Config
    network: keras.Model
    run_network: Callable
    weights: StoredWeights | None = None
    weights_sha256: str | None = None
    run: Path | None = None  # Its run's folder.
    label: str | None = None  # Its name in records, where that is not the folder's.
    checkpoint: str = "last"
    initial_weights: str = "unknown"  # Where the training began, in words.
    precision: str = "float32"  # Of the layers.
    mirror: str = "none"  # A key of `MIRRORED`.
    chosen_on: tuple = ()  # The ids of the validation cases that chose the checkpoint or lowered the learning rate.
    trained_on: frozenset = frozenset()  # The ids of the cases that it was trained on, as far as known.

    @property
    def name(self):
        """Its name in records: that of its run's folder."""
        return self.label or (self.run.name if self.run else self.config.run_name)

    @property
    def facts(self):
        """What `prediction.json` says of it besides the hash of its weights."""
        origin = {"run": os.path.abspath(self.run) if self.run else "", "checkpoint": self.checkpoint}
        return origin | {"initial_weights": self.initial_weights, "chosen_on": list(self.chosen_on)}

    @property
    def outputs(self):
        """Overlapping "regions" (WT, TC, ET) or exclusive "classes"."""
        return get_network(self.config.network.name).outputs

    def predict(self, volume):
        """Probabilities of one volume: (H, W, D, C) -> (H, W, D, 3) regions or (H, W, D, 4) classes, float32.

        With `mirror` the mean over the volume and its mirror images, each mirrored back.
        """
        images = MIRRORED[self.mirror]
        if len(images) == 1:
            return self._predict(volume)
        back = (np.flip(self._predict(np.ascontiguousarray(np.flip(volume, axes))), axes) for axes in images)
        return sum(back, np.float32(0)) / np.float32(len(images))

    def _predict(self, volume):
        config = self.config
        if config.data.patch_size is None:
            return self.run_network(self.weights, volume[None])[0]
        windows = Windows(config.data.patch_size, config.window_stride, config.inference.window_weighting)
        if config.inference.window_average == "probabilities":
            run = lambda patches: self.run_network(self.weights, patches)  # noqa: E731
            return sliding_window_inference(run, volume, windows, outside=BACKGROUND[self.outputs])
        # Up to a number that all classes of a voxel share, which softmax removes again.
        run = lambda patches: _logits(self.run_network(self.weights, patches))  # noqa: E731
        averaged = np.exp(sliding_window_inference(run, volume, windows, outside=_logits(BACKGROUND[self.outputs])))
        return averaged / averaged.sum(axis=-1, keepdims=True)


def compiled_planes(graph):
    """A function (volume (H, W, D, C), slice) -> the planes into the classifier and those into a 3D decoder, if any.

    Both are lists of (H, W). Where the classifier has an image for each slab of slices, they are those of the slice's
    slab. `graph` is a `planes.with_planes` of a network that has planes.
    """
    model = keras.Model(graph.inputs[0], graph.outputs[1:])
    forward = tf.function(lambda volumes: tf.nest.flatten(model(volumes, training=False)), autograph=False)

    def planes_of(volume, depth):
        found = [planes[0].numpy() for planes in forward(tf.constant(volume[None]))]
        ours = [one[:, :, depth * one.shape[2] // volume.shape[2]] if one.ndim == 4 else one for one in found]
        return [list(np.moveaxis(planes, -1, 0)) for planes in ours]

    return planes_of


def compiled_forward(network, *, blind=False, any_batch=False):
    """A function (`StoredWeights` or None, volumes (B, H, W, D, C)) -> probabilities (B, H, W, D, K), compiled once.

    B is 1 for a network with planes, unless `any_batch` leaves it free.

    With `blind` the classifier sees nothing of the volume, see `planes.blinded`.
    """
    graph = blinded(network) if blind else network
    # Whole volumes pass one by one, for which normalisation has a faster form; windows pass in batches.
    shape = (1, *network.input.shape[1:]) if has_planes(network) and not any_batch else network.input.shape
    forward = tf.function(
        lambda volumes: graph(volumes, training=False), input_signature=[tf.TensorSpec(shape)], autograph=False
    )
    current: list = []

    def run(weights, volumes):
        if weights is not None and (not current or current[0] is not weights):
            current.clear()  # If it fails, the network has weights of two.
            weights.assign_to(network)
            current.append(weights)
        with free_graphs():
            return forward(tf.constant(volumes)).numpy()

    return run


def _logits(probabilities):
    return np.log(np.maximum(probabilities, SMALLEST_PROBABILITY))
