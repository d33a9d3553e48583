"""What do convolutions with fewer multiplications save, and lose? Plain ones and ours against float64.

The convolutions of preset `embedding` at 192x160x108 and of `embedding-plus` at 192x160x144 that compute with less than
half of the multiplications (`brats_tf/models/winograd.py`), and one with so few channels that it does not pay.
Measured: the largest error of the output, of the gradient of the input and of that of the kernel, each as a share of
its largest value, against TensorFlow in float64; and the seconds of a prediction and of a training step of each, in
turn, the least of three. Values as after a ReLU, kernels of Glorot's.

The gradient of a kernel alone (`brats_tf/models/kernel_gradients.py`), in float32 and, where the processor computes in
it, in bfloat16: seconds, and the norm of the error as a share of that of the gradient, which is one of noise.

Command:  python experiments/fewer_products.py
Time:     about a minute on two CPU cores.
Expected: 60 % of the time with 64 channels, no gain with 16; errors three to five times those of the plain
          convolution; 40 to 60 % of the time for the gradient of a kernel in bfloat16, with errors of 1 %.

Writes RESULTS/fewer_products.json.
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

from brats_tf.errors import format_shape
from brats_tf.models import winograd
from brats_tf.models.kernel_gradients import kernel_gradient
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program
from brats_tf.runtime.system import cpu_has_bfloat16

# (A, H, W), input channels, output channels.
SIZES = (
    ((12, 192, 160), 64, 64),
    ((12, 192, 160), 32, 64),
    ((36, 192, 160), 32, 32),
    ((36, 192, 160), 16, 32),
    ((96, 80, 72), 32, 32),
    ((48, 40, 36), 64, 64),
    ((108, 192, 160), 16, 16),
)
ROUNDS = 3
WHAT = ("output", "input_gradient", "kernel_gradient")
WHAT_OF_A_KERNEL = ("seconds", "error")


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments).results, SIZES))


def run(results, sizes):
    """Measures every size and writes the table."""
    rows = [measure(*size) for size in track(sizes, "Measuring")]
    formats = ["float32", *(["bfloat16"] if cpu_has_bfloat16() else [])]
    gradients = [measure_gradient(*size, one) for size in track(sizes, "Measuring gradients") for one in formats]
    write_json(results / f"{Path(__file__).stem}.json", provenance() | {"rows": rows, "gradients": gradients})
    table = Table(
        "volume", "channels", "prediction, s, plain", "ours", "step, s, plain", "ours", "error, plain", "ours"
    )
    for row in rows:
        cells = [f"{row[kind][what]:.2g}" for what in ("prediction_s", "step_s", "output") for kind in KINDS]
        table.add_row(row["size"], row["channels"], *cells)
    console.print(table)
    table = Table("volume", "channels", "precision", "kernel gradient, s, TensorFlow", "ours", "error", "ours")
    for row in gradients:
        cells = [f"{row[kind][what]:.2g}" if row[kind][what] else "" for what in WHAT_OF_A_KERNEL for kind in GRADIENTS]
        table.add_row(row["size"], row["channels"], row["precision"], *cells)
    console.print(table)


def plain(x, kernel, bias):
    """A 3x3x3 convolution of TensorFlow, padded with zeros: (B, A, H, W, C) -> (B, A, H, W, F)."""
    return tf.nn.bias_add(tf.nn.conv3d(x, kernel, (1, 1, 1, 1, 1), "SAME"), bias)


KINDS = {"plain": plain, "ours": winograd.convolve}


def measure(size, channels, filters):
    """{"size", "channels", "plain": {errors, seconds}, "ours": likewise} of one volume."""
    random = np.random.default_rng(0)
    x = np.maximum(random.normal(0, 1, (1, *size, channels)), 0).astype(np.float32)
    edge = np.sqrt(6 / (27 * (channels + filters)))
    kernel = random.uniform(-edge, edge, (3, 3, 3, channels, filters)).astype(np.float32)
    bias, upstream = (random.normal(0, 1, shape).astype(np.float32) for shape in (filters, (1, *size, filters)))
    values = x, kernel, bias
    exact = step(plain, *(tf.cast(one, "float64") for one in (*values, upstream)))
    passes = {
        kind: (tf.function(partial(predict, one)), tf.function(partial(step, one))) for kind, one in KINDS.items()
    }
    found = {kind: {"prediction_s": float("inf"), "step_s": float("inf")} for kind in KINDS}
    for number in range(ROUNDS + 1):
        for kind, (prediction, training) in passes.items():
            seconds, _ = timed(prediction, *values)
            of_step, received = timed(training, *values, upstream)
            if number:  # The first traces.
                found[kind]["prediction_s"] = min(found[kind]["prediction_s"], seconds)
                found[kind]["step_s"] = min(found[kind]["step_s"], of_step)
                continue
            for what, mine, right in zip(WHAT, received, exact, strict=True):
                error = np.abs(mine.numpy() - right.numpy()).max() / np.abs(right.numpy()).max()
                found[kind][what] = float(error)
    return {"size": format_shape(size), "channels": f"{channels} to {filters}", **found}


def measure_gradient(size, channels, filters, precision):
    """{"size", "channels", "precision", "tensorflow": {"seconds", "error"}, "ours": likewise} of one volume.

    An error is None where the gradient is not finite.
    """
    random = np.random.default_rng(0)
    x = tf.cast(np.maximum(random.normal(0, 1, (1, *size, channels)), 0), precision)
    upstream = tf.cast(random.normal(0, 1, (1, *size, filters)), precision)
    exact = gradient_of_tensorflow(tf.cast(x, "float64"), tf.cast(upstream, "float64")).numpy()
    row = {"size": format_shape(size), "channels": f"{channels} to {filters}", "precision": precision}
    for kind, gradient in GRADIENTS.items():
        compiled = tf.function(lambda x, g, gradient=gradient: (gradient(x, g),))
        runs = [timed(compiled, x, upstream) for _ in range(ROUNDS + 1)]
        error = np.linalg.norm(tf.cast(runs[0][1][0], "float64").numpy() - exact) / np.linalg.norm(exact)
        seconds = min(one for one, _ in runs[1:])  # The first traces.
        row[kind] = {"seconds": seconds, "error": float(error) if np.isfinite(error) else None}
    return row


def gradient_of_tensorflow(x, upstream):
    """Of a 3x3x3 kernel, padded with zeros."""
    shape = (3, 3, 3, x.shape[-1], upstream.shape[-1])
    return tf.raw_ops.Conv3DBackpropFilterV2(
        input=x, filter_sizes=shape, out_backprop=upstream, strides=[1] * 5, padding="SAME"
    )


def gradient_of_ours(x, upstream):
    """The same."""
    return kernel_gradient(x, upstream, (3, 3, 3), strides=(1, 1, 1), padding="same")


GRADIENTS = {"tensorflow": gradient_of_tensorflow, "ours": gradient_of_ours}


def timed(function, *values):
    """(seconds, what `function` returns for tensors of `values`)."""
    values = [tf.constant(one) for one in values]
    started = time.perf_counter()
    received = function(*values)
    received[-1].numpy()
    return time.perf_counter() - started, received


def predict(convolve, x, kernel, bias):
    """The output alone."""
    return (convolve(x, kernel, bias),)


def step(convolve, x, kernel, bias, upstream):
    """Output, and gradients of input and kernel."""
    with tf.GradientTape() as tape:
        tape.watch((x, kernel))
        y = convolve(x, kernel, bias)
    return y, *tape.gradient(y, (x, kernel), output_gradients=upstream)


if __name__ == "__main__":
    sys.exit(main())
