"""Several commands at once, each with a device of its own: the four networks, or the cells of a grid."""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from brats_tf.config.config import CONFIG_FILE
from brats_tf.errors import RESUME, InputError, Preempted
from brats_tf.regions import MODALITIES
from brats_tf.runs.folder import set_aside
from brats_tf.runtime.console import progress_bar
from brats_tf.runtime.program import BAD_INPUT, TRY_AGAIN, catch_signals

log = logging.getLogger(__name__)
POLL_S = 0.2
DEVICE_VARIABLE = "CUDA_VISIBLE_DEVICES"


def run_in_parallel(commands, *, devices, logs):
    """Runs commands, as many at once as there are devices, each seeing one device alone.

    Args:
        commands: {name: arguments of `brats-tf`}, in order.
        devices: the numbers of the GPUs; [None] runs one after another on whatever there is.
        logs: a folder; the output of a command goes to `<logs>/<name>.log`.

    Returns:
        {name: exit code} of those that failed.

    Raises:
        Preempted: when a signal stopped it, after every command has saved.
        InputError: when a signal stopped it and a command has failed.
    """
    Path(logs).mkdir(parents=True, exist_ok=True)
    pool = _Pool(commands, devices, Path(logs))
    try:
        with catch_signals(pool.stop), progress_bar() as bar:
            task = bar.add_task(f"{len(commands)} commands on {len(devices)} devices", total=len(commands), note="")
            while pool.is_busy:
                pool.start_waiting()
                bar.advance(task, pool.collect_finished())
                bar.update(task, note=", ".join(name for name, _ in pool.running.values()))
                time.sleep(POLL_S)
    finally:
        for _, process in pool.running.values():
            process.terminate()
    if pool.signal:
        name = signal.Signals(pool.signal).name
        if broken := [command for command, code in pool.failed.items() if code not in (TRY_AGAIN, -pool.signal)]:
            raise InputError(f"Stopped by {name}, and {', '.join(broken)} failed: their logs are in {logs}.")
        raise Preempted(f"Stopped by {name}; all commands have saved their state. {RESUME}")
    return pool.failed


class _Pool:
    """Commands that wait, that run on a device each, and that failed."""

    def __init__(self, commands, devices, logs):
        self.commands, self.devices, self.logs = commands, devices, logs
        self.waiting, self.running, self.failed, self.signal = list(commands), {}, {}, None
        self.said_before = {}  # Bytes in each log that are of an earlier command.

    @property
    def is_busy(self):
        return bool(self.running or (self.waiting and not self.signal))

    def stop(self, number, frame):
        """Passes the first signal on; a second one might find a process that is already ending."""
        if self.signal is None:
            for _, process in self.running.values():
                process.send_signal(number)
        self.signal = self.signal or number

    def start_waiting(self):
        for device in self.devices:
            if self.waiting and not self.signal and device not in self.running:
                name = self.waiting.pop(0)
                path = self.logs / f"{name}.log"
                self.said_before[name] = path.stat().st_size if path.is_file() else 0
                process = _start(self.commands[name], device, path)
                self.running[device] = name, process
                if self.signal:  # It came before `stop` could see the process.
                    process.send_signal(self.signal)

    def collect_finished(self):
        """Removes the processes that have ended. Returns their number."""
        ended = {device: job for device, job in self.running.items() if job[1].poll() is not None}
        for device, (name, process) in ended.items():
            del self.running[device]
            self._report(name, process.returncode)
        return len(ended)

    def _report(self, name, code):
        if code == 0:
            log.info(f"{name}: done.")
            return
        self.failed[name] = code
        path = self.logs / f"{name}.log"
        lines = path.read_bytes()[self.said_before[name] :].decode(errors="replace").splitlines()
        how = "stopped and saved" if code == TRY_AGAIN else f"failed with exit code {code}"
        said = f": {lines[-1]} (see {path})" if lines else f" and printed nothing; see {path}."
        log.info(f"{name} {how}{said}")


def train_modalities(arguments, gpus, *, logs, minutes=None, restarted=()):
    """Runs `train --modality all`, whose arguments are given, as one command per modality. Returns an exit code.

    Where there are more networks than GPUs, each takes its share of the `minutes` of all. `restarted` are the folders
    of runs that --restart sets aside, each once nothing can be refused any more. After a signal the others follow, so
    that the same command, without --restart, resumes.
    """
    share = ["--minutes", f"{minutes / math.ceil(len(MODALITIES) / len(gpus)):g}"] if minutes else []
    commands = {name: [*for_one_modality(arguments, name), *share] for name in MODALITIES}
    log.info(f"{len(commands)} networks on {len(gpus)} GPUs; their output is in {logs}/<modality>.log.")
    before = {run: _written(run) for run in restarted}
    try:
        return combined_exit_code(run_in_parallel(commands, devices=gpus, logs=logs))
    except Preempted:
        for run, when in before.items():
            if when and _written(run) == when:
                set_aside(run)
        raise


def _written(run):
    """What tells the run in a folder from a later one; None where there is none."""
    path = run / CONFIG_FILE
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None


def combined_exit_code(failed):
    """One exit code for several commands: 2 when one failed, 75 when some were only stopped and saved, else 0."""
    if set(failed.values()) - {TRY_AGAIN}:
        return BAD_INPUT
    return TRY_AGAIN if failed else 0


def for_one_modality(arguments, modality):
    """The arguments of `train --modality all` for one of the modalities.

    >>> for_one_modality(["train", "x", "--modality", "all"], "t2")
    ['train', 'x', '--modality', 't2']
    """
    words = [part for word in arguments for part in (word.split("=") if word.startswith("--modality=") else [word])]
    pairs = zip(["", *words], words, strict=False)
    return [modality if before == "--modality" else word for before, word in pairs]


def _start(arguments, device, log_file):
    environment = os.environ | ({} if device is None else {DEVICE_VARIABLE: str(device)})
    with open(log_file, "a") as file:
        command = [sys.executable, "-m", "brats_tf", *map(str, arguments)]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)  # noqa: S603
