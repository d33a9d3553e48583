"""Measure each operation of augmentation beside the same one of other libraries, in one run."""

import functools

import numpy as np

from bench.timing import in_own_process, median_seconds
from brats_tf.runtime.tensorflow import import_tensorflow

PEERS = ("batchgenerators", "monai")  # Functions of `peers`.
SLOW_S = 2  # A batch that takes longer is timed once.
BATCH, REPEATS = 4, 7  # Crops a batch, and batches that are timed.
# Each operation with one strength, about the middle of what presets draw.
OPERATIONS = {
    "mirror": (True, True, True),
    "rotation": (10.0, 10.0, 10.0),
    "scale": 1.2,
    "elastic": 0.1,
    "noise": 0.1,
    "blur": 1.0,
    "brightness": 1.2,
    "contrast": 1.2,
    "low_resolution": 0.6,
    "gamma": 0.7,
    "inverted_gamma": 0.7,
    "bias_field": 0.2,
}


def bench_augmentation(crop):
    """{operation: {"ours": ms, and for each other library that is installed and has it: ms}}, of a crop (H, W, D)."""
    ours = in_own_process(_ours, crop)
    others = {name: in_own_process(_peer, name, crop) for name in PEERS}
    return {
        name: {"ours": ours[name], **{peer: took[name] for peer, took in others.items() if name in took}}
        for name in OPERATIONS
    }


def _crops(crop):
    """A batch as lists of arrays, and one label map."""
    random = np.random.default_rng(0)
    return [random.standard_normal(crop, dtype=np.float32) for _ in range(BATCH)], random.integers(0, 4, crop, np.uint8)


def _ours(crop):
    """Milliseconds a crop of each operation, in one graph over a batch."""
    tf = import_tensorflow()
    from brats_tf.pipeline import augment_ops as operations

    channels, classes = _crops(crop)
    channels, classes = [tf.constant(channel) for channel in channels], tf.constant(classes)
    seeds = tf.constant([[1, number] for number in range(BATCH)], tf.int64)

    def elastic(channel, share, seed):
        return operations.warp([channel], classes, tf.eye(3), operations.displacement(crop, share, seed))

    special = {
        "mirror": lambda channel, flips, _: operations.mirror([channel], classes, flips),
        "rotation": lambda channel, degrees, _: operations.warp(
            [channel], classes, operations.rotation_matrix(degrees)
        ),
        "scale": lambda channel, factor, _: operations.warp([channel], classes, tf.eye(3) / factor),
        "elastic": elastic,
        "noise": operations.noise,
        "bias_field": lambda channel, size, _: operations.bias_field(channel, tf.fill((4, 4, 4), size)),
    }

    @tf.function
    def on_batch(name, strengths, seeds):
        # One strength and seed for each, lest what depends on them alone be computed once for all.
        plain = lambda channel, strength, _: getattr(operations, name)(channel, strength)  # noqa: E731
        operation = special.get(name, plain)
        return [operation(channel, strengths[n], seeds[n]) for n, channel in enumerate(channels)]

    return {
        name: 1000
        / BATCH
        * median_seconds(functools.partial(on_batch, name, tf.constant([strength] * BATCH), seeds), repeats=REPEATS)
        for name, strength in OPERATIONS.items()
    }


def _peer(name, crop):
    """Milliseconds a crop of another library's operations, one crop after another, as it works through a batch."""
    from bench import peers as bench_peers

    channels, labels = _crops(crop)

    def on_batch(run):
        for channel in channels:
            run(channel[None], labels[None])

    took = {}
    for operation, run in getattr(bench_peers, name)().items():
        seconds = median_seconds(functools.partial(on_batch, run), repeats=1)
        if seconds < SLOW_S:
            seconds = median_seconds(functools.partial(on_batch, run), repeats=REPEATS)
        took[operation] = 1000 / BATCH * seconds
    return took
