"""What happens beside a training: the files of the run, the progress bar, the stop at NaN.

Callbacks that a later process must go on from have `remembered()`, as JSON can hold it, and `recall(memory)`.
"""

import csv
import signal
import time

import keras
import numpy as np

from brats_tf.config.settings import BEST_FILE, WEIGHTS_FILE
from brats_tf.errors import InputError, Stopped
from brats_tf.regions import REGIONS
from brats_tf.runs.history import HISTORY_FILE, VALIDATION_DICE
from brats_tf.runtime.console import console, say
from brats_tf.runtime.files import atomic
from brats_tf.runtime.program import listening


class StopWithoutNumber(keras.callbacks.Callback):
    """Ends a training whose loss became NaN or infinite; weights and checkpoints of before stay.

    Args:
        cases_of: (epoch, step) -> the names of the cases in that batch.
    """

    def __init__(self, cases_of):
        super().__init__()
        self.cases_of, self.epoch = cases_of, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise InputError(
                f"The loss must be a number; received {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}, at "
                f"{', '.join(self.cases_of(self.epoch, batch))}. The weights after the last complete epoch, if there "
                "was one, are kept. A lower --learning-rate may help; `brats-tf prepare --verify` checks the cases."
            )

    def on_epoch_end(self, epoch, logs=None):
        check_weights(self.model)


def check_weights(network):
    """Raises `InputError` when a step with a finite loss left weights that are no numbers; before they are saved."""
    for weight in network.trainable_variables:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise InputError(
                f"Weights must be numbers; received NaN or infinity in {weight.path}. The last good state is kept. A "
                "lower --learning-rate may help."
            )


class History(keras.callbacks.Callback):
    """Writes `history.csv`, a line an epoch, complete after each; Keras's CSVLogger cannot take lines back."""

    def __init__(self, run, *, writes=True):
        super().__init__()
        self.path, self.rows, self.writes = run / HISTORY_FILE, [], writes

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch} | {name: logs[name] for name in sorted(logs) if VALIDATION_DICE not in name})
        if not self.writes:
            return
        with atomic(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)

    def remembered(self):
        """All lines."""
        return {"rows": self.rows}

    def recall(self, memory):
        """The counterpart of `remembered`."""
        self.rows = memory["rows"]


class SaveWeights(keras.callbacks.Callback):
    """Saves the weights after each epoch, without the optimiser's state; the file is always a complete one.

    Where cases are validated, those of the best epoch are kept in a second file.

    Args:
        run: the run's folder.
        network: whose weights are trained.
        averaged: a context manager in which the network has the weights to save.
    """

    def __init__(self, run, network, averaged, *, writes=True):
        super().__init__()
        self.run, self.averaged, self.best, self.writes = run, averaged, None, writes
        # The same layers without the optimiser, whose moments would make the file three times as large.
        self.bare = keras.Model(network.inputs, network.outputs)

    def on_epoch_end(self, epoch, logs=None):
        with self.averaged():
            self._save(self.run / WEIGHTS_FILE)
            score = (logs or {}).get(VALIDATION_DICE)
            if score is not None and (self.best is None or score > self.best[1]):
                self.best = (epoch + 1, score)
                self._save(self.run / BEST_FILE)

    def remembered(self):
        """The best epoch, from 1, and its score."""
        return {"best": self.best}

    def recall(self, memory):
        """The counterpart of `remembered`."""
        self.best = memory["best"] and tuple(memory["best"])

    def _save(self, path):
        if not self.writes:
            return
        with atomic(path) as temporary:
            try:
                self.bare.save_weights(temporary)
            except RuntimeError as error:  # What h5py makes of a full disk when it closes the file.
                raise OSError(str(error)) from error


class SaveCheckpoint(keras.callbacks.Callback):
    """Saves a checkpoint after each epoch, every so many minutes, and when the process is told to stop.

    Args:
        checkpoints: `checkpoints.Checkpoints`.
        minutes: the longest time that a kill may cost.
        agree: (told to stop, minutes are over) -> the same for all machines, as numbers.

    Attributes:
        others: what has memories that belong to it.
        is_long: (epoch) -> whether much follows its last step, so that it is saved before.
    """

    def __init__(self, checkpoints, *, minutes, agree):
        super().__init__()
        self.checkpoints, self.seconds, self.agree = checkpoints, 60 * minutes, agree
        self.others, self.is_long = [], lambda epoch: False
        self.told, self.epoch, self.last = None, 0, time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        stop, due = self.agree(self.told is not None, time.monotonic() - self.last >= self.seconds)
        last = batch + 1 == self.params["steps"]
        if stop or (self.is_long(self.epoch) if last else due):
            check_weights(self.model)
            self._save(self.epoch, batch + 1)
        if stop:
            self._stop(self.epoch, batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        (stop,) = self.agree(self.told is not None)
        self._save(epoch + 1, 0)
        if stop and epoch + 1 < self.params["epochs"]:
            self._stop(epoch + 1, 0)

    def stop_if_told(self):
        """For the long work after an epoch's last step, which is saved."""
        if self.told:
            self._stop(self.epoch, self.params["steps"])

    def _save(self, epoch, step):
        memories = {type(one).__name__: one.remembered() for one in self.others if hasattr(one, "remembered")}
        self.checkpoints.save(epoch, step, memories)
        self.last = time.monotonic()

    def _stop(self, epoch, step):
        done = f"{epoch} epochs" + (f" and {step} steps" if step else "")
        raise Stopped(
            f"Stopped by {self.told or 'another machine'} after {done}; everything is saved. The same command goes on "
            "from there."
        )

    def listening(self):
        """Inside it, the signals of a scheduler end the training after the step that runs."""

        def tell(number, frame):
            self.told = signal.Signals(number).name

        return listening(tell)


class ShowProgress(keras.callbacks.Callback):
    """A bar over all steps with loss, Dice, rate and time left; where there is no terminal, one line an epoch."""

    def __init__(self, name, bar, *, steps, done=0):
        super().__init__()
        self.name, self.bar, self.steps, self.done = name, bar, steps, done

    def on_train_begin(self, logs=None):
        self.task = self.bar.add_task(f"Training {self.name}", total=self.steps, completed=self.done, note="compiling")

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(self.task, advance=1, note=_scores(logs))

    def on_epoch_end(self, epoch, logs=None):
        if not console.is_terminal:
            say(f"{self.name} epoch {epoch + 1}/{self.params['epochs']}: {_scores(logs)}")


def _scores(logs):
    dice = " ".join(f"{region} {logs[f'dice_{region.lower()}']:.2f}" for region in REGIONS)
    return f"loss {logs['loss']:.2f} {dice} lr {logs['learning_rate']:.1g}"
