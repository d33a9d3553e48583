"""Train networks: prepare the cases, build, fill in, fit, leave the folder of a run behind; go on where one stopped.

A run's folder holds `config.json`, `split.json`, `network.weights.h5`, `history.csv` (one line an epoch), `run.json`,
and while it trains `checkpoints`.
"""

import dataclasses
import re
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from brats_tf.data.nifti import by
from brats_tf.errors import InputError, Stopped
from brats_tf.models.cost import training_bytes
from brats_tf.runs.folder import check_memory, device_name, enough_memory, open_run
from brats_tf.runs.record import FINISHED, RunRecord
from brats_tf.runtime.console import progress_bar, say
from brats_tf.training.averaging import Average
from brats_tf.training.callbacks import (
    History,
    SaveCheckpoint,
    SaveWeights,
    ShowProgress,
    StopWithoutNumber,
)
from brats_tf.training.checkpoints import Checkpoints
from brats_tf.training.distribution import agree, choose_strategy, is_first, machines
from brats_tf.training.learning_rate import rate_of
from brats_tf.training.loop import build, fit, make_trainer
from brats_tf.training.tensorboard_images import Watch, draw_log
from brats_tf.training.training_data import make_job
from brats_tf.training.validation import Validate

CHECKPOINT_MINUTES = 10


@dataclass
class Ready:
    """A network in training, where its weights are from, and the state in which every training of it starts."""

    settings: dict
    network: keras.Model
    trainer: keras.Model
    origin: str
    start: list  # Empty where only one training is to come.


def train(
    configs,
    cases,
    *,
    runs,
    store,
    validation=None,
    skip_bad=False,
    workers=None,
    devices=1,
    restart=False,
    checkpoint_minutes=CHECKPOINT_MINUTES,
):
    """Trains a network for each config, one after another, and returns their folders, `runs`/<modality>.

    A run that was stopped goes on where it was, and one that is finished is kept, if settings and data are the same.

    Args:
        configs: `Config`s. Networks that differ only in what they see are built and compiled once; each starts from the
            same weights as if it had been trained alone.
        cases: `Case`s with truth.
        runs: the folder of all runs. A run of other settings that is there is moved aside, never overwritten.
        store: the folder for prepared cases, reused by later runs.
        validation: the `Case`s that a config's `validate_every` asks for; None takes those that its split holds out.
        skip_bad: leave bad cases out, with a line for each, instead of refusing to train.
        workers: cases prepared at once; None for one a core.
        devices: how many GPUs of this machine share each batch.
        restart: train anew, whatever is there.
        checkpoint_minutes: the longest time that a kill may cost.

    Raises:
        InputError: when a case is bad, the weights cannot be had, the crop does not fit the network, or the loss is
            no number any more.
        Stopped: when a signal ended it; everything is saved.
    """
    # First what fails at once: a crop that does not fit, weights that are not there. Then all cases are prepared, so
    # that a bad one shows before the first step, not after a night.
    strategy = choose_strategy(devices)
    check_devices(configs, strategy.num_replicas_in_sync)
    ready = _make_ready(configs[0], strategy, keep_start=len(configs) > 1)
    check_memory(configs[0], _memory_gb(configs[0], ready, strategy))
    if configs[0].jit and not tf.config.list_physical_devices("GPU"):
        say("--jit: XLA is several times slower than TensorFlow's own operations on a CPU for paper A's network.")
    jobs = [make_job(config, cases, validation, store=store, workers=workers, skip_bad=skip_bad) for config in configs]
    folders = []
    for job in jobs:
        run = Path(runs) / job.config.run_name
        missing = is_first() and open_run(run, job.identity, restart=restart) != FINISHED
        # All wait here for the first machine, which says whether there is anything to do.
        if agree(strategy, missing)[0]:
            ready = _make_ready(job.config, strategy, ready)
            say(_first_line(job, ready, strategy))
            told = _train(job, ready, run, strategy, checkpoint_minutes)
            if told and job is not jobs[-1]:
                raise Stopped(f"Stopped by {told} after {job.config.run_name}. The same command goes on from there.")
        folders.append(run)
    return folders


def check_devices(configs, devices):
    """Raises `InputError` unless what goes through the network at once can be parted evenly."""
    for config in configs:
        if config.plateau_on == "validation" and machines() > 1:
            raise InputError("`plateau_on` validation is for one machine: the scores of several may differ in a digit.")
        if config.batch_size // config.accumulation % devices:
            raise InputError(
                f"`batch_size` / `accumulation` must be a multiple of the {devices} devices. Received: "
                f"{config.batch_size} / {config.accumulation}."
            )


