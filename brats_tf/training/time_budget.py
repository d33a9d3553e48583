"""How many epochs fit into the minutes that a training may take, so that its learning rate reaches its end in time."""

import logging
import math
import time

import numpy as np

from brats_tf.errors import InputError
from brats_tf.inference.predictor import Predictor
from brats_tf.training.distribution import agree, machines

log = logging.getLogger(__name__)
PROBED_STEPS = 3  # Behind the first, which also traces.
SHARE = 0.9  # Of the minutes; the rest is for a machine that slows down, checkpoints and figures.
WARMUP_SHARE = 4  # A warm-up takes at most a quarter of the epochs.


def with_epochs(config, epochs):
    """The config with so many epochs, and a warm-up that takes no larger share than `WARMUP_SHARE` allows."""
    return config.replace(epochs=epochs, warmup_epochs=min(config.training.warmup_epochs, epochs // WARMUP_SHARE))


def epochs_for(deadline, data, ready, strategy, *, networks=1):
    """How many epochs of a `TrainingData` each of some `networks` can train until `deadline`, by `time.monotonic`.

    Measured on a few steps that leave no trace, but take their time. `ready` is the `ReadyNetwork` with its `start`.

    Raises:
        InputError: when not even one epoch fits.
    """
    found = measured(data, ready, strategy)
    left = (deadline - time.monotonic()) / networks
    step, validation, seconds = (value / machines() for value in agree(strategy, *found, left))
    epoch, scoring = step * data.length.steps, validation * len(data.validation)
    epochs = _most_epochs(SHARE * seconds, epoch, scoring, data.config.training.validation_frequency or 1)
    if not epochs:
        raise InputError(
            f"`minutes` must leave {_figure((epoch + scoring) / SHARE / 60)} for an epoch of each network, "
            f"{_figure(step)} s a step. Received: {_figure(max(0, seconds) / 60)} after the preparations."
        )
    log.info(
        f"{_figure(step)} s a step: {epochs} epoch(s) of {data.length.steps} steps fit into the "
        f"{_figure(seconds / 60)} minutes that are left."
    )
    return epochs


def _figure(value):
    """A number in words, with two digits that count or more.

    >>> _figure(0.0123), _figure(2.14), _figure(326.6)
    ('0.012', '2.1', '327')
    """
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _most_epochs(seconds, epoch, scoring, frequency):
    """How many epochs fit, of so many seconds each, with the scoring after every `frequency`-th and the last one.

    >>> _most_epochs(25, 3, 5, 1), _most_epochs(25, 3, 5, 4), _most_epochs(7, 3, 5, 1)
    (3, 5, 0)
    """
    most = max(0, int(seconds / (epoch + scoring / frequency)))  # If the last one came at its turn.
    times = math.ceil(most / frequency)
    fitting = (min(count * frequency, (seconds - count * scoring) / epoch) for count in (times, times - 1))
    return max(0, *map(int, fitting))


def measured(data, ready, strategy):
    """Seconds of a training step and of a validation case; afterwards the network is as it was."""
    batches, trainer = data.batches(strategy, (0, 0)), ready.trainer
    first = next(batches)
    trainer.step(first)
    trainer.logs()  # Waits for the step.
    started = time.monotonic()
    for _ in range(PROBED_STEPS):
        trainer.step(next(batches, first))
        trainer.logs()
    step = (time.monotonic() - started) / PROBED_STEPS
    for variable, value in zip(trainer.state, ready.start, strict=True):
        variable.assign(value)
    predictor = Predictor(data.config, ready.network, ready.forward)
    predictor.predict(np.ones(data.config.input_shape, np.float32))  # Traces; windows without any brain are left out.
    if not data.validation:  # What was traced makes the pictures of the log.
        return step, 0.0
    started = time.monotonic()
    _, volume, _ = data.displayed_case()  # Of validation, whose cases are read anew each time.
    predictor.predict(volume)
    return step, time.monotonic() - started
