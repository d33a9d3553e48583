"""Measure the data plane on this machine: preparation, streaming, memory, augmentation, each in its own process."""

import logging
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice, product, repeat
from pathlib import Path

import numpy as np
from rich.table import Table

from bench.augmentation import PEERS, bench_augmentation
from bench.timing import in_own_process
from brats_tf.config.settings import CROP
from brats_tf.errors import InputError
from brats_tf.preprocessing.cache import CacheSettings
from brats_tf.regions import MODALITIES
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import console
from brats_tf.runtime.files import write_json
from brats_tf.runtime.system import machine, resident_gb
from brats_tf.runtime.tensorflow import import_tensorflow

log = logging.getLogger("brats_tf.bench")

ROUNDS, PAIRS = 5, 6
STEPS, CASES = 1000, 32  # Of the memory measurement.
TIMED_STEPS = 10


def bench_data(cases, *, results, crop=CROP):
    """Measures with real or made-up cases, prints two tables and writes `<results>/bench_data.json`.

    Args:
        cases: `Case`s with truth and all modalities; eight or more tell something about workers.
        results: a folder.
        crop: (H, W, D).

    Returns:
        What it wrote: machine, crop, number of cases; seconds a case to prepare, the share of it that is gunzip, and
        how much faster two workers are; crops a second from a warm store, and what a training step takes with the
        stream and with one batch in memory; resident memory each 100 of 1,000 steps; milliseconds of each operation,
        here and in other libraries where they are installed.
    """
    if not cases:
        raise InputError("The measurement needs cases with all modalities and truth. Received: none.")
    log.info(f"Measuring preparation, streaming, memory and augmentation with {len(cases)} cases: about ten minutes.")
    figures = {"machine": machine(), "commit": git_commit(), "crop": crop, "cases": len(cases)}
    with tempfile.TemporaryDirectory(dir=Path(results).resolve().parent) as folder:
        for measure in (_preparation, _streaming):
            log.info(f"{measure.__name__.strip('_').capitalize()} ...")
            figures |= in_own_process(measure, cases, folder, crop)
        log.info("Memory ...")
        figures["memory"] = {
            name: in_own_process(_memory, cases, folder, crop, name) for name in ("none", "nnunet-like")
        }
    log.info("Augmentation ...")
    figures["augmentation_ms"] = bench_augmentation(crop)
    _show(figures)
    path = Path(results) / "bench_data.json"
    write_json(path, figures)
    log.info(f"Written to {path}.")
    return figures


def _preparation(cases, folder, crop):
    """Rounds of gunzip alone, one worker and two, in turn, so that a machine's moods strike all of them."""
    from brats_tf.data.layouts import PARTS
    from brats_tf.data.nifti import unpacked
    from brats_tf.preprocessing.cache import CacheSettings
    from brats_tf.preprocessing.fill_cache import prepare_cases

    def unpack(workers):
        paths = dict.fromkeys(case.require(part) for case in cases for part in PARTS)
        with ThreadPoolExecutor(workers) as pool:
            # Their sizes, not their contents, which would be gigabytes.
            list(pool.map(lambda path: len(unpacked(path.read_bytes(), 2**40)), paths))

    def prepare(workers):
        shutil.rmtree(folder, ignore_errors=True)
        prepare_cases(cases, parts=PARTS, settings=CacheSettings(crop), folder=folder, workers=workers)

    prepare(2)
    seconds = {}
    for _, run, workers in product(range(ROUNDS), (unpack, prepare), (1, 2)):
        started = time.perf_counter()
        run(workers)
        seconds.setdefault((run, workers), []).append((time.perf_counter() - started) / len(cases))
    best = {key: float(min(times)) for key, times in seconds.items()}  # What others do on the machine only adds.
    return {
        "prepare_s": best[prepare, 1],
        "gunzip_s": best[unpack, 1],
        "gunzip_share": best[unpack, 1] / best[prepare, 1],
        "two_workers_s": best[prepare, 2],
        "two_workers_speedup": best[prepare, 1] / best[prepare, 2],
        "gunzip_speedup": best[unpack, 1] / best[unpack, 2],
    }


