"""Several commands at once, each with a device of its own: the four networks, or the cells of a sweep."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from brats_tf.errors import Stopped
from brats_tf.regions import MODALITIES
from brats_tf.runtime.console import progress_bar, say
from brats_tf.runtime.program import BAD_INPUT, TRY_AGAIN, listening

POLL_S = 0.2
DEVICE_VARIABLE = "CUDA_VISIBLE_DEVICES"


def run_side_by_side(commands, *, devices, logs):
    """Runs commands, as many at once as there are devices, each seeing one device alone.

    Args:
        commands: {name: arguments of `brats-tf`}, in order.
        devices: the numbers of the GPUs; [None] runs one after another on whatever there is.
        logs: a folder; what a command says goes to `<logs>/<name>.log`.

    Returns:
        {name: exit code} of those that failed.

    Raises:
        Stopped: when a signal ended it, after every command has saved.
    """
    waiting, running, failed, told = list(commands), {}, {}, []
    Path(logs).mkdir(parents=True, exist_ok=True)

    def tell(number, frame):
        if not told:  # Once each: a second signal might find a child that is leaving.
            for _, process in running.values():
                process.send_signal(number)
        told.append(number)

    try:
        with listening(tell), progress_bar() as bar:
            task = bar.add_task(f"{len(commands)} commands on {len(devices)} devices", total=len(commands), note="")
            while running or (waiting and not told):
                for device in devices:
                    if waiting and not told and device not in running:
                        name = waiting.pop(0)
                        running[device] = name, _start(commands[name], device, Path(logs) / f"{name}.log")
                for device, (name, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[device]
                        bar.advance(task)
                        _finished(name, process.returncode, failed, Path(logs) / f"{name}.log")
                bar.update(task, note=", ".join(name for name, _ in running.values()))
                time.sleep(POLL_S)
    finally:
        for _, process in running.values():
            process.terminate()
    if told:
        name = signal.Signals(told[0]).name
        raise Stopped(f"Stopped by {name}; what ran has saved its state. The same command goes on from there.")
    return failed


def train_modalities(arguments, gpus, *, logs):
    """The command `train --modality all`, whose arguments are given, as one for each modality. Returns an exit code."""
    commands = {name: alone(arguments, name) for name in MODALITIES}
    say(f"{len(commands)} networks on {len(gpus)} GPUs; what they say is in {logs}/<modality>.log.")
    return worst(run_side_by_side(commands, devices=gpus, logs=logs))


def worst(failed):
    """One exit code for several commands: 2 when one failed, 75 when one only was stopped and saved, else 0."""
    if set(failed.values()) - {TRY_AGAIN}:
        return BAD_INPUT
    return TRY_AGAIN if failed else 0


def alone(arguments, modality):
    """The arguments of `train --modality all` for one of the modalities.

    >>> alone(["train", "--modality", "all", "--data", "x"], "t2")
    ['train', '--modality', 't2', '--data', 'x']
    """
    arguments = [part for one in arguments for part in (one.split("=") if one.startswith("--modality=") else [one])]
    return [
        modality if before == "--modality" else one for before, one in zip(["", *arguments], arguments, strict=False)
    ]


def _start(arguments, device, log):
    environment = os.environ | ({} if device is None else {DEVICE_VARIABLE: str(device)})
    with open(log, "a") as file:
        command = [sys.executable, "-m", "brats_tf", *map(str, arguments)]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)  # noqa: S603


def _finished(name, code, failed, log):
    if code == 0:
        say(f"{name}: done.")
        return
    failed[name] = code
    lines = log.read_text().splitlines()
    say(f"{name} ended with exit code {code}: {lines[-1] if lines else 'it said nothing'} (see {log})")
