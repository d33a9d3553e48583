"""Train networks: prepare the cases, build, fill in, fit, leave the folder of a run behind.

A run's folder holds `config.json`, `network.weights.h5` and `history.csv` (one line an epoch).
"""

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from brats_tf.data.pipeline import training_dataset
from brats_tf.data.store import store_case
from brats_tf.errors import InputError
from brats_tf.files import atomic
from brats_tf.losses import CrossEntropyMinusDice, region_dice
from brats_tf.models.costs import training_bytes
from brats_tf.models.networks import get_network
from brats_tf.models.weights import fill_backbone
from brats_tf.regions import REGIONS
from brats_tf.runs import HISTORY_FILE, WEIGHTS_FILE, build_network, device_name, enough_memory, new_run, peak_gb
from brats_tf.screen import console, progress_bar, say, track

PLATEAU_FACTOR = 0.1  # Paper A, Section 2.5: "reduced by a factor of 10".


@dataclass
class Ready:
    """A compiled network, where its weights are from, and the state in which every training of it starts."""

    settings: tuple
    network: keras.Model
    origin: str
    start: list


def train(configs, cases, *, runs, store, skip_bad=False):
    """Trains a network for each config, one after another, and returns their folders, `runs`/<modality>.

    Args:
        configs: `Config`s. Networks that differ only in what they see are built and compiled once; each starts from the
            same weights as if it had been trained alone.
        cases: `Case`s with truth.
        runs: the folder of all runs. A run of the same name that is there is moved aside, never overwritten.
        store: the folder for prepared cases, reused by later runs.
        skip_bad: leave bad cases out, with a line for each, instead of refusing to train.

    Raises:
        InputError: when a case is bad, the weights cannot be had, the crop does not fit the network, or the loss is
            no number any more.
    """
    # First what fails at once: a crop that does not fit, weights that are not there.
    ready = _make_ready(configs[0], keep_start=len(configs) > 1)
    stored = [_prepare(config, cases, store=store, skip_bad=skip_bad) for config in configs]
    folders = []
    for config, its_cases in zip(configs, stored, strict=True):
        if folders:
            ready = _make_ready(config, ready)
        say(_first_line(config, ready, len(its_cases)))
        folders.append(_train(config, ready.network, its_cases, new_run(Path(runs) / config.run_name)))
    return folders


