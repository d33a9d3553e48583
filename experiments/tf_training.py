"""Trains a network of this package with TensorFlow as `jax_training` does with JAX: a counterpart of its `Training`."""

import keras
import numpy as np
import tensorflow as tf
from recipes import BRIGHTNESS

from brats_tf.inference.predictor import compiled_forward
from brats_tf.models.build import build_network
from brats_tf.models.planes import blinded, with_planes
from brats_tf.training.loop import make_trainer
from brats_tf.training.optimisation import averaged_weights


class TfTraining:
    """A network in training by the steps of `brats-tf train`; loss, augmentation and rate are those of a `Recipe`.

    There is no weight decay. A recipe without a loss takes that of the config.
    """

    def __init__(self, network, config, recipe, seed=0):
        if recipe.ema:
            config = config.replace(weight_averaging="ema")
        if getattr(config.network, "classifier_rate", 1.0) != recipe.classifier_rate:
            config = config.replace(classifier_rate=recipe.classifier_rate)
        self.network, self.config, self.recipe, self.done = network, config, recipe, 0
        self.trainer = make_trainer(with_planes(network, keep=config.compute.keep), config, recipe.loss)
        if recipe.ema:
            self.trainer.optimizer.ema_momentum = recipe.ema
        self.trainer.prepare(tf.distribute.get_strategy(), jit=False)
        self.random = np.random.default_rng(seed)
        warmup = {"warmup_target": recipe.learning_rate, "warmup_steps": recipe.warmup} if recipe.warmup else {}
        first = 0.0 if recipe.warmup else recipe.learning_rate
        steps = recipe.steps - recipe.warmup
        self.rate = keras.optimizers.schedules.CosineDecay(first, steps, alpha=recipe.final_rate, **warmup)

    def on_device(self, *arrays):
        """The arrays where `run` wants them."""
        return arrays

    def run(self, volumes, classes, indices):
        """One step for each of `indices` into volumes (N, H, W, D, C) and classes (N, H, W, D).

        Returns:
            {"loss", "dice" (steps, 3), and of a network with planes "planes_live", "planes_std", "squeeze_gradient"}.
        """
        found = []
        for index in indices:
            self.trainer.optimizer.learning_rate = float(self.rate(self.done))
            self.trainer.reset_metrics()
            volume, labels = self._augmented(volumes[index].astype(np.float32), classes[index])
            seeds = tf.constant(self.random.integers(2**31, size=(1, 2)))  # Of the preset's augmentation.
            batch = (tf.constant(volume[None]), tf.constant(labels[None]), seeds)
            self.trainer.step(batch)
            self.done += 1
            found.append(self.trainer.logs())
        dice = [[one[f"dice_{region}"] for region in ("wt", "tc", "et")] for one in found]
        names = [name for name in ("loss", "planes_live", "planes_std", "squeeze_gradient") if name in found[0]]
        return {name: np.array([one[name] for one in found]) for name in names} | {"dice": np.array(dice)}

    def predict(self, volumes, *, blind=False):
        """Probabilities (N, H, W, D, K) float32 of volumes (N, H, W, D, C), computed in float32.

        By averaged weights where there are any; K is 3 of a network of regions, whose further heads are left out.
        """
        network = build_network(self.config)
        with averaged_weights(self.trainer.optimizer):
            network.set_weights(self.network.get_weights())
        forward = compiled_forward(blinded(network) if blind else network)
        found = (forward(None, volume[None].astype(np.float32))[..., : self.recipe.channels] for volume in volumes)
        return np.concatenate(list(found))

    def _augmented(self, volume, classes):
        axes = [axis for axis in self.recipe.mirror if self.random.random() < 0.5]
        volume, classes = np.flip(volume, axes), np.flip(classes, axes)
        if self.recipe.brightness:
            scale, shift = self.random.uniform(-BRIGHTNESS, BRIGHTNESS, (2, volume.shape[-1])).astype(np.float32)
            volume = np.where(volume != 0, volume * (1 + scale) + shift, np.float32(0))
        if self.random.random() < self.recipe.modality_dropout:
            volume = volume * (np.arange(volume.shape[-1]) != self.random.integers(volume.shape[-1]))
        return np.ascontiguousarray(volume, np.float32), np.ascontiguousarray(classes)
