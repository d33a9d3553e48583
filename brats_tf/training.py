"""Train networks: prepare the cases, build, fill in, fit, leave the folder of a run behind.

A run's folder holds `config.json`, `network.weights.h5` and `history.csv` (one line an epoch).
"""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from brats_tf.callbacks import ShowProgress, callbacks_of, history_of
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.nifti import by
from brats_tf.data.pipeline import Patches, finish, read_ahead, training_stream
from brats_tf.data.store import Settings
from brats_tf.errors import InputError
from brats_tf.losses import CrossEntropyMinusDice, MultipleDice, region_dice
from brats_tf.measuring import peak_gb
from brats_tf.models.costs import training_bytes
from brats_tf.models.networks import get_network
from brats_tf.preparing import prepare_cases
from brats_tf.regions import REGIONS
from brats_tf.runs import build_network, check_memory, device_name, enough_memory, new_run
from brats_tf.screen import progress_bar, say
from brats_tf.splits import split_cases
from brats_tf.validation import Validate, check_validation


@dataclass
class Ready:
    """A compiled network, where its weights are from, and the state in which every training of it starts."""

    settings: tuple
    network: keras.Model
    origin: str
    start: list


def train(configs, cases, *, runs, store, validation=None, skip_bad=False, workers=None):
    """Trains a network for each config, one after another, and returns their folders, `runs`/<modality>.

    Args:
        configs: `Config`s. Networks that differ only in what they see are built and compiled once; each starts from the
            same weights as if it had been trained alone.
        cases: `Case`s with truth.
        runs: the folder of all runs. A run of the same name that is there is moved aside, never overwritten.
        store: the folder for prepared cases, reused by later runs.
        validation: the `Case`s that a config's `validate_every` asks for; None takes those that its split holds out.
        workers: cases prepared at once; None for one a core.
        skip_bad: leave bad cases out, with a line for each, instead of refusing to train.

    Raises:
        InputError: when a case is bad, the weights cannot be had, the crop does not fit the network, or the loss is
            no number any more.
    """
    # First what fails at once: a crop that does not fit, weights that are not there. Then all cases are prepared, so
    # that a bad one shows before the first step, not after a night.
    ready = _make_ready(configs[0], keep_start=len(configs) > 1)
    check_memory(configs[0], _memory_gb(configs[0], ready))
    splits = [split_cases(cases, seed=config.seed, **config.split_settings()) for config in configs]
    validated = [
        _validation_cases(config, split, cases, validation) for config, split in zip(configs, splits, strict=True)
    ]
    stored = [
        prepare_cases(
            [case for case in cases if case.id in set(split.training)],
            parts=(*config.modalities, SEGMENTATION),
            settings=Settings(config.crop, config.spacing_mm),
            folder=store,
            workers=workers,
            skip_bad=skip_bad,
        )
        for config, split in zip(configs, splits, strict=True)
    ]
    folders = []
    for config, split, its_cases, unseen in zip(configs, splits, stored, validated, strict=True):
        if folders:
            ready = _make_ready(config, ready)
        say(_first_line(config, ready, len(its_cases)))
        run = new_run(Path(runs) / config.run_name)
        replace(split, training=[case.id for case in its_cases]).save(run)
        folders.append(_train(config, ready.network, its_cases, run, unseen))
    return folders


def _train(config, network, stored, run, validation):
    config.save(run)
    network, dataset = _with_data(network, config, stored)
    started = time.monotonic()
    steps = (config.batches or math.ceil(len(stored) / config.batch_size)) * config.accumulation
    with progress_bar() as bar, enough_memory(config), history_of(run) as history:
        callbacks = [*callbacks_of(config, run), history, ShowProgress(config.run_name, bar, config.epochs * steps)]
        if validation:
            callbacks.append(Validate(config, validation, run))
        network.fit(dataset, epochs=config.epochs, steps_per_epoch=steps, callbacks=callbacks, verbose=0, shuffle=False)
    say(
        f"{config.run_name}: {config.epochs} epochs in {time.monotonic() - started:.0f} s, peak memory "
        f"{peak_gb():.1f} GB; the run lies in {run}."
    )
    return run


