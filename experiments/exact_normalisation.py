"""How wrong is group normalisation in float32, and what does the right one cost? Keras and ours against float64.

A layer that takes a mean over a whole volume adds millions of numbers. Where float32 sums run one after another, the
last digits of each addend are lost: the larger the volume, the more. Measured for volumes (H, W, D) of 16 channels in 8
groups, values as after a ReLU (a mean far from 0, which makes it worse): the largest error of the output and, relative
to its largest value, of the gradient, against NumPy in float64; and the seconds of a forward and a backward pass of
each, as a training makes them, in turn, the least of three.

Command:  python experiments/exact_normalisation.py
Time:     about two minutes and 8 GB of memory on two CPU cores.
Expected: Keras's error grows with the volume, to the third digit at 192x160x108; ours stays near float32's own.

Writes RESULTS/exact_normalisation.json.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from brats_tf.runtime.console import console, track
from brats_tf.runtime.tensorflow import import_tensorflow

tf = import_tensorflow()

import keras
import numpy as np
from provenance import provenance
from rich.table import Table

from brats_tf.config.settings import CROP
from brats_tf.errors import format_shape
from brats_tf.models.blocks import GROUPS
from brats_tf.models.normalisation import GroupNormalization
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program

SIZES = ((32, 32, 36), (64, 64, 36), (128, 128, 72), CROP)
CHANNELS, EPSILON, ROUNDS = 16, 1e-3, 3
KINDS = ("keras", "ours")


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments).results, SIZES))


def run(results, sizes):
    """Measures every size and writes the table."""
    random = np.random.default_rng(0)
    gamma = random.uniform(0.5, 1.5, CHANNELS).astype(np.float32)
    beta = random.uniform(-1, 1, CHANNELS).astype(np.float32)
    both = {"keras": keras.layers.GroupNormalization(GROUPS, epsilon=EPSILON)}
    both["ours"] = GroupNormalization(GROUPS, epsilon=EPSILON, relu=True)
    passes = {name: layer_pass(layer, gamma, beta) for name, layer in both.items()}
    rows = [measure(size, gamma, beta, passes) for size in track(sizes, "Measuring")]
    write_json(results / f"{Path(__file__).stem}.json", provenance() | {"channels": CHANNELS, "rows": rows})
    table = Table("size", "error, Keras", "ours", "of the gradient, Keras", "ours", "seconds, Keras", "ours")
    for row in rows:
        cells = [f"{row[kind][what]:.2g}" for what in ("error", "gradient_error", "seconds") for kind in KINDS]
        table.add_row(row["size"], *cells)
    console.print(table)


def measure(size, gamma, beta, passes):
    """{"size", "keras": {"error", "gradient_error", "seconds"}, "ours": likewise} of one volume (H, W, D)."""
    random = np.random.default_rng(0)
    x = np.maximum(random.normal(1, 1, (1, *size, CHANNELS)), 0).astype(np.float32)
    g = random.normal(0, 1, x.shape).astype(np.float32)
    expected = exact(x, g, gamma, beta)
    found = {kind: {"seconds": float("inf")} for kind in KINDS}
    for number in range(ROUNDS + 1):
        for kind, one in passes.items():
            started = time.perf_counter()
            received = [value.numpy() for value in one(tf.constant(x), tf.constant(g))]
            if number:  # The first traces.
                found[kind]["seconds"] = min(found[kind]["seconds"], time.perf_counter() - started)
            else:
                y, dx = (np.abs(mine - right) for mine, right in zip(received, expected[:2], strict=True))
                # Where the ReLU bends, a rounding decides whether a gradient passes.
                settled = np.abs(expected[2]) > 0.1
                found[kind]["error"] = float(y.max())
                found[kind]["gradient_error"] = float(dx[settled].max() / np.abs(expected[1]).max())
    return {"size": format_shape(size), **found}


def exact(x, g, gamma, beta):
    """Output, gradient with respect to `x`, and what the ReLU sees, in float64, of group normalisation and ReLU."""
    grouped = lambda values: values.astype(np.float64).reshape(-1, GROUPS, CHANNELS // GROUPS)  # noqa: E731
    over_group = lambda values: values.mean(axis=(0, 2), keepdims=True)  # noqa: E731
    values, scale, shift = (grouped(one) for one in (x, gamma, beta))
    deviation = np.sqrt(values.var(axis=(0, 2), keepdims=True) + EPSILON)
    standard = (values - over_group(values)) / deviation
    seen = scale * standard + shift
    y = np.maximum(seen, 0)
    upstream = np.where(y > 0, grouped(g), 0) * scale
    dx = (upstream - over_group(upstream) - standard * over_group(upstream * standard)) / deviation
    return y.reshape(x.shape), dx.reshape(x.shape), seen.reshape(x.shape)


def layer_pass(layer, gamma, beta):
    """(x, g) -> (y, dx) of a layer and a ReLU, which may be part of it, compiled."""
    layer.build((None, None, None, None, CHANNELS))
    layer.set_weights([gamma, beta])
    return _compiled(
        partial(layer, training=True) if getattr(layer, "relu", False) else lambda x: keras.ops.relu(layer(x))
    )


def _compiled(function):
    @tf.function(autograph=False)
    def both(x, g):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x, output_gradients=g)

    return both


if __name__ == "__main__":
    sys.exit(main())
