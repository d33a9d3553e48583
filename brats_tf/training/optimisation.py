"""Loss, optimiser, learning rate and weight averaging of a training."""

import math
from contextlib import contextmanager

import keras
import tensorflow as tf
from keras import ops

from brats_tf.models.losses import make_loss, region_dice
from brats_tf.models.registry import get_network
from brats_tf.models.remat import classifiers
from brats_tf.regions import REGIONS
from brats_tf.runs.history import VALIDATION_DICE

PLATEAU_FACTOR = 0.1  # Embedding paper, Section 2.5: "reduced by a factor of 10".
EMA_MOMENTUM = 0.999  # Per optimiser update.


class ClassifierRate:
    """An optimiser that multiplies the learning rate of some variables by `factor`; the others keep it.

    Attributes:
        factor: what to multiply by.
        slower: the indices of those variables.
    """

    factor: float = 1.0
    slower: frozenset[int] = frozenset()

    def update_step(self, gradient, variable, learning_rate):
        """One update of one variable."""
        factor = self.factor if self._get_variable_index(variable) in self.slower else 1.0
        super().update_step(gradient, variable, learning_rate * factor)


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with TensorFlow's own kernel: one operation per weight instead of eighteen, the same numbers.

    Tracing a step takes a quarter less time, and the update one pass over weights and moments instead of ten.
    """

    def update_step(self, gradient, variable, learning_rate):
        """One update of one variable."""
        step = ops.cast(self.iterations + 1, "float32")
        moments = (kept[self._get_variable_index(variable)].value for kept in (self._momentums, self._velocities))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            **{name: kept.handle for name, kept in zip("mv", moments, strict=True)},
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )


class Adam(ClassifierRate, FusedAdam):
    """Adam, see both."""


class Nadam(ClassifierRate, keras.optimizers.Nadam):
    """Keras's Nadam, see `ClassifierRate`."""


OPTIMISERS = {"adam": Adam, "nadam": Nadam}


def compile_network(network, config, loss=None):
    """Gives a network a loss (None: the config's), its optimiser and the Dice of each region to monitor."""
    outputs = get_network(config.network.name).outputs
    network.compile(
        optimizer=make_optimiser(config),
        loss=make_loss(config.training, outputs) if loss is None else loss,
        metrics=[region_dice(region, outputs) for region in REGIONS],
        auto_scale_loss=False,
        jit_compile=False,  # XLA is several times slower than oneDNN on a CPU; `Trainer.prepare` has it.
    )
    # Built here, outside the step's graph, its variables do not make TensorFlow trace that graph twice.
    network.optimizer.build(network.trainable_variables)
    inner = getattr(network.optimizer, "inner_optimizer", network.optimizer)
    inner.factor = getattr(config.network, "classifier_rate", 1.0)
    inner.slower = classifier_indices(network)


def classifier_indices(network):
    """The indices of the classifier's variables among a network's trainable ones; empty without a classifier."""
    inside = {id(variable) for layer in classifiers(network) for variable in layer.trainable_variables}
    return frozenset(index for index, one in enumerate(network.trainable_variables) if id(one) in inside)


def make_optimiser(config):
    """The optimiser that a config names, with gradient accumulation and a moving average of the weights if asked."""
    training, parts = config.training, config.training.gradient_accumulation_steps
    settings = {}
    if parts > 1:
        settings["gradient_accumulation_steps"] = parts
    if training.weight_averaging == "ema":
        # Keras averages after every part of a batch. With the root, the parts between two updates, in which the weights
        # stay, together weigh as one average; at a save, the newest update counts by its first part alone.
        settings |= {"use_ema": True, "ema_momentum": EMA_MOMENTUM ** (1 / parts), "ema_overwrite_frequency": None}
    optimiser = OPTIMISERS[training.optimizer](training.learning_rate, **settings)
    if config.compute.precision == "float16":  # Its smallest gradients would be 0.
        optimiser = keras.optimizers.LossScaleOptimizer(optimiser)
    return optimiser


@contextmanager
def averaged_weights(optimiser):
    """Inside it the trained weights are the moving average that the optimiser keeps; without one, nothing changes.

    Keras's `SwapEMAWeights` swaps by adding and subtracting, which is not exact; an exact resume needs copies.
    """
    inner = getattr(optimiser, "inner_optimizer", optimiser)
    if not inner.use_ema or not int(ops.convert_to_numpy(inner.iterations)):
        yield
        return
    weights = inner._trainable_variables
    last = [ops.copy(weight) for weight in weights]
    for weight, mean in zip(weights, inner._model_variables_moving_average, strict=True):
        weight.assign(mean)
    try:
        yield
    finally:
        for weight, value in zip(weights, last, strict=True):
            weight.assign(value)


def learning_rate_callback(training):
    """The callback that sets the learning rate, from `TrainingSettings`."""
    if training.schedule != "plateau":
        return keras.callbacks.LearningRateScheduler(lambda epoch, rate: learning_rate_at(training, epoch))
    if training.plateau_monitor == "loss":
        return ResumableReduceLROnPlateau(monitor="loss", mode="min", patience=training.plateau_patience)
    patience = math.ceil(training.plateau_patience / training.validation_frequency)
    return ResumableReduceLROnPlateau(monitor=VALIDATION_DICE, mode="max", patience=patience)


def learning_rate_at(training, epoch):
    """The learning rate of an epoch, counted from 0: rising in `warmup_epochs`, then constant or a cosine.

    The cosine is Keras's `CosineDecay`, evaluated once per epoch; it reaches 0 after the last one.
    """
    rate, warmup = training.learning_rate, training.warmup_epochs
    if epoch < warmup:
        return rate * (epoch + 1) / (warmup + 1)
    if training.schedule == "constant":
        return rate
    decay = keras.optimizers.schedules.CosineDecay(rate, decay_steps=training.epochs - warmup)
    return float(decay(epoch - warmup))


class ResumableReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau):
    """`ReduceLROnPlateau` whose counters survive a resume and which ignores epochs without the monitored value."""

    name = "learning_rate"

    def __init__(self, **settings):
        super().__init__(factor=PLATEAU_FACTOR, min_delta=0.0, **settings)

    def on_train_begin(self, logs=None):
        """Keeps the counters: `restore` came before."""

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor in logs:
            super().on_epoch_end(epoch, logs)

    def state(self):
        """The counters, which Keras keeps outside of every variable."""
        return {"wait": self.wait, "best": None if self.best is None else float(self.best)}

    def restore(self, state):
        """The counterpart of `state`."""
        self.wait, self.best = state["wait"], state["best"]