def _validation_cases(config, split, cases, validation):
    if config.validate_every is None:
        if validation is not None:
            raise InputError("Validation cases need to be told when: --validate-every. Received: none.")
        return []
    chosen = [case for case in cases if case.id in set(split.held_out)] if validation is None else validation
    check_validation(config, chosen, [case for case in cases if case.id in set(split.training)])
    return chosen


def _with_data(network, config, stored):
    """What to fit, and on which batches."""
    stream = training_stream(
        stored,
        modalities=config.modalities,
        crop=config.crop,
        batch_size=config.batch_size // config.accumulation,
        seed=config.seed,
        samples=config.batches and config.batches * config.batch_size,
        patches=Patches(config.patch, config.foreground) if config.patch else None,
    )
    outputs = get_network(config.network).outputs
    return finishing_network(network, outputs=outputs, augmentation=config.augmentation), read_ahead(stream)


class FinishingNetwork(keras.Model):
    """Takes raw batches of `pipeline.training_stream`: augments and makes targets inside the step, on its device."""

    def train_step(self, batch):
        """One step; `batch` is (volumes, classes, seed)."""
        return super().train_step(finish(*batch, **self.finishing))


def finishing_network(network, *, outputs, augmentation):
    """The layers, variables and compilation of `network` as a `FinishingNetwork`."""
    finishing = FinishingNetwork(network.inputs, network.outputs)
    finishing.finishing = {"outputs": outputs, "augmentation": augmentation}
    finishing.compile(
        optimizer=network.optimizer,
        loss=network.loss,
        metrics=[region_dice(region, outputs) for region in REGIONS],
        jit_compile=False,
        run_eagerly=network.run_eagerly,
    )
    return finishing


def _make_ready(config, before=None, *, keep_start=True):
    """Builds and compiles, or takes the network of the run before back to where it started."""
    start = (config.weights, config.optimizer, config.learning_rate, config.accumulation, config.loss, config.seed)
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
    return network, get_network(config.network).fill(network, config.weights, config.network_settings())


def make_loss(config):
    """The loss that a config names."""
    if config.loss == "ce_minus_dice":
        return CrossEntropyMinusDice(get_network(config.network).outputs)
    return MultipleDice(background=config.loss == "multiple_dice_background")


def compile_network(network, config):
    """Gives a network its loss, its optimiser and the Dice of each region to watch."""
    outputs = get_network(config.network).outputs
    optimizer = {"adam": keras.optimizers.Adam, "nadam": keras.optimizers.Nadam}[config.optimizer]
    network.compile(
        optimizer=optimizer(
            config.learning_rate, gradient_accumulation_steps=config.accumulation if config.accumulation > 1 else None
        ),
        loss=make_loss(config),
        metrics=[region_dice(region, outputs) for region in REGIONS],
        jit_compile=False,  # XLA is several times slower than oneDNN on a CPU for this network.
    )
    # Built here, outside the step's graph, its variables do not make TensorFlow trace that graph twice.
    network.optimizer.build(network.trainable_variables)


def _memory_gb(config, ready):
    return training_bytes(ready.network, batch_size=config.batch_size // config.accumulation) / 1e9


def _first_line(config, ready, cases):
    memory = _memory_gb(config, ready)
    seen = f"patches {by(config.patch)}, batch {config.batch_size}" if config.patch else f"crop {by(config.crop)}"
    encoder = "resnet34" if config.network == "albunet" else config.backbone
    return (
        f"Training {config.run_name} ({config.preset}, {encoder}): {cases} cases, "
        f"{seen}, {ready.network.count_params():,} parameters, {ready.origin}, "
        f"on {device_name()}, about {memory:.1f} GB of memory."
    )