def _stored(cases, folder, crop):
    """The store that `_preparation` left, one entry for each case and modality."""
    from brats_tf.data.layouts import PARTS
    from brats_tf.preprocessing.cache import CachedCase
    from brats_tf.preprocessing.fill_cache import prepare_cases

    stored = prepare_cases(cases, parts=PARTS, settings=CacheSettings(crop), folder=folder)
    return [
        CachedCase(case.id, {"flair": case.volumes[name]}, case.classes, case.box)
        for name in MODALITIES
        for case in stored
    ]


def _streaming(cases, folder, crop):
    """Crops a second; and one training step of a small network with the stream and with one batch, in turn."""
    import_tensorflow()
    from brats_tf.pipeline.stream import read_ahead

    stored = _stored(cases, folder, crop)
    batches = iter(read_ahead(_stream(stored, crop)))
    crops = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(20):
            next(batches)
        crops.append(20 / (time.perf_counter() - started))
    network, held = _small_network(crop), next(batches)
    network.train_step_on(held)
    seconds = {"stream": [], "memory": []}
    sources = {"stream": batches, "memory": repeat(held)}
    for turn in range(PAIRS):
        for name in sorted(sources, reverse=bool(turn % 2)):
            started = time.perf_counter()
            for batch in islice(sources[name], TIMED_STEPS):
                network.train_step_on(batch)
            seconds[name].append((time.perf_counter() - started) / TIMED_STEPS)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    return {
        "crops_per_s": float(np.median(crops)),
        "step_with_stream_s": medians["stream"],
        "step_in_memory_s": medians["memory"],
        "stream_ratio": medians["stream"] / medians["memory"],
    }


def _memory(cases, folder, crop, augmentation):
    """Resident memory over 1,000 training steps of a tiny network."""
    import_tensorflow()
    from brats_tf.pipeline.stream import read_ahead

    stored = list(islice(cycle(_stored(cases, folder, crop)), CASES))
    network, resident = _network(crop, filters=(), augmentation=augmentation), {}
    for step, batch in enumerate(islice(read_ahead(_stream(stored, crop)), STEPS), start=1):
        network.train_step_on(batch)
        if step % 100 == 0:
            resident[step] = resident_gb()
    return {"gb": list(resident.values()), "growth": resident[STEPS] / resident[100] - 1}


def _stream(stored, crop):
    from brats_tf.pipeline.stream import Order, training_stream

    return training_stream(stored, Order(), modalities=("flair",), crop=crop)


class _Stepper:
    """A compiled network and its step as one graph."""

    def __init__(self, network):
        tf = import_tensorflow()
        self.train_step_on = tf.function(network.train_step, reduce_retracing=True)


def _small_network(crop):
    """Half a second a step, where that of the embedding paper takes ten: input would show."""
    return _network(crop, filters=(8, 8, 8), augmentation="none")


def _network(crop, *, filters, augmentation):
    import keras

    from brats_tf.training.loop import Trainer

    inputs = x = keras.Input((*crop, 1))
    for count in filters:
        x = keras.layers.Conv3D(count, 3, padding="same", activation="relu")(x)
    network = keras.Model(inputs, keras.layers.Conv3D(3, 1, activation="sigmoid")(x))
    trainer = Trainer(network.inputs, network.outputs)
    trainer.targets = {"outputs": "regions", "augmentation": augmentation}
    trainer.forward = lambda volumes: [trainer(volumes, training=True)]
    trainer.compile("sgd", "mean_squared_error", jit_compile=False)
    trainer.optimizer.build(trainer.trainable_variables)
    return _Stepper(trainer)


def _show(figures):
    table = Table("figure", "value", title=figures["machine"])
    for name, value in figures.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.3g}")
    for name, memory in figures["memory"].items():
        table.add_row(f"memory growth, {name}", f"{memory['growth']:.3g}")
    console.print(table)
    table = Table("augmentation, ms", "ours", *PEERS, title=figures["machine"])
    for name, took in figures["augmentation_ms"].items():
        table.add_row(name, *(f"{took[who]:.2g}" if who in took else "-" for who in ("ours", *PEERS)))
    console.print(table)
