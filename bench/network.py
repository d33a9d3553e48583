"""Measure the network on this machine: seconds, peak memory, and the machine's own matrix product for scale.

Each figure comes from a process of its own, so that one's memory does not count for the other.
"""

import logging
from pathlib import Path

from rich.table import Table

from bench.timing import in_own_process, median_seconds
from bench.training import one_step, prepared_trainer
from brats_tf.config.config import Config
from brats_tf.config.presets import DEFAULT_PRESET
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import console, track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.system import machine
from brats_tf.runtime.tensorflow import import_tensorflow

log = logging.getLogger("brats_tf.bench")

MATRIX, PRODUCTS = 4096, 6  # Together about as much work as one pass at full size, so that both are as sustained.


def bench_network(config, *, results):
    """Measures one config's network, prints a table and writes `<results>/bench.json`.

    Its name says preset and backbone where they are not the usual ones, for example `bench_embedding-plus.json`.

    Returns:
        What it wrote: machine, preset, backbone, crop, GFLOP a pass, GFLOP/s of the matrix product, seconds and peak GB
        of a pass and of a training step, share of the matrix rate. Times are medians of three after one warm-up.
    """
    log.info(
        f"Measuring {config.preset} at {'x'.join(map(str, config.data.crop))}: about two minutes at full size on two "
        "cores."
    )
    figures = {
        "machine": machine(),
        "commit": git_commit(),
        "preset": config.preset,
        "backbone": config.network.backbone,
        "crop": config.data.crop,
    }
    matrix = in_own_process(matrix_product, "float32")
    figures["matrix_gflops"] = matrix["gflop"] / matrix["seconds"]
    for measure in (_forward, _step):
        figures |= in_own_process(measure, config)
    figures["share_of_matrix_rate"] = figures["gflop"] / figures["forward_s"] / figures["matrix_gflops"]
    table = Table("figure", "value", title=figures["machine"])
    for name, value in figures.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.3g}")
    console.print(table)
    path = Path(results) / _file_name(config)
    write_json(path, figures)
    log.info(f"Written to {path}.")
    return figures


def _file_name(config):
    usual = Config.from_preset(config.preset, modalities=config.data.modalities).network.backbone
    names = [] if config.preset == DEFAULT_PRESET else [config.preset]
    names += [] if config.network.backbone == usual else [config.network.backbone]
    return f"{'_'.join(['bench', *names])}.json"


def bench_backbones(names, *, results):
    """Describes backbones and measures preset `embedding` with each.

    Writes `<results>/backbones.json`, or of some of them `backbones-some.json`.

    Args:
        names: keys of `BACKBONES`; None for all of them.
        results: a folder. The file is written anew after each backbone; an interruption keeps what was measured.

    Returns:
        What it wrote: machine, crop and, for each backbone, its facts, its parameters, the GFLOP and the seconds of a
        pass of the whole network (median of three after one warm-up) and its peak GB.
    """
    import_tensorflow()
    from brats_tf.models.backbones import BACKBONES, UNFIT

    path = Path(results) / ("backbones-some.json" if names else "backbones.json")
    names = names or tuple(BACKBONES)
    configs = [Config.from_preset("embedding", modalities=("flair",), backbone=name) for name in names]
    log.info(f"Measuring {len(configs)} backbones: about half a minute each at full size on two cores.")
    figures = {"machine": machine(), "commit": git_commit(), "crop": configs[0].data.crop}
    figures |= {"backbones": {}, "unfit": UNFIT}
    for config in track(configs, "Measuring"):
        figures["backbones"][config.network.backbone] = in_own_process(_backbone, config)
        write_json(path, figures)
    log.info(f"Written to {path}.")
    return figures


def matrix_product(precision):
    """{"gflop", "seconds"} of some products of large matrices."""
    tf = import_tensorflow()
    matrix = tf.cast(tf.random.normal((MATRIX, MATRIX)), precision)

    def multiply():
        product = matrix
        for _ in range(PRODUCTS):
            product = matrix @ product
        return product.numpy()

    return {"gflop": PRODUCTS * 2 * MATRIX**3 / 1e9, "seconds": median_seconds(multiply)}


def _forward(config):
    import_tensorflow()
    from brats_tf.models.build import build_network

    return _measure_forward(build_network(config), config)


def _measure_forward(network, config):
    tf = import_tensorflow()
    from brats_tf.models.cost import multiply_adds, prediction_bytes
    from brats_tf.runtime.system import peak_gb

    forward = tf.function(lambda volume: network(volume, training=False))
    volume = tf.random.normal((1, *config.input_shape))
    return {
        "gflop": 2 * multiply_adds(network) / 1e9,
        "forward_s": median_seconds(lambda: forward(volume).numpy()),
        "forward_peak_gb": peak_gb(),
        "forward_estimated_gb": prediction_bytes(network, networks=1) / 1e9,
    }


def _backbone(config):
    import_tensorflow()
    from brats_tf.models.backbones import get_backbone
    from brats_tf.models.build import build_network

    backbone = get_backbone(config.network.backbone)
    network = build_network(config)
    pyramid = network.get_layer(config.network.backbone)
    measured = _measure_forward(network, config)
    return {
        "source": backbone.source,
        "weights": backbone.weights,
        "scaling": backbone.scaling,
        "note": backbone.note,
        "channels": {scale: features.shape[-1] for scale, features in pyramid.output.items()},
        "parameters": pyramid.count_params(),
        "gflop": measured["gflop"],
        "seconds": measured["forward_s"],
        "peak_gb": measured["forward_peak_gb"],
    }


def _step(config):
    import_tensorflow()
    from brats_tf.models.build import build_network
    from brats_tf.models.cost import training_bytes
    from brats_tf.runtime.system import peak_gb

    network = build_network(config)
    return {
        "step_s": median_seconds(one_step(prepared_trainer(network, config), config)),
        "step_peak_gb": peak_gb(),
        "step_estimated_gb": training_bytes(network, batch_size=1) / 1e9,
    }
