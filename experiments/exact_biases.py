"""What is lost of the gradient of a bias in float32 and bfloat16? TensorFlow's and ours against float64.

The gradient of a convolution's bias is the sum of what comes from behind, over all voxels. On a CPU, TensorFlow's
`BiasAddGrad` adds them in the format of the layer, one after another: in bfloat16, whose numbers have eight binary
digits, such a sum stops growing as soon as a value is smaller than half its last digit. Measured for volumes (H, W, D)
of 16 channels, normal values of mean 0.1 and deviation 1: the largest error of a channel's sum, as a share of the sum,
and the seconds of the gradient, the least of three. The
gradient is that of the layer's bias, which mixed precision rounds to bfloat16 once more.

Command:  python experiments/exact_biases.py
Time:     half a minute and 1 GB of memory on two CPU cores.
Expected: TensorFlow's sum in bfloat16 loses nearly all of itself at 192x160x108; ours is right to its third digit.

Writes RESULTS/exact_biases.json.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from brats_tf.runtime.console import console, track
from brats_tf.runtime.tensorflow import import_tensorflow

tf = import_tensorflow()

import numpy as np
from provenance import provenance
from rich.table import Table

from brats_tf.config.settings import CROP
from brats_tf.errors import format_shape
from brats_tf.models.convolutions import Conv3D
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program

SIZES = ((16, 16, 8), (32, 32, 36), (64, 64, 36), (128, 128, 72), CROP)
CHANNELS, MEAN, ROUNDS = 16, 0.1, 3
PRECISIONS = ("float32", "bfloat16")
KINDS = {"tensorflow": False, "ours": True}  # Whether a convolution is told that it trains.


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments).results, SIZES))


def run(results, sizes):
    """Measures every size in every precision and writes the table."""
    rows = [measure(size, precision) for precision in PRECISIONS for size in track(sizes, f"Measuring {precision}")]
    write_json(results / f"{Path(__file__).stem}.json", provenance() | {"channels": CHANNELS, "rows": rows})
    table = Table("precision", "size", "error, TensorFlow", "ours", "seconds, TensorFlow", "ours")
    for row in rows:
        cells = [f"{row[kind][what]:.2g}" for what in ("error", "seconds") for kind in KINDS]
        table.add_row(row["precision"], row["size"], *cells)
    console.print(table)


def measure(size, precision):
    """{"size", "precision", "tensorflow": {"error", "seconds"}, "ours": likewise} of one volume (H, W, D)."""
    values = np.random.default_rng(0).normal(MEAN, 1, (*size, CHANNELS)).astype(np.float32)
    upstream = tf.cast(values.reshape(1, *size, CHANNELS), precision)
    exact = tf.reduce_sum(tf.cast(upstream, "float64"), axis=(0, 1, 2, 3))
    layer = Conv3D(CHANNELS, 1, dtype=precision if precision == "float32" else f"mixed_{precision}")
    layer.build((1, *size, 1))
    found = {}
    for kind, training in KINDS.items():
        compiled, seconds = tf.function(partial(gradient, layer, training)), float("inf")
        for number in range(ROUNDS + 1):
            started = time.perf_counter()
            received = tf.cast(compiled(upstream), "float64").numpy()
            if number:  # The first traces.
                seconds = min(seconds, time.perf_counter() - started)
        found[kind] = {"error": float(np.abs(received / exact - 1).max()), "seconds": seconds}
    return {"size": format_shape(size), "precision": precision, **found}


def gradient(layer, training, upstream):
    """The gradient of a convolution's bias: what comes from behind (B, H, W, D, C) -> (C,) float32."""
    with tf.GradientTape() as tape:
        y = layer(tf.ones((*upstream.shape[:-1], 1)), training=training)
    return tape.gradient(y, layer.bias, output_gradients=upstream)


if __name__ == "__main__":
    sys.exit(main())
