"""Measure the ensemble's networks beside those of other systems, and the whole way from files to a label map.

MONAI's SegResNet is that of its BraTS bundle (16 filters, one window of 240x240x160 voxels, four modalities); nnU-Net's
PlainConvUNet has the plans of BraTS (patch 128x128x128). PyTorch, MONAI and dynamic-network-architectures are optional
(extra `bench`). Every row comes from a process of its own; a row's `ratio` is its time over that of its reference.
"""

import logging
import shutil
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.table import Table

from bench import torch_networks
from bench.network import matrix_product
from bench.timing import file_name, in_own_process, median_seconds, precisions
from bench.training import one_step, prepared_trainer
from brats_tf.config.config import Config
from brats_tf.config.execution import ForwardOptions
from brats_tf.config.settings import CROP
from brats_tf.errors import format_shape
from brats_tf.regions import MODALITIES
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import console, track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.system import cpu_has_bfloat16, machine, peak_gb
from brats_tf.runtime.tensorflow import import_tensorflow

log = logging.getLogger("brats_tf.bench")
PLAIN = "Keras's normalisation, plain convolutions"
# Kind of row -> the row that its ratio refers to.
REFERENCES = {
    "matrix": ("matrix", "float32"),
    "forward": ("forward", "float32"),
    "step": (f"step, {PLAIN}", "float32"),
    "files": ("files to label map, MONAI's bundle", "float32"),
    "start": ("start of four networks", "float32"),
    "step of four modalities": ("step, SegResNet", "float32"),
}
PLUS = "embedding-plus"


def bench_comparison(config, case, *, results, rows=None):
    """Measures all rows, prints a table and writes a file into the folder `results`.

    It is `bench_comparison.json`, or on a processor without bfloat16, with rows in float32 alone,
    `bench_comparison-float32.json`.

    Args:
        config: a `Config` of preset embedding with one modality.
        case: a `Case` with four modalities.
        results: a folder.
        rows: kinds of rows to measure, keys of `REFERENCES`; None for all.

    Returns:
        What it wrote: machine, crop, case and rows of {"what", "kind", "precision", "seconds", "gflop", "peak_gb",
        "gflops", "share_of_matrix_rate", "ratio"}; seconds are medians.
    """
    there = all(find_spec(name) for name in torch_networks.LIBRARIES)
    if not there:
        log.info(
            f"Not all of {', '.join(torch_networks.LIBRARIES)} are installed (extra `bench`): only ours is measured."
        )
    log.info(f"Measuring {config.preset} and others on {case.id}: about a quarter of an hour on two cores.")
    figures = {
        "machine": machine(),
        "commit": git_commit(),
        "bfloat16": cpu_has_bfloat16(),
        "crop": config.data.crop,
        "case": case.id,
    }
    path = Path(results) / file_name("comparison", precisions())
    with tempfile.TemporaryDirectory(dir=path.resolve().parent.parent) as folder:
        planned = [one for one in _planned(config, case, folder, there) if rows is None or one[1] in rows]
        measured = []
        for what, kind, precision, measure, arguments in track(planned, "Measuring"):
            found = in_own_process(measure, *arguments)
            measured.append({"what": what, "kind": kind, "precision": precision, **found})
            write_json(path, figures | {"rows": with_ratios(measured)})  # An interruption keeps what was measured.
    _show(figures, measured)
    log.info(f"Written to {path}.")
    return figures | {"rows": measured}


def _planned(config, case, folder, there):
    """(what, kind, precision, function, its arguments) of every row."""
    formats = precisions()
    ours = [("matrix", "matrix", one, matrix_product, (one,)) for one in formats]
    ours += [("forward", "forward", one, _forward, (config, one, False)) for one in formats]
    ours += [(f"forward, {PLAIN}", "forward", "float32", _forward, (config, "float32", True))]
    ours += [(f"step, {PLAIN}", "step", "float32", _step, (config, "float32", True))]
    ours += [("step", "step", one, _step, (config, one, False)) for one in formats]
    peers = [
        (f"forward, {name}, {format_shape(size)}", "forward", "float32", torch_networks.forward, (name, size))
        for name, size in torch_networks.sizes(config.data.crop)
    ]
    bundle = [("files to label map, MONAI's bundle", "files", "float32", torch_networks.files, (case, folder))]
    one_each = one_of_each(config)
    files = [("files to label map", "files", one, _files, (one_each, case, folder, one)) for one in formats]
    ours += [("start of four networks", "start", one, _start, (one_each, folder, one)) for one in formats]
    crop = None if config.data.crop == CROP else config.data.crop  # The preset's own beside the paper's.
    plus = Config.from_preset(PLUS, modalities=MODALITIES, augmentation="none", crop=crop)
    for one in formats:
        files += [(f"files to label map, {PLUS}", "files", one, _files, ([plus], case, folder, one))]
        ours += [(f"forward, {PLUS}", "forward", one, _forward, (plus, one, False))]
    padded = torch_networks.padded(plus.data.crop)
    steps = [("step, SegResNet", torch_networks.step, ("SegResNet", padded))] if there else []
    steps += [(f"step, {PLUS}", _step, (plus,))]
    kind = "step of four modalities"
    many = [
        (what, kind, one, measure, (*given, one) if measure is not _step else (*given, one, False))
        for what, measure, given in steps
        for one in formats
    ]
    return ours + (peers if there else []) + many + (bundle if there else []) + files


