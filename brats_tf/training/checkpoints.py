"""What a training needs to resume exactly where it was, in a run's folder; each checkpoint is complete or absent.

TensorFlow's own checkpoint format holds every variable: weights, the optimiser's slots, its step and rate, seeds and
metrics. Keras's `save_weights` would leave out metrics and the states of seed generators, and `BackupAndRestore` knows
whole epochs only. `state.json` beside it has the place, the states of the callbacks, and the hashes of the files.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path

import tensorflow as tf

from brats_tf.errors import InputError, in_one_line
from brats_tf.runs.files import CHECKPOINTS_FOLDER
from brats_tf.runs.folder import describe_differences
from brats_tf.runtime.files import atomic, flush, read_json, sha256_of, write_json
from brats_tf.runtime.tensorflow import as_os_error

log = logging.getLogger(__name__)

STATE_FILE, VARIABLES = "state.json", "variables"


class Checkpoints:
    """The checkpoints of one training.

    Args:
        run: the run's folder.
        variables: what to keep, TensorFlow variables in a fixed order.
        identity: what decides the numbers of the training, as JSON holds it; a checkpoint of another one is refused.
        writes: whether this process keeps what it writes; of several machines only one does, but all must take part.
    """

    def __init__(self, run, variables, identity, *, writes=True):
        self.folder, self.identity, self.writes = Path(run) / CHECKPOINTS_FOLDER, identity, writes
        self.last = None  # That was saved or loaded; not by age, which a clock that is set back would turn round.
        self.saver = tf.train.Checkpoint(variables=list(variables))

    def save(self, epoch, step, callbacks):
        """Writes the state after `step` steps of an epoch, and removes all but the last two.

        Args:
            epoch, step: how many epochs are complete, and how many steps of the next one.
            callbacks: JSON-serialisable callback states, returned by `load`.

        Raises:
            WriteError: when the disk is full or the folder is read-only; earlier checkpoints stay.
        """
        if not self.writes:  # Sums of metrics live on all machines, which must read them at the same time.
            with tempfile.TemporaryDirectory() as elsewhere:
                return self._write(Path(elsewhere))
        folder = self.folder / f"epoch-{epoch:05}-step-{step:06}"
        with atomic(folder, replace=True) as temporary:  # One of the same place may be there that could not be read.
            temporary.mkdir()
            self._write(temporary)
            hashes = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
            state = {"epoch": epoch, "step": step, "identity": self.identity, "callbacks": callbacks, "files": hashes}
            write_json(temporary / STATE_FILE, state | {"sha256": _hash(state)})
            flush(temporary)
        for other in self.found():  # Damaged ones of a later place, too, of before this training began anew.
            if other not in (folder, self.last):
                shutil.rmtree(other, ignore_errors=True)
        self.last = folder
        return folder

    def load(self):
        """Restores the variables from the newest checkpoint that is complete and of this training.

        Returns:
            Its (epoch, step, callbacks); None when there is none. Says which ones it does not use, and why.
        """
        for folder in reversed(self.found()):
            try:
                state = self._read(folder)
                self.saver.read(str(folder / VARIABLES)).assert_consumed()
            except InputError as error:
                log.info(f"The checkpoint {folder} is not used: {error}.")
            except Exception as error:  # TensorFlow raises whatever the difference leads to.
                raise InputError(
                    f"{folder} must hold the variables of this network. Received: {in_one_line(error)}. --restart "
                    "trains from scratch."
                ) from error
            else:
                self.last = folder
                return state["epoch"], state["step"], state["callbacks"]
        return None

    def found(self):
        """The folders of all checkpoints, oldest first."""
        return sorted(self.folder.glob("epoch-*-step-*"))

    def remove(self):
        """Removes all of them, when the training is finished."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, folder):
        try:
            self.saver.write(str(folder / VARIABLES))
        except tf.errors.OpError as error:  # A full disk is a `ResourceExhaustedError`, as too little memory is.
            raise as_os_error(error) from error

    def _read(self, folder):
        try:
            state = read_json(folder / STATE_FILE)
            if state.pop("sha256") != _hash(state):
                raise ValueError("it was changed")
            identity, files = state["identity"], state["files"]
            epoch, step, callbacks = state["epoch"], state["step"], state["callbacks"]
            whole = isinstance(epoch, int) and isinstance(step, int) and isinstance(callbacks, dict)
            other = describe_differences(identity, self.identity)
            files = dict(files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"its {STATE_FILE} could not be read, {in_one_line(error)}") from None
        if not whole:
            raise InputError(f"its {STATE_FILE} must hold a place and a state. Received: {epoch!r}, {step!r}")
        if other:
            raise InputError(f"it belongs to another training, {other}")
        for name, expected in files.items():
            path = folder / Path(name).name
            received = sha256_of(path) if path.is_file() else "no file"
            if received != expected:
                raise InputError(
                    f"{path.name} is damaged: expected the SHA-256 {expected[:12]}…, received {received[:12]}…"
                )
        return state


def _hash(state):
    """The SHA-256 of the content of a `state.json`, whatever it was written with."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
