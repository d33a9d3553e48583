"""What happens beside a training: the learning rate, the files of the run, the progress bar, the stop at NaN."""

from contextlib import contextmanager

import keras
import numpy as np

from brats_tf.curves import HISTORY_FILE
from brats_tf.errors import InputError
from brats_tf.files import atomic
from brats_tf.regions import REGIONS
from brats_tf.runs import WEIGHTS_FILE
from brats_tf.screen import console, say

PLATEAU_FACTOR = 0.1  # Paper A, Section 2.5: "reduced by a factor of 10".


@contextmanager
def history_of(run):
    """Keras's CSVLogger, whose file is closed after a failure too."""
    logger = keras.callbacks.CSVLogger(run / HISTORY_FILE)
    try:
        yield logger
    finally:
        if getattr(logger, "csv_file", None):
            logger.csv_file.close()


def callbacks_of(config, run):
    """The callbacks that need nothing but the config and the run's folder."""
    callbacks = [StopWithoutNumber(), SaveWeights(run / WEIGHTS_FILE)]
    if config.plateau_epochs:
        plateau = keras.callbacks.ReduceLROnPlateau(
            monitor="loss", mode="min", factor=PLATEAU_FACTOR, patience=config.plateau_epochs, min_delta=0.0
        )
        callbacks.insert(1, plateau)
    return callbacks


class StopWithoutNumber(keras.callbacks.Callback):
    """Ends a training whose loss became NaN or infinite; the weights of the last good epoch stay."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise InputError(
                f"The loss must be a number; received {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}. The "
                "weights after the last complete epoch, if there was one, are kept. A lower --learning-rate may help."
            )


class SaveWeights(keras.callbacks.Callback):
    """Saves the weights after each epoch, without the optimiser's state; the file is always a complete one."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_begin(self, logs=None):
        # The same layers without the optimiser, whose moments would make the file three times as large.
        self.bare = keras.Model(self.model.inputs, self.model.outputs)

    def on_epoch_end(self, epoch, logs=None):
        with atomic(self.path) as temporary:
            try:
                self.bare.save_weights(temporary)
            except RuntimeError as error:  # What h5py makes of a full disk when it closes the file.
                raise OSError(str(error)) from error


class ShowProgress(keras.callbacks.Callback):
    """A bar over all steps with loss, Dice and time left; where there is no terminal, one line an epoch."""

    def __init__(self, name, bar, steps):
        super().__init__()
        self.name, self.bar, self.steps = name, bar, steps

    def on_train_begin(self, logs=None):
        self.task = self.bar.add_task(f"Training {self.name}", total=self.steps, note="compiling")

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(self.task, advance=1, note=_scores(logs))

    def on_epoch_end(self, epoch, logs=None):
        if not console.is_terminal:
            say(f"{self.name} epoch {epoch + 1}/{self.params['epochs']}: {_scores(logs)}")


def _scores(logs):
    dice = " ".join(f"{region} {logs[f'dice_{region.lower()}']:.2f}" for region in REGIONS)
    return f"loss {logs['loss']:.2f} {dice}"
