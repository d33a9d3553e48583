"""Trains networks: prepares the cases, builds, fits, writes the folder of each run; resumes interrupted ones.

`runs.files` names what a run's folder holds; while it trains, also `checkpoints`.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import tensorflow as tf

from brats_tf.config.config import Config
from brats_tf.config.execution import TrainingOptions
from brats_tf.data.case import Case
from brats_tf.errors import RESUME, InputError, Preempted
from brats_tf.runs.folder import check_run, has_begun, is_trained, open_run, set_aside
from brats_tf.runs.network import explain_lack_of_memory
from brats_tf.runs.record import FINISHED
from brats_tf.runtime.console import progress_bar
from brats_tf.runtime.files import flush
from brats_tf.runtime.lock import lock
from brats_tf.runtime.program import stop_on_signals
from brats_tf.runtime.tensorflow import free_graphs, make_deterministic, resolved_precision
from brats_tf.training.announcement import first_line, memory_gb, warn_of_costs
from brats_tf.training.distribution import agree, check_devices, choose_strategy, is_first
from brats_tf.training.loop import fit
from brats_tf.training.ready_network import built_alike, make_ready
from brats_tf.training.run_callbacks import RunCallbacks
from brats_tf.training.saved_settings import asked_precision, with_saved_epochs
from brats_tf.training.starting_weights import check_start, fill_in_start, warn_of_known_patients
from brats_tf.training.tensorboard_images import draw_log
from brats_tf.training.time_budget import epochs_for, with_epochs
from brats_tf.training.training_data import prepare_training_data

log = logging.getLogger(__name__)
CACHE_FOLDER = "cache"  # In the folder of runs, unless another one is named.


@stop_on_signals()  # Whatever comes before the first step is done again, or kept, by the same command.
@free_graphs()
def train(
    configs: Sequence[Config],
    cases: Sequence[Case],
    *,
    runs: str | Path,
    cache_dir: str | Path | None = None,
    validation: Sequence[Case] | None = None,
    options: TrainingOptions | None = None,
) -> list[Path]:
    """Trains one network per config, one after another, and returns their folders, `<runs>/<run name>`.

    An interrupted run is resumed and a finished one is kept, if settings and data are the same. Applies the
    process-wide settings of `runtime.tensorflow`: a seed gives the same bytes on a CPU wherever it is called from.

    Args:
        configs: one per network. Those that differ only in their modalities share one compiled network; each starts
            from the same weights as if it had been trained alone.
        cases: `Case`s with truth.
        runs: the folder of all runs. An existing run with other settings is refused, or with `options.restart` renamed.
        cache_dir: the folder of preprocessed cases, reused by later runs; None for `<runs>/cache`.
        validation: cases to validate on; None for those that each config's split keeps from training.
        options: see `TrainingOptions`.

    Raises:
        InputError: when a run's folder is in use, is that of two configs or holds another run, a case is bad, the
            weights cannot be found, the crop does not fit the network, or the loss becomes NaN.
        Preempted: when a signal stopped it; everything is saved.
    """
    runs, options = Path(runs), options or TrainingOptions()
    _check_apart([runs / config.named(options.name) for config in configs])
    make_deterministic(configs[0].seed)
    strategy = choose_strategy(options.devices)
    cache_dir, stopped, restarted = Path(cache_dir or runs / CACHE_FOLDER), None, options.restart and is_first()
    known = {"cases": cases, "validation": validation, "cache_dir": cache_dir, "options": options}
    try:
        ready, data = _prepared(configs, partial(prepare_training_data, **known), runs, options, strategy)
    except Preempted as preempted:
        stopped = preempted
    for config in configs if restarted else ():  # Before the first trains, or now: without --restart it then resumes.
        set_aside(runs / config.named(options.name))
    if stopped:
        raise stopped
    folders = []
    for one in data:
        run = runs / one.config.named(options.name)
        unfinished = is_first() and not is_trained(run, one.identity)
        with lock(run) if unfinished else nullcontext():
            unfinished = unfinished and open_run(run, one.identity) != FINISHED
            # All machines wait here for the first one, which knows whether there is anything to do.
            if agree(strategy, unfinished)[0]:
                ready = make_ready(one.config, strategy, ready, begun=has_begun(run))
                stopped_by = _train(one, ready, run, strategy, options)
                if stopped_by and one is not data[-1]:
                    raise Preempted(f"Stopped by {stopped_by} after {run.name}. {RESUME}")
        folders.append(run)
    return folders


def _check_apart(folders):
    """Raises `InputError` unless there are folders of runs, and all different."""
    twice = [str(folder) for number, folder in enumerate(folders) if folder in folders[:number]]
    if twice or not folders:
        raise InputError(
            f"Each network needs a config, and a folder of its own: a name or `runs` for each. Received: "
            f"{', '.join(twice) + ' twice' if twice else 'no config'}."
        )


def _prepared(configs, data_of, runs, options, strategy):
    """All that may be refused: (`ReadyNetwork` of the first, `TrainingData` of each, by `data_of` its config)."""
    started = time.monotonic()
    folders, restart = [runs / config.named(options.name) for config in configs], options.restart
    asked = [asked_precision(config, run, restart=restart) for config, run in zip(configs, folders, strict=True)]
    formats = {one: resolved_precision(one) for one in dict.fromkeys(asked)}
    configs = [config.replace(precision=formats[one]) for config, one in zip(configs, asked, strict=True)]
    check_devices(configs, strategy.num_replicas_in_sync)
    settled = configs
    if options.minutes is not None:  # None where the number of epochs is still to be measured.
        settled = [with_saved_epochs(*one, restart=restart) for one in zip(configs, folders, strict=True)]
    with explain_lack_of_memory(configs[0]):
        begun = all(map(has_begun, folders)) and not restart
        keep_start = len(configs) > 1 or not all(settled)
        ready = make_ready(settled[0] or configs[0], strategy, keep_start=keep_start, begun=begun)
    warn_of_costs(ready, strategy.num_replicas_in_sync)
    for config, known, run in zip(configs, settled, folders, strict=True):
        if is_first():
            check_run(run, (known or config).to_dict(), restart=restart or known is None)
        network = ready.network if built_alike(configs[0], config) else None
        check_start(config, run, restart=restart, network=network)
    data = [data_of(config) for config in configs]
    if not all(settled):
        deadline = started + 60 * options.minutes
        with _explain_errors(data[0], memory_gb(ready, strategy.num_replicas_in_sync)):
            epochs = epochs_for(deadline, data[0], ready, strategy, networks=len(configs))
        settled = [one or with_epochs(config, epochs) for one, config in zip(settled, configs, strict=True)]
        ready.config = settled[0]
    data = [dataclasses.replace(one, config=config) for one, config in zip(data, settled, strict=True)]
    return ready, data


def _train(data, ready, run, strategy, options):
    """Trains one network in its folder, from its last checkpoint on. Returns the signal that asks to stop, or None."""
    config, devices = data.config, strategy.num_replicas_in_sync
    log.info(first_line(run.name, data, ready, devices))
    with progress_bar() as bar:
        callbacks = RunCallbacks(data, ready, run, strategy=strategy, options=options)
        start = callbacks.resume()
        if start == (0, 0) and ready.lacking:
            raise ready.lacking
        if config.training.start_from and start == (0, 0):  # A checkpoint has the weights that came of them.
            warn_of_known_patients(config, {*data.split.validation, *(case.id for case in data.validation)})
            callbacks.record.facts["initial_weights"] = fill_in_start(ready.network, config)
        if is_first():
            callbacks.record.write(start[0])
            data.split.save(run)
            config.save(run)  # Last: with it the folder holds a run.
        with callbacks.saving.catch_signals(), _explain_errors(data, memory_gb(ready, devices)):
            batches = data.batches(strategy, start)
            fit(ready.trainer, batches, data.length, start=start, callbacks=callbacks.in_order(bar, start))
    if is_first():
        draw_log(run)
        flush(run)  # Before the checkpoints go.
        callbacks.record.write(config.training.epochs, status=FINISHED)
    callbacks.checkpoints.remove()
    seconds, peak = callbacks.record.seconds, callbacks.record.peak
    log.info(
        f"{run.name}: {config.training.epochs} epoch(s) in {seconds:.0f} s, peak memory {peak:.1f} GB, saved to {run}."
    )
    return callbacks.saving.signal


@contextmanager
def _explain_errors(data, needed_gb):
    """Turns TensorFlow's errors about lack of memory, or about a missing cached case, into one sentence."""
    try:
        with explain_lack_of_memory(data.config, needed_gb):
            yield
    except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        file = data.unreadable()
        if file is None:  # Not about a file.
            raise
        raise InputError(
            f"The cached case {file} could not be read while training "
            f"({type(error).__name__}). The checkpoints stay; run the same command to prepare what is missing and to "
            "resume. `brats-tf preprocess --verify` removes what is damaged."
        ) from error
