"""Between the folder of a run and its network."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from brats_tf.config.config import CONFIG_FILE, Config
from brats_tf.errors import InputError, MemoryLack, format_shape, in_one_line
from brats_tf.models.build import build_network
from brats_tf.runs.files import CHECKPOINT_FILES
from brats_tf.runtime.files import atomic, check_space, sha256_of
from brats_tf.runtime.tensorflow import device_name

FLOAT32_BYTES = 4
HDF5_BYTES = 4096  # What HDF5 adds for a layer or a weight, at most.


def load_network(
    run: str | Path, checkpoint: str = "last", *, precision: str = "float32"
) -> tuple[Config, keras.Model]:
    """Loads a run: (config, network with its trained weights).

    Args:
        run: its folder.
        checkpoint: "last", or "best", the epoch with the best validation.
        precision: in which the layers compute: "float32" or "bfloat16".

    Raises:
        InputError: when the weights are missing, of another network or not finite.
    """
    config = Config.load(run)
    network = build_network(config, precision=precision)
    load_weights(network, run, checkpoint)
    return config, network


def load_weights(network: keras.Model, run: str | Path, checkpoint: str = "last") -> str:
    """Fills a network with a run's weights, of the "last" epoch or of the one with the "best" validation.

    Returns:
        The SHA-256 of what was loaded. A training may replace the file meanwhile; then it is read once more.

    Raises:
        InputError: when they are missing, of another network or not finite.
    """
    path = Path(run) / CHECKPOINT_FILES[checkpoint]
    if not path.is_file() and checkpoint == "best":
        raise InputError(f"{run} holds no best checkpoint: {path.name} is missing. Train it with validation.")
    if not path.is_file():
        raise InputError(f"{run} holds no trained network: {path.name} is missing. Train it first.")
    try:
        before = None
        while before != _identity(path):  # Until nobody has replaced it meanwhile.
            before, sha256 = _identity(path), sha256_of(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # What Keras says before it fails; the failure says more.
                network.load_weights(path)
    except Exception as error:  # h5py and Keras raise whatever the damage leads to.
        raise InputError(
            f"{path} must hold the weights of the network that its {CONFIG_FILE} describes. "
            f"Received: {in_one_line(error)}. A run of another version is used with that version, or trained again."
        ) from error
    if (bad := not_finite(network.weights)) is not None:
        raise InputError(f"{path} must hold finite weights; received NaN or infinity in {bad}. Train the run again.")
    return sha256


def run_to_start_from(config: Config) -> Path:
    """The trained run that a config's training starts from: the one it names, or the one of its own name in a folder.

    Raises:
        InputError: when there is none, or it is of another network.
    """
    given = Path(config.training.start_from or "")
    run = next((one for one in (given, given / config.run_name) if (one / CONFIG_FILE).is_file()), None)
    if run is None:
        raise InputError(
            f"`start_from` must be a trained run, or a folder that holds {config.run_name}. Received: {given}."
        )
    other = Config.load(run)
    found, wanted = ({"network": one.network.name} | one.network_settings() for one in (other, config))
    free = ("shape", "depth_factors", "batch_norm", "stochastic_depth")  # They decide nothing of what the weights are.
    differing = [name for name, value in wanted.items() if name not in free and found.get(name) != value]
    if differing or len(other.data.modalities) != len(config.data.modalities):
        reason = f", with other {differing[0]}" if differing else ""
        raise InputError(
            f"`start_from` must be a run of the same network, for as many modalities. Received: {run}, of "
            f"{other.preset} for {', '.join(other.data.modalities)}{reason}."
        )
    return run


def not_finite(weights: Sequence[keras.Variable]) -> str | None:
    """The path of the first of these weights that holds NaN or infinity, if one does."""
    bad = (weight.path for weight in weights if not np.isfinite(keras.ops.convert_to_numpy(weight)).all())
    return next(bad, None)


def _identity(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def save_weights(network: keras.Model, path: Path) -> None:
    """Writes the weights of a network, complete or not at all. Raises `WriteError`, as a full disk also does.

    HDF5 ends the process when the disk fills in the middle of a file, so the space is tried before.
    """
    size = sum(math.prod(weight.shape) * FLOAT32_BYTES for weight in network.weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_space(path.parent, size + HDF5_BYTES * (len(network.weights) + len(network.layers)))
    with atomic(path, durable=True) as temporary:
        try:
            network.save_weights(temporary)
        except RuntimeError as error:  # What h5py makes of a full disk when it closes the file.
            raise OSError(str(error)) from error


def save_as_runs(network: keras.Model, configs: Sequence[Config], folder: Path) -> list[Path]:
    """Writes the folders of runs that all have the weights of one network; returns them."""
    runs = [folder / config.run_name for config in configs]
    for run, config in zip(runs, configs, strict=True):
        config.save(run)
        save_weights(network, run / CHECKPOINT_FILES["last"])
    return runs


@contextmanager
def explain_lack_of_memory(config: Config, needed_gb: float | None = None, *, training: bool = True) -> Iterator[None]:
    """Turns running out of memory inside it, for a run of `config`, into one sentence, an `InputError`."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        needed = f", about {needed_gb:.1f} GB" if needed_gb else ""
        raise MemoryLack(
            f"{device_name()} has too little memory for {what_takes_memory(config, training)}{needed}."
        ) from error


def what_takes_memory(config: Config, training: bool = True) -> str:
    """What is too large for a training, or else a prediction, and which options make it smaller."""
    half = ["--precision bfloat16"] if config.compute.precision == "float32" else []
    patch, settings = config.data.patch_size, config.training
    if not training:
        seen = f"windows of {format_shape(patch)}" if patch else f"the crop {format_shape(config.data.crop)}"
        return f"{seen}; try {', '.join([*half, 'a machine with more'])}"
    if patch is None:
        remedies = [*([] if config.compute.rematerialise else ["--rematerialise"]), *half, "a smaller --crop"]
        return f"the crop {format_shape(config.data.crop)}; try {', '.join(remedies)}"
    remedies = ["more --gradient-accumulation-steps", "a smaller --batch-size", "a smaller --patch-size", *half]
    at_once = settings.batch_size // settings.gradient_accumulation_steps
    return f"{at_once} patches of {format_shape(patch)} at once; try {', '.join(remedies)}"