def _train(config, network, stored, run):
    config.save(run)
    dataset = training_dataset(
        stored,
        shape=config.network_settings()["shape"],
        outputs=get_network(config.network).outputs,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    started = time.monotonic()
    steps = config.epochs * math.ceil(len(stored) / config.batch_size)
    with progress_bar() as bar, enough_memory(config.crop), _history(run) as history:
        callbacks = [*_callbacks(config, run), history, ShowProgress(config.run_name, bar, steps)]
        network.fit(dataset, epochs=config.epochs, callbacks=callbacks, verbose=0, shuffle=False)
    say(
        f"{config.run_name}: {config.epochs} epochs in {time.monotonic() - started:.0f} s, peak memory "
        f"{peak_gb():.1f} GB; the run lies in {run}."
    )
    return run


def _make_ready(config, before=None, *, keep_start=True):
    """Builds and compiles, or takes the network of the run before back to where it started."""
    start = (config.weights, config.optimizer, config.learning_rate, config.seed)
    settings = (config.network, *config.network_settings().values(), *start)
    keras.utils.set_random_seed(config.seed)
    if before and before.settings == settings:
        for variable, value in zip(_state(before.network), before.start, strict=True):
            variable.assign(value)
        return before
    keras.utils.clear_session()
    network, origin = build(config)
    compile_network(network, config)
    return Ready(settings, network, origin, [variable.numpy() for variable in _state(network)] if keep_start else [])


def _state(network):
    return [*network.variables, *network.optimizer.variables]


def build(config):
    """Builds a config's network and fills in its ImageNet weights. Returns (network, where the weights are from)."""
    network = build_network(config)
    return network, fill_backbone(network, backbone=config.backbone, source=config.weights)


def compile_network(network, config):
    """Gives a network its loss, its optimiser and the Dice of each region to watch."""
    outputs = get_network(config.network).outputs
    optimizer = {"adam": keras.optimizers.Adam, "nadam": keras.optimizers.Nadam}[config.optimizer]
    network.compile(
        optimizer=optimizer(config.learning_rate),
        loss=CrossEntropyMinusDice(outputs),
        metrics=[region_dice(region, outputs) for region in REGIONS],
        jit_compile=False,  # XLA is several times slower than oneDNN on a CPU for this network.
    )
    # Built here, outside the step's graph, its variables do not make TensorFlow trace that graph twice.
    network.optimizer.build(network.trainable_variables)


def _prepare(config, cases, *, store, skip_bad):
    """Prepares all cases before the first step, so that a bad one shows at once, not after a night."""
    stored, sentences = [], []
    for case in track(cases, f"Preparing {config.run_name}"):
        try:
            stored.append(store_case(case, modalities=config.modalities, crop=config.crop, folder=store))
        except InputError as error:
            sentences.append(str(error))
    if sentences and not (skip_bad and stored):
        hint = "" if skip_bad else " Mend them, or leave them out with --skip-bad."
        sentences.append(f"{len(sentences)} of {len(cases)} cases cannot be used; nothing was trained.{hint}")
        raise InputError("\n".join(sentences))
    for sentence in sentences:
        say(f"Left out: {sentence}")
    return stored


def _first_line(config, ready, cases):
    height, width, depth = config.crop
    memory = training_bytes(ready.network, batch_size=config.batch_size) / 1e9
    return (
        f"Training {config.run_name} ({config.preset}, {config.backbone}): {cases} cases, "
        f"crop {height}x{width}x{depth}, {ready.network.count_params():,} parameters, {ready.origin}, "
        f"on {device_name()}, about {memory:.1f} GB of memory."
    )


@contextmanager
def _history(run):
    """Keras's CSVLogger, whose file is closed after a failure too."""
    logger = keras.callbacks.CSVLogger(run / HISTORY_FILE)
    try:
        yield logger
    finally:
        if getattr(logger, "csv_file", None):
            logger.csv_file.close()


def _callbacks(config, run):
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="loss", mode="min", factor=PLATEAU_FACTOR, patience=config.plateau_epochs, min_delta=0.0
    )
    return [
        StopWithoutNumber(),
        plateau,
        SaveWeights(run / WEIGHTS_FILE),
    ]


class StopWithoutNumber(keras.callbacks.Callback):
    """Ends a training whose loss became NaN or infinite; the weights of the last good epoch stay."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise InputError(
                f"The loss must be a number; received {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}. The "
                "weights after the last complete epoch, if there was one, are kept. A lower --learning-rate may help."
            )


class SaveWeights(keras.callbacks.Callback):
    """Saves the weights after each epoch, without the optimiser's state; the file is always a complete one."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_begin(self, logs=None):
        # The same layers without the optimiser, whose moments would make the file three times as large.
        self.bare = keras.Model(self.model.inputs, self.model.outputs)

    def on_epoch_end(self, epoch, logs=None):
        with atomic(self.path) as temporary:
            try:
                self.bare.save_weights(temporary)
            except RuntimeError as error:  # What h5py makes of a full disk when it closes the file.
                raise OSError(str(error)) from error


class ShowProgress(keras.callbacks.Callback):
    """A bar over all steps with loss, Dice and time left; where there is no terminal, one line an epoch."""

    def __init__(self, name, bar, steps):
        super().__init__()
        self.name, self.bar, self.steps = name, bar, steps

    def on_train_begin(self, logs=None):
        self.task = self.bar.add_task(f"Training {self.name}", total=self.steps, note="compiling")

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(self.task, advance=1, note=_scores(logs))

    def on_epoch_end(self, epoch, logs=None):
        if not console.is_terminal:
            say(f"{self.name} epoch {epoch + 1}/{self.params['epochs']}: {_scores(logs)}")


def _scores(logs):
    dice = " ".join(f"{region} {logs[f'dice_{region.lower()}']:.2f}" for region in REGIONS)
    return f"loss {logs['loss']:.2f} {dice}"
