"""`run.json` in a run's folder: what made it, how far it is, what it took; and whether a training can go on there."""

import dataclasses
import hashlib
import json
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import keras

from brats_tf import __version__
from brats_tf.errors import InputError
from brats_tf.runtime.files import write_json
from brats_tf.runtime.system import machine, peak_gb

FILE = "run.json"
TRAINING, FINISHED = "training", "finished"
LIBRARIES = ("tensorflow", "keras", "numpy")


def data_hash(stored):
    """A hash of what the network learns from: the prepared cases, whose names have their content's hash, in order."""
    names = "\n".join(path.name for case in stored for path in sorted(case.paths))
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def git_commit():
    """The commit of the checkout that this package lies in, `+` behind it when files differ; None where it is none."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    git = shutil.which("git")
    if git is None:
        return None
    try:
        answers = [
            subprocess.run(  # noqa: S603
                [git, "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
            )
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return answers[0].stdout.strip() + ("+" if answers[1].stdout.strip() else "")


class RunRecord(keras.callbacks.Callback):
    """Writes `run.json` when a training begins, after each epoch and at the end.

    `seconds` and `starts` count over all processes that trained the run; what a kill lost does not count.

    Args:
        run, config: of the training.
        facts: more for the file, as JSON can hold it.
        writes: whether this process does; of several machines only one.
    """

    def __init__(self, run, config, facts, *, writes=True):
        super().__init__()
        self.path, self.started, self.writes = Path(run) / FILE, time.monotonic(), writes
        self.before, self.starts, self.peak, self.last = 0.0, 1, 0.0, {}
        self.facts = {
            "run": config.run_name,
            "version": __version__,
            "git_commit": git_commit(),
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
            "machine": machine(),
            "seed": config.seed,
            **facts,
            "settings": dataclasses.asdict(config),
            "began": time.strftime("%Y-%m-%d %H:%M:%S"),
        }

    @property
    def seconds(self):
        """Trained so far."""
        return self.before + time.monotonic() - self.started

    def write(self, epochs, status=TRAINING):
        """Writes the file: so many epochs are complete. Raises `WriteError`."""
        self.peak = max(self.peak, peak_gb())
        took = {"seconds": round(self.seconds, 1), "peak_memory_gb": round(self.peak, 2), "starts": self.starts}
        if self.writes:
            write_json(self.path, {"status": status, "epochs": epochs} | took | {"last": self.last} | self.facts)

    def on_epoch_end(self, epoch, logs=None):
        self.last = dict(logs)
        self.write(epoch + 1)

    def remembered(self):
        """What a checkpoint keeps of it."""
        peak = max(self.peak, peak_gb())
        began = self.facts["began"]
        return {"seconds": self.seconds, "starts": self.starts, "peak": peak, "began": began, "last": self.last}

    def recall(self, memory):
        """The counterpart of `remembered`, in another process."""
        self.before, self.starts, self.peak = memory["seconds"], memory["starts"] + 1, memory["peak"]
        self.facts["began"], self.last = memory["began"], memory["last"]


def read_run(run):
    """The content of a run's `run.json`; None where there is none. Raises `InputError` when it is damaged."""
    path = Path(run) / FILE
    try:
        record = json.loads(path.read_text())
        missing = {"status", "epochs", "settings", "data", "validation"} - set(record)
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no readable record of a run: {error}.") from None
    return record
