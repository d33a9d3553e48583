"""A trained network that predicts whole volumes: at once, or in sliding windows when it sees patches."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from brats_tf.config.settings import Config
from brats_tf.inference.sliding_window import slide
from brats_tf.models.registry import get_network
from brats_tf.regions import CLASSES, REGIONS, THRESHOLD, regions_to_classes

# What is outside the brain, by what a network's channels are; and the smallest probability that has a logarithm here.
BACKGROUND = {"regions": np.zeros(len(REGIONS)), "classes": np.eye(len(CLASSES))[0]}
LEAST = 1e-30
TAPPED = ("planes", "decoded_planes")  # From the 3D encoder, and into the 3D decoder (models.interslice, .decoders).


@dataclass
class Member:
    """One network of an ensemble: its config, the function that runs it, and its weights as arrays.

    Without weights it runs with those that the network has at that moment, as during training.
    """

    config: Config
    network: keras.Model
    run_network: callable
    weights: list | None = None
    weights_sha256: str | None = None
    folder: str | None = None  # The name of its run's folder.

    @property
    def name(self):
        """What it is called in records: its folder's name."""
        return self.folder or self.config.run_name

    @property
    def outputs(self):
        """Overlapping "regions" (WT, TC, ET) or exclusive "classes"."""
        return get_network(self.config.network).outputs

    def predict(self, volume):
        """Probabilities of one volume: (H, W, D, C) -> (H, W, D, 3) regions or (H, W, D, 4) classes."""
        if self.config.patch is None:
            return self.run_network(self.weights, volume[None])[0]
        logits = self.config.window_average == "logits"

        def predict(windows):
            probabilities = self.run_network(self.weights, windows)
            # Up to a number that all classes of a voxel share, which softmax takes out again.
            return np.log(np.maximum(probabilities, LEAST)) if logits else probabilities

        outside = BACKGROUND[self.outputs]
        averaged = slide(
            predict,
            volume,
            patch=self.config.patch,
            step=self.config.window_step,
            outside=np.log(np.maximum(outside, LEAST)) if logits else outside,
            weighting=self.config.window_weights,
        )
        if logits:
            averaged = np.exp(averaged)
            averaged /= averaged.sum(axis=-1, keepdims=True)
        return averaged


def to_classes(probabilities, outputs):
    """The likeliest class, or the regions above the threshold painted over each other: (H, W, D, K) -> (H, W, D)."""
    if outputs == "classes":
        return probabilities.argmax(axis=-1).astype(np.uint8)
    return regions_to_classes(probabilities > THRESHOLD)


def planes_of(network, volume):
    """The planes from the 3D encoder and into the 3D decoder of paper A: (H, W, D, C) -> two lists of (H, W)."""
    outputs = [network.get_layer(name).output for name in TAPPED]
    planes = keras.Model(network.inputs, outputs).predict([volume[None]], verbose=0)
    return [list(np.moveaxis(its[0], -1, 0)) for its in planes]


def runner(network):
    """A function (weights or None, volumes (B, H, W, D, C)) -> probabilities (B, H, W, D, K), compiled once."""
    forward = tf.function(
        lambda volumes: network(volumes, training=False), input_signature=[tf.TensorSpec(network.input.shape)]
    )
    current = []

    def run(weights, volumes):
        if weights is not None and current[:1] != [id(weights)]:
            network.set_weights(weights)
            current[:] = [id(weights)]
        return forward(tf.constant(volumes)).numpy()

    return run