def with_ratios(rows):
    """Adds to each row its rate, its share of the matrix rate and its time over that of its kind's reference."""
    rates = {row["precision"]: row["gflop"] / row["seconds"] for row in rows if row["kind"] == "matrix"}
    seconds = {(row["what"], row["precision"]): row["seconds"] for row in rows}
    for row in rows:
        reference = REFERENCES[row["kind"]]
        if "gflop" in row:
            row["gflops"] = row["gflop"] / row["seconds"]
            if "float32" in rates:
                row["share_of_matrix_rate"] = row["gflops"] / rates["float32"]
        if reference in seconds:
            row["ratio"] = row["seconds"] / seconds[reference]
    return rows


def _network(config, precision, of_keras):
    import_tensorflow()
    from brats_tf.models import blocks, winograd
    from brats_tf.models.build import build_network

    if of_keras:
        blocks.GroupNormalization = _keras_normalisation
        winograd.may_take_sections = lambda _: False
    return build_network(config, precision=precision)


def _keras_normalisation(groups, *, relu, name):
    import keras

    def normalise(x):
        x = keras.layers.GroupNormalization(groups, name=name)(x)
        return keras.layers.Activation("relu", name=f"{name}_relu")(x) if relu else x

    return normalise


def _forward(config, precision, of_keras):
    network = _network(config, precision, of_keras)
    from brats_tf.inference.predictor import compiled_forward
    from brats_tf.models.cost import multiply_adds

    run, volume = compiled_forward(network), np.random.default_rng(0).standard_normal((1, *config.input_shape))
    seconds = median_seconds(lambda: run(None, volume.astype(np.float32)))
    return {"gflop": 2 * multiply_adds(network) / 1e9, "seconds": seconds, "peak_gb": peak_gb()}


def _step(config, precision, of_keras):
    network = _network(config, precision, of_keras)
    from brats_tf.runtime.tensorflow import make_deterministic

    make_deterministic(config.seed)
    trainer = prepared_trainer(network, config, keep="all" if of_keras else "step")
    return {"seconds": median_seconds(one_step(trainer, config), repeats=2), "peak_gb": peak_gb()}


def _files(configs, case, folder, precision):
    """Networks with random weights, loaded and traced before; reading, predicting and writing is timed."""
    import_tensorflow()
    from brats_tf.inference.ensemble import load_ensemble
    from brats_tf.inference.predict import predict_cases

    predictors = load_ensemble(random_runs(configs, folder), forward=ForwardOptions(precision=precision))

    def predict():
        shutil.rmtree(Path(folder) / "maps", ignore_errors=True)
        predict_cases(predictors, [case], out=Path(folder) / "maps")

    return {"seconds": median_seconds(predict, repeats=2), "peak_gb": peak_gb()}


def _start(configs, folder, precision):
    """Of networks with random weights, until the first predicts: to import TensorFlow, to build, to load, to trace."""
    runs = random_runs(configs, folder)
    started = time.perf_counter()
    import_tensorflow()
    from brats_tf.inference.ensemble import load_ensemble

    first = load_ensemble(runs, forward=ForwardOptions(precision=precision))[0]
    volume = np.zeros(configs[0].input_shape, np.float32)
    first.predict(volume)
    until_then = time.perf_counter() - started
    one_pass = median_seconds(lambda: first.predict(volume), warm_up=False)
    return {"seconds": until_then - one_pass, "peak_gb": peak_gb()}


def one_of_each(config):
    """The config of a network of one modality, for each modality."""
    return [config.replace(modalities=(modality,)) for modality in MODALITIES]


def random_runs(configs, folder):
    """The folders of networks with these configs, which differ in their modalities, as if they had been trained.

    They are made in a process of their own, because what loads them measures its memory.
    """
    return in_own_process(_save_random_runs, configs, folder)


def _save_random_runs(configs, folder):
    import_tensorflow()
    from brats_tf.models.build import build_network
    from brats_tf.runs.network import save_as_runs

    network, random = build_network(configs[0]), np.random.default_rng(0)
    # All of them, as a training changes all of them: `StoredWeights` knows them apart.
    drawn = [one + random.uniform(0, 0.01, one.shape).astype(one.dtype) for one in network.get_weights()]
    network.set_weights(drawn)
    return save_as_runs(network, configs, Path(folder) / "runs")


def _show(figures, rows):
    table = Table("what", "precision", "s", "ratio", "of the matrix rate", "GB", title=figures["machine"])
    for row in rows:
        share = f"{100 * row['share_of_matrix_rate']:.0f} %" if "share_of_matrix_rate" in row else ""
        ratio, memory = (f"{row[name]:.2f}" if name in row else "" for name in ("ratio", "peak_gb"))
        table.add_row(row["what"], row["precision"], f"{row['seconds']:.2f}", ratio, share, memory)
    console.print(table)
