"""Sums over a whole volume that are right in float32, as fast as a processor's matrix products.

A sum of millions of float32 numbers, one after another, loses the last digits of each. A matrix product adds in blocks
and loses less; what it gives for chunks of at most 4,096 rows is added up afterwards.
"""

import math

import keras
import numpy as np
from keras import ops

from brats_tf.models.forms import is_one_form
from brats_tf.models.onednn import has_onednn
from brats_tf.models.precision import on_gpu
from brats_tf.runtime.system import cpu_has_bfloat16

# Sizes of chunks. More chunks average out the rounding of each.
WIDTH, LEAST_ROWS, MOST_ROWS, LEAST_CHUNKS = 16, 256, 4096, 64
WIDEST_PRODUCT = 32  # Up to this many channels, the full C x C product is cheaper than multiplying first.


def means_over_space(x):
    """The float32 means of (B, N, C) over N: (B, C).

    Sums are products with ones, a chunk at a time: a processor's matrix products add in blocks, so that they lose less
    than its reductions, and are faster. A GPU's reductions add in a tree, and its products may round their factors.
    """
    if on_gpu():
        return ops.mean(ops.cast(x, "float32"), axis=1)
    if _pools(x):
        return _mean_of_pools(x)
    values, rows = _cast_and_rows(x)
    if rows is None:
        size = ops.shape(x)[1]
        return _sums_with_a_rest(values, size) / ops.cast(size, "float32")
    return ops.mean(_mean_of_chunks(_sums(values, rows), rows, x), axis=1)


def _pools(x):
    """Whether oneDNN's pooling of (B, N, C), which takes a fifth of the time, is at hand.

    It sums in float32, and rounds once for each pool. TensorFlow's own would round after each addition.
    """
    wanted = keras.backend.backend() == "tensorflow" and keras.backend.standardize_dtype(x.dtype) == "bfloat16"
    able = wanted and not is_one_form() and _rows_of_chunks(x.shape[1], WIDTH) is not None
    return able and has_onednn("bfloat16")


def _mean_of_pools(x):
    rows = _rows_of_chunks(x.shape[1], WIDTH)  # Of one voxel each.
    pools = ops.reshape(x, (-1, x.shape[1] // rows, rows, x.shape[-1]))
    return ops.mean(ops.cast(ops.average_pool(pools, (1, rows), data_format="channels_last"), "float32"), axis=(1, 2))


def bias_gradient(g):
    """The float32 sums of (B, ..., C) over all but the channels: (C,)."""
    shape = ops.shape(g)
    size = math.prod(shape[1:-1])
    return ops.sum(ops.cast(size, "float32") * means_over_space(ops.reshape(g, (shape[0], size, shape[-1]))), axis=0)


def means_of_products(x, y):
    """The float32 means of x y over N, both (B, N, C): (B, C)."""
    if on_gpu() or _rows_of_chunks(ops.shape(x)[1], x.shape[-1]) is None:
        return means_over_space(x * y)
    (x_values, rows), (y_values, _) = _cast_and_rows(x), _cast_and_rows(y)
    return ops.mean(_mean_of_chunks(_sums_of_products(x_values, y_values, rows), rows, x), axis=1)


def _cast_and_rows(x):
    """(B, N, C) in the type that its sums are taken in, and the rows of a chunk, or None where there are no chunks.

    Where the processor multiplies in bfloat16, it rounds a sum once for each chunk. Others round on the way.
    """
    rows = _rows_of_chunks(ops.shape(x)[1], x.shape[-1])
    if rows is None or keras.backend.standardize_dtype(x.dtype) != "bfloat16" or not cpu_has_bfloat16():
        x = ops.cast(x, "float32")
    return x, rows


def _sums(x, rows):
    """(B, N, C) -> the sums of each chunk (B K, 1, W)."""
    return ops.matmul(ops.ones((1, 1, rows), x.dtype), _chunks(x, rows))


def _sums_of_products(x, y, rows):
    """(B, N, C) twice -> the sums of their products in each chunk (B K, W) or (B K, 1, W)."""
    if x.shape[-1] > WIDEST_PRODUCT:
        return _sums(x * y, rows)
    products = ops.einsum("krc,krd->kcd", _chunks(x, rows), _chunks(y, rows))
    # Not `ops.diagonal`, for which LiteRT has no operation.
    return ops.sum(ops.where(np.eye(products.shape[-1], dtype=bool), products, 0), axis=-1)


def _chunks(x, rows):
    """(B, N, C) -> (B K, rows, W): voxels side by side, so that a row has `WIDTH` values at least."""
    return ops.reshape(x, (-1, rows, _width(x.shape[-1])))


def _width(channels):
    """The values of a row: those of as many voxels as it takes for `WIDTH`."""
    return channels * -(-WIDTH // channels)


def _mean_of_chunks(sums, rows, x):
    """The sums of each chunk of `x` (B, N, C) as float32 means: (B, K, C)."""
    count = x.shape[1] * x.shape[-1] // (rows * _width(x.shape[-1]))
    by_channel = ops.reshape(ops.cast(sums, "float32"), (-1, count * (sums.shape[-1] // x.shape[-1]), x.shape[-1]))
    return by_channel / rows


def _sums_with_a_rest(x, size):
    """The sums of (B, N, C) over any N: of chunks of `LEAST_ROWS`, and of the rows that are left."""
    count = size // LEAST_ROWS
    whole = count * LEAST_ROWS
    channels = x.shape[-1]
    parts = []  # Without empty ones where the size is known: LiteRT multiplies none.
    if not isinstance(size, int) or count:
        chunks = ops.reshape(x[:, :whole], (ops.shape(x)[0], count, LEAST_ROWS, channels))
        parts.append(ops.sum(ops.matmul(ops.ones((1, 1, 1, LEAST_ROWS)), chunks), axis=1))
    if not isinstance(size, int) or size > whole:
        parts.append(ops.matmul(ops.ones((1, 1, size - whole)), x[:, whole:]))
    return ops.reshape(sum(parts[1:], parts[0]), (-1, channels))


def _rows_of_chunks(size, channels):
    """How many rows of `WIDTH` values a chunk has, or None where there is no good number."""
    width = _width(channels)
    if not isinstance(size, int) or size * channels % width:
        return None
    rows = size * channels // width
    return largest_divisor(rows, LEAST_ROWS, min(MOST_ROWS, rows // LEAST_CHUNKS))


def largest_divisor(size, least, most):
    """The largest number from `least` to `most` that divides `size`, or None."""
    return next((count for count in range(most, least - 1, -1) if size % count == 0), None)
