"""The folder of a run: its files, and the way from a folder back to its network."""

import os
import warnings
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from brats_tf.config import FILE as CONFIG_FILE
from brats_tf.config import Config
from brats_tf.data.nifti import by
from brats_tf.errors import InputError, in_one_line
from brats_tf.measuring import machine_gb
from brats_tf.models.networks import get_network
from brats_tf.screen import say

WEIGHTS_FILE = "network.weights.h5"


def new_run(run):
    """Makes a run's folder; an older run of that name is moved to <name>.1, <name>.2, ..., never overwritten."""
    if (run / CONFIG_FILE).exists():
        number = 1
        while (aside := run.with_name(f"{run.name}.{number}")).exists():
            number += 1
        run.rename(aside)
        say(f"The earlier run {run} was moved to {aside}.")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The run's folder {run} could not be made: {error.strerror}.") from error
    return run


def build_network(config):
    """Builds the network that a `Config` describes, with random weights."""
    return get_network(config.network).build(**config.network_settings())


def load_network(run):
    """Loads a run: (config, network with its trained weights). Raises `InputError` as `load_weights` does."""
    config = Config.load(run)
    network = build_network(config)
    load_weights(network, run)
    return config, network


def load_weights(network, run):
    """Fills a network with a run's weights. Raises `InputError` when they are missing or of another network."""
    path = Path(run) / WEIGHTS_FILE
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
def enough_memory(config):
    """Turns running out of memory inside it, for a run of `config`, into one sentence, an `InputError`."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise InputError(f"There is too little memory on {device_name()} for {_what_takes_memory(config)}.") from error


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
    if config.patch is None:
        return f"the crop {by(config.crop)}; try a smaller --crop"
    return (
        f"{config.batch_size // config.accumulation} patches of {by(config.patch)} at once; try a larger "
        "--accumulation, a smaller --batch-size or a smaller --patch"
    )


def device_name():
    """The first GPU's name, or the CPU with its number of cores."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return f"CPU with {os.process_cpu_count() if hasattr(os, 'process_cpu_count') else os.cpu_count()} cores"
