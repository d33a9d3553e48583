"""Averages of the weights over a training, to be kept instead of the last step's: neither paper has them."""

from contextlib import contextmanager

import keras
from keras import ops

MOMENTUM = 0.999  # Of the exponential moving average, over steps; less in the first ones.
SWA_FROM = 0.75  # Of the epochs; from there on the weights after each count alike (Izmailov et al. 2018).


class Average(keras.callbacks.Callback):
    """Keeps an average of the trained weights in variables of its own, as float32.

    Statistics of batch norm are those of the last step.

    Args:
        network: the network that trains.
        kind: "ema", the exponential moving average over steps, or "swa", the mean over the last quarter's epochs.
        epochs: how many there are.
    """

    def __init__(self, network, kind, epochs):
        super().__init__()
        self.kind, self.first, self.weights = kind, int(SWA_FROM * epochs), network.trainable_variables
        self.means = [
            keras.Variable(ops.copy(weight), trainable=False, name=f"mean_{number}")
            for number, weight in enumerate(self.weights)
        ]
        self.count = keras.Variable(0.0, trainable=False, name="mean_count")

    @property
    def variables(self):
        """All of them, for checkpoints."""
        return [*self.means, self.count]

    def on_train_batch_end(self, batch, logs=None):
        if self.kind == "ema":
            count = float(self.count)
            self._move(1 - min(MOMENTUM, (1 + count) / (10 + count)))

    def on_epoch_end(self, epoch, logs=None):
        if self.kind == "swa" and epoch >= self.first:
            self._move(1 / (float(self.count) + 1))

    @contextmanager
    def applied(self):
        """Inside it the network has the average."""
        if not float(self.count):
            yield
            return
        last = [ops.copy(weight) for weight in self.weights]
        _assign(self.weights, self.means)
        try:
            yield
        finally:
            _assign(self.weights, last)

    def _move(self, share):
        _assign(
            self.means, [mean + share * (weight - mean) for mean, weight in zip(self.means, self.weights, strict=True)]
        )
        self.count.assign(self.count + 1)


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
