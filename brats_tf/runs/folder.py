"""The folder of a run: its files, and the way from a folder back to its network."""

import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from brats_tf.config.settings import EPOCHS, Config
from brats_tf.config.settings import FILE as CONFIG_FILE
from brats_tf.data.nifti import by
from brats_tf.errors import InputError, in_one_line
from brats_tf.models.registry import get_network
from brats_tf.runs.record import FILE as RECORD_FILE
from brats_tf.runs.record import FINISHED, TRAINING, read_run
from brats_tf.runtime.console import say
from brats_tf.runtime.files import remove_partial
from brats_tf.runtime.system import machine_gb
from brats_tf.training.checkpoints import FOLDER as CHECKPOINTS
from brats_tf.training.checkpoints import different


def open_run(run, identity, *, restart=False):
    """Makes a run's folder, or finds the one of a training that is to go on, or that is finished.

    A run of other settings or data is moved to <name>.1, <name>.2, ..., never overwritten.

    Args:
        run: the folder.
        identity: {"config", "data", "validation"}, what decides the numbers of the training, as JSON holds it.
        restart: move aside whatever is there.

    Returns:
        `run_record.FINISHED` when there is nothing to do, else `run_record.TRAINING`.
    """
    if not (run / CONFIG_FILE).exists():
        return _make(run)
    record = None if restart else read_run(run)
    if record is None:
        return _make(_aside(run, "it is to be trained anew" if restart else f"it has no {RECORD_FILE}"))
    there = {"config": record["settings"], "data": record["data"], "validation": record["validation"]}
    other = different(there, identity)
    if other:
        return _make(_aside(run, f"it has {other}"))
    for folder in (run, run / CHECKPOINTS):
        remove_partial(folder)
    if record["status"] == FINISHED:
        shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)  # What a kill at the very end leaves.
        say(f"{run} is trained already, with these settings and data; --restart (make: RESTART=1) trains it anew.")
    return record["status"]


def _make(run):
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The run's folder {run} could not be made: {error.strerror}.") from error
    return TRAINING


def _aside(run, reason):
    number = 1
    while (aside := run.with_name(f"{run.name}.{number}")).exists():
        number += 1
    run.rename(aside)
    say(f"The earlier run {run} was moved to {aside}: {reason}.")
    return run


def build_network(config, *, precision="float32"):
    """Builds the network that a `Config` describes, with random weights.

    Its weights are float32 in any `precision`, which only says what layers compute in; prediction takes float32.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    try:
        return get_network(config.network).build(**config.network_settings())
    finally:
        keras.config.set_dtype_policy(before)


def load_network(run, epoch="last"):
    """Loads a run: (config, network with its trained weights). Raises `InputError` as `load_weights` does."""
    config = Config.load(run)
    network = build_network(config)
    load_weights(network, run, epoch)
    return config, network


def load_weights(network, run, epoch="last"):
    """Fills a network with a run's weights, of the last epoch or of the one with the best validation.

    Raises:
        InputError: when they are missing or of another network.
    """
    path = Path(run) / EPOCHS[epoch]
    if not path.is_file() and epoch == "best":
        raise InputError(f"{run} holds no best epoch: {path.name} is missing. Train it with --validate-every.")
    if not path.is_file():
        raise InputError(f"{run} holds no trained network: {path.name} is missing. Train it first.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What Keras says before it fails; the failure says more.
            network.load_weights(path)
    except Exception as error:  # h5py and Keras raise whatever the damage leads to.
        raise InputError(
            f"{path} must hold the weights of the network that its {CONFIG_FILE} describes. "
            f"Received: {in_one_line(error)}"
        ) from error


@contextmanager
def enough_memory(config, needed_gb=None):
    """Turns running out of memory inside it, for a run of `config`, into one sentence, an `InputError`."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        needed = f", about {needed_gb:.1f} GB" if needed_gb else ""
        raise InputError(
            f"There is too little memory on {device_name()} for {_what_takes_memory(config)}{needed}."
        ) from error


def check_memory(config, needed_gb):
    """Raises `InputError` when a training needs more memory than this machine has; a GPU says so by itself."""
    there = machine_gb()
    if needed_gb > there and not tf.config.list_physical_devices("GPU"):
        raise InputError(
            f"There is too little memory on {device_name()}, {there:.0f} GB where about {needed_gb:.0f} are needed, "
            f"for {_what_takes_memory(config)}."
        )


def _what_takes_memory(config):
    """What is too large, and which option makes it smaller."""
    half = ["--precision bfloat16"] if config.precision == "float32" else []
    if config.patch is None:
        tries = [*([] if config.remat else ["--remat"]), *half, "a smaller --crop"]
        return f"the crop {by(config.crop)}; try {', '.join(tries)}"
    tries = ["a larger --accumulation", "a smaller --batch-size", "a smaller --patch", *half]
    at_once = config.batch_size // config.accumulation
    return f"{at_once} patches of {by(config.patch)} at once; try {', '.join(tries)}"


def device_name():
    """The first GPU's name, or the CPU with its number of cores."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return f"CPU with {os.process_cpu_count() if hasattr(os, 'process_cpu_count') else os.cpu_count()} cores"
