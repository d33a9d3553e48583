"""Measure AlbuNet and its sliding window beside PyTorch's twin and MONAI's `sliding_window_inference`.

PyTorch, torchvision and MONAI are optional (extra `bench`). Every figure comes from a process of its own.
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.table import Table

from bench.timing import in_own_process, median_seconds
from brats_tf.errors import InputError
from brats_tf.inference.sliding_window import window_starts
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.preprocessing.transforms import brain_box
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import console, track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.system import machine, peak_gb
from brats_tf.runtime.tensorflow import import_tensorflow

log = logging.getLogger("brats_tf.bench")

PEERS = ("torch", "torchvision", "monai")
FIGURES = {
    "forward_s": "a batch",
    "forward_peak_gb": "its peak memory",
    "windows_s": "a case in windows, the brain's box",
    "windows_peak_gb": "its peak memory",
    "whole_s": "a case in windows, every one",
    "whole_peak_gb": "its peak memory",
}


def bench_windows(config, case, *, results):
    """Measures a config's forward pass on a batch and a case in windows, ours and PyTorch's, and writes the figures.

    Args:
        config: of a network that sees patches.
        case: a `Case`; its voxels decide where the brain's box lies.
        results: the folder for `bench_windows.json`.

    Returns:
        What it wrote: machine, sizes and {"ours", "peers": {figure of `FIGURES`: value}}; seconds of a batch are
        medians of three after one warm-up, those of a case are of one after one batch. Without PyTorch only ours.
    """
    if config.data.patch_size is None:
        raise InputError("Windows are for networks that see patches, such as preset albunet3d.")
    volume = prepare_case(case, modalities=config.data.modalities, crop=None, with_truth=False).volume
    box = brain_box(volume.any(axis=-1))
    inside = tuple(part.stop - part.start for part in box)
    there = all(find_spec(name) for name in PEERS)
    log.info(f"Measuring {config.preset} on {case.id}: some ten minutes at full size on two cores.")
    if not there:
        log.info("PyTorch, torchvision and MONAI (extra `bench`) are not all installed: only ours is measured.")
    figures = {
        "machine": machine(),
        "commit": git_commit(),
        "preset": config.preset,
        "case": case.id,
        "shape": volume.shape,
        "box": inside,
        "batch": [config.training.batch_size, *config.input_shape],
        "step": config.window_stride,
        "windows": [_count(sizes, config) for sizes in (inside, volume.shape[:3])],
    }
    measures = [("ours", _our_batch), ("ours", _our_windows)]
    if there:
        measures += [("peers", _their_batch), ("peers", _their_windows), ("peers", _their_every_window)]
    for who, measure in track(measures, "Measuring"):
        figures.setdefault(who, {}).update(in_own_process(measure, config, volume))
    _show(figures)
    path = Path(results) / "bench_windows.json"
    write_json(path, figures)
    log.info(f"Written to {path}.")
    return figures


def _count(sizes, config):
    """How many windows cover a volume of these sizes."""
    starts = zip(sizes, config.data.patch_size, config.window_stride, strict=True)
    return int(np.prod([len(window_starts(*one)) for one in starts]))


def _our_batch(config, volume):
    _, run = _ours(config)
    batch = _batch(config)
    return {"forward_s": median_seconds(lambda: run(None, batch)), "forward_peak_gb": peak_gb()}


def _our_windows(config, volume):
    network, run = _ours(config)  # First: it imports TensorFlow quietly.
    from brats_tf.inference.predictor import Predictor

    run(None, _batch(config)[:1])
    return _one("windows", lambda: Predictor(config, network, run).predict(volume))


def _ours(config):
    import_tensorflow()
    from brats_tf.inference.predictor import compiled_forward
    from brats_tf.models.registry import get_network

    network = get_network(config.network.name).build(**config.network_settings())
    return network, compiled_forward(network)


def _their_batch(config, volume):
    torch, twin = _theirs(config)
    batch = _for_torch(torch, _batch(config))
    with torch.inference_mode():
        return {"forward_s": median_seconds(lambda: twin(batch)), "forward_peak_gb": peak_gb()}


def _their_windows(config, volume):
    return _slide(config, volume[brain_box(volume.any(axis=-1))], "windows")


def _their_every_window(config, volume):
    return _slide(config, volume, "whole")


def _slide(config, volume, name):
    torch, twin = _theirs(config)
    from monai.inferers import sliding_window_inference

    size, step = ([sizes[axis] for axis in (2, 0, 1)] for sizes in (config.data.patch_size, config.window_stride))
    overlap = [1 - one / whole for one, whole in zip(step, size, strict=True)]
    case = _for_torch(torch, volume[None])
    with torch.inference_mode():
        twin(_for_torch(torch, _batch(config)[:1]))
        return _one(name, lambda: sliding_window_inference(case, size, 1, twin, overlap=overlap))


def _theirs(config):
    """(torch, the twin) in a process that never loads TensorFlow."""
    os.environ["KERAS_BACKEND"] = "torch"
    import torch
    import torchvision  # noqa: F401

    from bench.torch_albunet import torch_albunet

    return torch, torch_albunet(depth_layers=config.network.depth_layers)


def _for_torch(torch, volumes):
    """(B, H, W, D, C) -> (B, C, D, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(volumes.transpose(0, 4, 3, 1, 2)))


def _batch(config):
    shape = (config.training.batch_size, *config.input_shape)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _one(name, run):
    return {f"{name}_s": median_seconds(run, repeats=1, warm_up=False), f"{name}_peak_gb": peak_gb()}


def _show(figures):
    who = [name for name in ("ours", "peers") if name in figures]
    table = Table("figure", *(name if name == "ours" else "PyTorch, MONAI" for name in who), title=figures["machine"])
    for figure, title in FIGURES.items():
        unit = "GB" if figure.endswith("gb") else "s"
        cells = [f"{figures[name][figure]:.3g} {unit}" if figure in figures[name] else "-" for name in who]
        table.add_row(title, *cells)
    console.print(table)