def _train(job, ready, run, strategy, minutes):
    """Trains one job in its folder, from its last checkpoint on."""
    config, trainer, devices = job.config, ready.trainer, strategy.num_replicas_in_sync
    facts = {"device": device_name(), "devices": devices, "cases": len(job.stored)}
    facts |= {"data": job.identity["data"], "validation": job.identity["validation"]}
    writes = {"writes": is_first()}
    record = RunRecord(run, config, facts, **writes)
    average = Average(ready.network, config.average, config.epochs) if config.average != "none" else None
    averaged = average.applied if average else nullcontext
    state = [*trainer.state, *(average.variables if average else [])]
    checkpoints = Checkpoints(run, [one.value for one in state], job.identity, **writes)
    saving = SaveCheckpoint(checkpoints, minutes=minutes, agree=partial(agree, strategy))
    remembering = [rate_of(config), History(run, **writes), SaveWeights(run, ready.network, averaged, **writes), record]
    if job.validation:
        between = saving.stop_if_told if machines() == 1 else lambda: None
        options = {"network": ready.network, "averaged": averaged, "between_cases": between}
        remembering.insert(0, Validate(config, job.validation, run, **options))
        saving.is_long = remembering[0].is_due
    saving.others = remembering
    place = _recall(checkpoints, remembering)
    if is_first():
        config.save(run)
        job.split.save(run)
        record.write(place[0])
    with progress_bar() as bar, saving.listening():
        callbacks = [StopWithoutNumber(job.names(devices)), *([average] if average else []), *remembering]
        callbacks += [Watch(config, run, network=ready.network, case=job.watched())] if is_first() else []
        callbacks += [
            saving,
            ShowProgress(config.run_name, bar, steps=config.epochs * job.steps, done=place[0] * job.steps + place[1]),
        ]
        with _sentences(config, _memory_gb(config, ready, strategy)):
            batches = job.batches(strategy, place)
            fit(trainer, batches, steps=job.steps, epochs=config.epochs, start=place, callbacks=callbacks)
    if is_first():
        draw_log(run)
        record.write(config.epochs, status=FINISHED)
    checkpoints.remove()
    say(
        f"{config.run_name}: {config.epochs} epochs in {record.seconds:.0f} s, peak memory {record.peak:.1f} GB; "
        f"the run lies in {run}."
    )
    return saving.told


def _recall(checkpoints, remembering):
    """The place to begin at, after variables and callbacks are what they were there."""
    found = checkpoints.load()
    if found is None:
        return 0, 0
    epoch, step, memories = found
    for one in remembering:
        if type(one).__name__ in memories:
            one.recall(memories[type(one).__name__])
    say(f"Going on after {epoch} epochs and {step} steps, from {checkpoints.folder}.")
    return epoch, step


@contextmanager
def _sentences(config, needed_gb):
    """Turns what TensorFlow says of too little memory, or of a case that is gone, into one sentence."""
    try:
        with enough_memory(config, needed_gb):
            yield
    except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        file = re.search(r"\S+\.(volume|classes)\b", error.message)
        raise InputError(
            f"The prepared case {file.group() if file else ''} could not be read while training "
            f"({type(error).__name__}). The checkpoints stay; the same command prepares again what is missing, and "
            "goes on. `brats-tf prepare --verify` removes what is damaged."
        ) from error


def _make_ready(config, strategy, before=None, *, keep_start=True):
    """Builds and compiles, or takes the network of the run before back to where it started."""
    settings = dataclasses.asdict(config) | {"modalities": len(config.modalities)}
    if before and before.settings == settings:
        if before.start:
            for variable, value in zip(before.trainer.state, before.start, strict=True):
                variable.assign(value)
        return before
    keras.utils.clear_session()
    with strategy.scope():
        keras.utils.set_random_seed(config.seed)
        network, origin = build(config)
        trainer = make_trainer(network, config)
    devices = strategy.num_replicas_in_sync
    trainer.prepare(strategy, batch_size=config.batch_size // config.accumulation // devices, jit=config.jit)
    return Ready(
        settings,
        network,
        trainer,
        origin,
        [keras.ops.convert_to_numpy(one) for one in trainer.state] if keep_start else [],
    )


def _memory_gb(config, ready, strategy):
    batch_size = config.batch_size // config.accumulation // strategy.num_replicas_in_sync
    return training_bytes(ready.network, batch_size=batch_size, precision=config.precision, remat=config.remat) / 1e9


def _first_line(job, ready, strategy):
    config = job.config
    seen = f"patches {by(config.patch)}, batch {config.batch_size}" if config.patch else f"crop {by(config.crop)}"
    encoder = "resnet34" if config.network == "albunet" else config.backbone
    several = f"{strategy.num_replicas_in_sync} devices, the first " if strategy.num_replicas_in_sync > 1 else ""
    memory = _memory_gb(config, ready, strategy)
    return (
        f"Training {config.run_name} ({config.preset}, {encoder}): {len(job.stored)} cases, "
        f"{seen}, {ready.network.count_params():,} parameters, {ready.origin}, "
        f"on {several}{device_name()}, {config.precision}, about {memory:.1f} GB of memory."
    )
