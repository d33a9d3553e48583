"""The learning rate over a training: the paper's plateau, a cosine, a warm-up."""

import math
from functools import partial

import keras

from brats_tf.runs.history import VALIDATION_DICE

PLATEAU_FACTOR = 0.1  # Paper A, Section 2.5: "reduced by a factor of 10".


def rate_of(config):
    """The callback that has the learning rate in hand."""
    if config.schedule != "plateau":
        return keras.callbacks.LearningRateScheduler(partial(rate_at, config))
    if config.plateau_on == "loss":
        return Plateau(monitor="loss", mode="min", patience=config.plateau_epochs)
    patience = math.ceil(config.plateau_epochs / config.validate_every)
    return Plateau(monitor=VALIDATION_DICE, mode="max", patience=patience)


def rate_at(config, epoch, rate=None):
    """The learning rate of an epoch, from 0: rising to the config's in `warm_up` epochs, then constant or a cosine.

    The cosine comes to 0 after the last epoch.
    """
    if epoch < config.warm_up:
        return config.learning_rate * (epoch + 1) / (config.warm_up + 1)
    if config.schedule == "constant":
        return config.learning_rate
    done = (epoch - config.warm_up) / (config.epochs - config.warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras's, which goes on counting where a training goes on, and counts the epochs that have its monitor alone."""

    def __init__(self, **settings):
        super().__init__(factor=PLATEAU_FACTOR, min_delta=0.0, **settings)

    def on_train_begin(self, logs=None):
        """Resets nothing: `recall` comes before."""

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor in logs:
            super().on_epoch_end(epoch, logs)

    def remembered(self):
        """Keras keeps these outside of every variable."""
        return {"wait": self.wait, "best": None if self.best is None else float(self.best)}

    def recall(self, memory):
        """The counterpart of `remembered`."""
        self.wait, self.best = memory["wait"], memory["best"]
