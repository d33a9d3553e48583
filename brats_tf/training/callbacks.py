"""Keras callbacks of a training run: NaN guard, run record, checkpoints.

Callbacks whose state must survive a resume have a `name`, `state()`, as JSON can hold it, and `restore(state)`.
"""

import logging
import platform
import signal
import time
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from brats_tf import __version__
from brats_tf.errors import RESUME, InputError, Preempted
from brats_tf.runs.files import RECORD_FILE
from brats_tf.runs.network import not_finite
from brats_tf.runs.record import TRAINING, git_commit
from brats_tf.runtime import program
from brats_tf.runtime.files import write_json
from brats_tf.runtime.system import machine, peak_gb

log = logging.getLogger(__name__)
FROM_THE_START = ("began", "initial_weights")  # What a resumed training says as the first process did.
LIBRARIES = ("tensorflow", "keras", "numpy")


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops a training whose loss became NaN or infinite; earlier weights and checkpoints stay.

    Args:
        cases_of: (epoch, step) -> the ids of the cases in that batch.
    """

    def __init__(self, cases_of):
        super().__init__()
        self.cases_of, self.epoch = cases_of, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise InputError(
                f"The loss must be finite; received {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}, for "
                f"{', '.join(self.cases_of(self.epoch, batch))}. The weights of the last complete epoch, if there is "
                "one, are kept. Try a lower --learning-rate; `brats-tf preprocess --verify` checks the cached cases."
            )

    def on_epoch_end(self, epoch, logs=None):
        check_weights(self.model)


class WarnOfDivergence(keras.callbacks.Callback):
    """Warns when an epoch's mean loss is above that of the first epoch: finite, and yet the training has diverged."""

    name = "divergence"

    def __init__(self, run_name):
        super().__init__()
        self.run_name, self.first, self.least = run_name, None, None

    def on_epoch_end(self, epoch, logs=None):
        loss = float(logs["loss"])
        if self.first is None:
            self.first, self.least = loss, (loss, epoch + 1)
        if loss > self.first:
            log.warning(
                f"{self.run_name} epoch {epoch + 1}: the loss is {loss:.2f}, more than in the first epoch; it was "
                f"{self.least[0]:.2f} in epoch {self.least[1]}. The training may have diverged. A lower "
                "--learning-rate or --schedule cosine may help."
            )
        self.least = min(self.least, (loss, epoch + 1))

    def state(self):
        """The loss of the first epoch, and the least one with its epoch."""
        return {"first": self.first, "least": self.least}

    def restore(self, state):
        """The counterpart of `state`."""
        self.first, self.least = state["first"], state["least"] and tuple(state["least"])


def check_weights(network):
    """Raises `InputError` when a step with a finite loss left NaN or infinity in the weights; before they are saved."""
    if (bad := not_finite(network.trainable_variables)) is not None:
        raise InputError(
            f"Weights must be finite; received NaN or infinity in {bad}. The last good state is kept. Try a lower "
            "--learning-rate."
        )


class RunRecord(keras.callbacks.Callback):
    """Writes `run.json` when a training begins, after each epoch and at the end.

    `seconds` and `starts` count over all processes that trained the run; work lost by a kill does not count.

    Args:
        run, config: of the training.
        facts: more for the file, as JSON can hold it.
        writes: whether this process writes; of several machines only one does.
    """

    name = "run_record"

    def __init__(self, run, config, facts, *, writes=True):
        super().__init__()
        self.path, self.started, self.writes = Path(run) / RECORD_FILE, time.monotonic(), writes
        self.seconds_before, self.starts, self.peak, self.last = 0.0, 1, 0.0, {}
        self.facts = {
            "run": self.path.parent.name,
            "version": __version__,
            "git_commit": git_commit(),
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
            "machine": machine(),
            "seed": config.seed,
            **facts,
            "settings": config.to_dict(),
            "began": time.strftime("%Y-%m-%d %H:%M:%S"),
        }

    @property
    def seconds(self):
        """Training time so far."""
        return self.seconds_before + time.monotonic() - self.started

    def write(self, epochs, status=TRAINING):
        """Writes the file after `epochs` complete epochs. Raises `WriteError`."""
        self.peak = max(self.peak, peak_gb())
        costs = {"seconds": round(self.seconds, 1), "peak_memory_gb": round(self.peak, 2), "starts": self.starts}
        if self.writes:
            write_json(
                self.path, {"status": status, "epochs": epochs} | costs | {"last": self.last} | self.facts, durable=True
            )

    def on_epoch_end(self, epoch, logs=None):
        self.last = dict(logs)
        self.write(epoch + 1)

    def state(self):
        """What a checkpoint keeps of it."""
        peak = max(self.peak, peak_gb())
        known = {name: self.facts[name] for name in FROM_THE_START if name in self.facts}
        return {"seconds": self.seconds, "starts": self.starts, "peak": peak, "last": self.last} | known

    def restore(self, state):
        """The counterpart of `state`, in another process."""
        self.seconds_before, self.starts, self.peak = state["seconds"], state["starts"] + 1, state["peak"]
        self.last = state["last"]
        self.facts |= {name: state[name] for name in FROM_THE_START if name in state}


class SaveCheckpoint(keras.callbacks.Callback):
    """Saves a checkpoint after each epoch, every so many minutes, and when a signal asks the process to stop.

    Args:
        checkpoints: `checkpoints.Checkpoints`.
        minutes: between checkpoints within an epoch.
        agree: (asked to stop, a checkpoint is due) -> the same for all machines, as numbers.

    Attributes:
        stateful: the callbacks whose state belongs to a checkpoint.
        is_long: (epoch) -> bool: save before the work at the end of the epoch because it is long (validation).
        signal: the name of the signal that asked to stop, or None.
    """

    def __init__(self, checkpoints, *, minutes, agree):
        super().__init__()
        self.checkpoints, self.seconds, self.agree = checkpoints, 60 * minutes, agree
        self.stateful, self.is_long = [], lambda epoch: False
        self.signal, self.epoch, self.last = None, 0, time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        stop, due = self.agree(self.signal is not None, time.monotonic() - self.last >= self.seconds)
        last = batch + 1 == self.params["steps"]
        if stop or (self.is_long(self.epoch) if last else due):
            check_weights(self.model)
            self._save(self.epoch, batch + 1)
        if stop:
            self._stop(self.epoch, batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        (stop,) = self.agree(self.signal is not None)
        if epoch + 1 == self.params["epochs"]:
            return  # The weights are saved, and a finished run needs no checkpoint.
        self._save(epoch + 1, 0)
        if stop:
            self._stop(epoch + 1, 0)

    def stop_if_asked(self):
        """For the long work after an epoch's last step, which is saved."""
        if self.signal:
            self._stop(self.epoch, self.params["steps"])

    def catch_signals(self):
        """Inside it, a scheduler's signals stop the training after the current step."""

        def handle(number, frame):
            self.signal = signal.Signals(number).name

        return program.catch_signals(handle)

    def _save(self, epoch, step):
        self.checkpoints.save(epoch, step, {callback.name: callback.state() for callback in self.stateful})
        self.last = time.monotonic()

    def _stop(self, epoch, step):
        done = f"{epoch} epochs" + (f" and {step} steps" if step else "")
        raise Preempted(f"Stopped by {self.signal or 'another machine'} after {done}; everything is saved. {RESUME}")
