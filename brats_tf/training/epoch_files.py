"""What a training shows and writes after each epoch: progress, `history.csv`, weights."""

import csv
import logging

import keras

from brats_tf.regions import REGIONS
from brats_tf.runs.files import BEST_WEIGHTS_FILE, HISTORY_FILE, WEIGHTS_FILE
from brats_tf.runs.history import VALIDATION_DICE
from brats_tf.runs.network import save_weights
from brats_tf.runtime.console import console
from brats_tf.runtime.files import atomic

log = logging.getLogger(__name__)


class History(keras.callbacks.Callback):
    """Writes `history.csv`, one line per epoch, complete after each; Keras's CSVLogger cannot take lines back."""

    name = "history"

    def __init__(self, run, *, writes=True):
        super().__init__()
        self.path, self.rows, self.writes = run / HISTORY_FILE, [], writes

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch} | {name: logs[name] for name in sorted(logs) if VALIDATION_DICE not in name})
        if not self.writes:
            return
        with atomic(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)

    def state(self):
        """All lines."""
        return {"rows": self.rows}

    def restore(self, state):
        """The counterpart of `state`."""
        self.rows = state["rows"]


class SaveWeights(keras.callbacks.Callback):
    """Saves the weights after each epoch, without the optimiser's state; the file is always a complete one.

    Where cases validate, the weights of the best epoch are kept in a second file.

    Args:
        run: the run's folder.
        network: whose weights are trained.
        averaged: a context manager in which the network has the weights to save.
    """

    name = "save_weights"

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
                self._save(self.run / BEST_WEIGHTS_FILE)

    def state(self):
        """The best epoch, counted from 1, and its score."""
        return {"best": self.best}

    def restore(self, state):
        """The counterpart of `state`."""
        self.best = state["best"] and tuple(state["best"])

    def _save(self, path):
        if self.writes:
            save_weights(self.bare, path)


class ShowProgress(keras.callbacks.Callback):
    """A bar over all steps with loss, Dice, rate and time left; without a terminal, one line per epoch."""

    def __init__(self, name, bar, *, total, done=0):
        super().__init__()
        self.name, self.bar, self.total, self.done = name, bar, total, done

    def on_train_begin(self, logs=None):
        self.task = self.bar.add_task(f"Training {self.name}", total=self.total, completed=self.done, note="compiling")

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(self.task, advance=1, note=_scores(logs))

    def on_epoch_end(self, epoch, logs=None):
        if not console.is_terminal:
            log.info(f"{self.name} epoch {epoch + 1}/{self.params['epochs']}: {_scores(logs)}")


def _scores(logs):
    dice = " ".join(f"{region} {logs[f'dice_{region.lower()}']:.2f}" for region in REGIONS)
    return f"loss {logs['loss']:.2f} {dice} lr {logs['learning_rate']:.1g}"
