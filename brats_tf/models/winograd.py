"""3x3x3 convolutions with less than half of the multiplications, for volumes in float32 on a CPU.

A section is a slice of a volume across its first axis. A plain convolution makes six neighbouring sections of the
output with eighteen 3x3 convolutions, three for each. Winograd's algorithm F(6, 3) (Lavin and Gray 2016) makes them of
eight sections of the input with eight: of sums of these sections, and sums of what comes out are the output. F(4, 3)
takes six instead of twelve.

Its rounding differs: the error is three to five times that of a plain convolution, see
`experiments/fewer_products.py`, and relative to the largest value within eight sections. A value that is not finite
spreads to all of these. In bfloat16, sums would lose too many digits, so that layers in half precision do not use it
but for the gradients of their kernels, see `kernel_gradients`.
"""

import math
from functools import cache
from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.polynomial import polynomial

from brats_tf.models.forms import has_plain_convolutions
from brats_tf.models.precision import on_gpu
from brats_tf.models.sums import bias_gradient

WIDTH = 3  # Of the kernel.
ALONG_ALL = (1, 1, 1)  # Strides and dilations.
KIND = (WIDTH,) * 3, ALONG_ALL, "same"  # See `pays`.
# Sections that are computed of two more 2D convolutions, and points of the algorithm, besides infinity: of the sets
# with a 1, one of those that round least.
POINTS = {6: (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0), 4: (0.0, 1.0, -1.0, 0.5, -2.0)}
ONE = 1  # The place of the 1.
SAME = {"padding": "same", "data_format": "channels_last"}
# Sections that are computed at once, and the least number of such chunks: with more, sums take memory and time.
CHUNK, LEAST_CHUNKS = 12, 3
# Input times output channels, and multiply-adds, below which the sums take longer than the convolutions save.
LEAST_CHANNELS, LEAST_MULTIPLY_ADDS = 512, 1e9


class Chunk(NamedTuple):
    """Some output sections, and the sums of sections that make them.

    Attributes:
        outputs: the slice of the output sections.
        inputs: the slice of the input sections that they depend on.
        before: the factors of the sums of input sections: (products x tiles, input sections).
        after: the factors of the sums of products: (output sections, products x tiles).
    """

    outputs: slice
    inputs: slice
    before: np.ndarray
    after: np.ndarray


def suits(layer, inputs):
    """Whether the Keras layer `layer` convolves `inputs` (B, A, H, W, C) faster, and as well, by `convolve`."""
    usual = may_take_sections(layer) and layer.compute_dtype == "float32"
    kind = layer.kernel_size, layer.strides, layer.padding
    return usual and pays(kind, inputs.shape, layer.filters, LEAST_CHANNELS)


def may_take_sections(layer):
    """Whether convolutions of sections may replace the Keras layer `layer`, a `Conv3D`, or its gradients, here."""
    if keras.backend.backend() != "tensorflow" or on_gpu() or has_plain_convolutions():
        return False
    return layer.dilation_rate == ALONG_ALL and layer.groups == 1 and layer.data_format == "channels_last"


def pays(kind, shape, filters, least_channels):
    """Whether a convolution is worth the sums.

    `kind` is its (size of the kernel, strides, padding), `shape` the volumes' (B, A, H, W, C), each known or None.
    """
    if kind != KIND or None in shape or not shape[0] or _tile(shape[1]) is None:
        return False
    products = shape[-1] * filters
    return products >= least_channels and math.prod(shape[1:-1]) * WIDTH**3 * products >= LEAST_MULTIPLY_ADDS


def convolve(x, kernel, bias):
    """(B, A, H, W, C), (3, 3, 3, C, F) and (F,), float32 -> (B, A, H, W, F), padded with zeros.

    A is a multiple of 4 or 6.

    The backward pass keeps `x`.
    """

    @ops.custom_gradient
    def function(x, kernel, bias):
        def gradient(*args, upstream=None):
            g = args[0] if upstream is None else upstream
            mirrored = ops.transpose(ops.flip(kernel, (0, 1, 2)), (0, 1, 2, 4, 3))
            dx = _of_volumes(g, mirrored)
            return dx, kernel_gradient(x, g, after=[dx]), bias_gradient(g)

        return _of_volumes(x, kernel, bias), gradient

    return function(x, kernel, bias)


def _volumes(x):
    """(B, ...) -> B tensors (...), without a copy of the only one."""
    return ops.unstack(x) if x.shape[0] > 1 else [ops.reshape(x, x.shape[1:])]


def _of_volumes(x, kernel, bias=None):
    """As `convolve`, without a gradient of its own."""
    kernels = ops.unstack(_sums_of_sections(_factors(_tile(x.shape[1])).kernel, kernel))
    return _joined([_of_volume(one, kernels, bias)[None] for one in _volumes(x)])


def _of_volume(x, kernels, bias):
    """(A, H, W, C), the kernels (3, 3, C, F) of the products, (F,) or None -> (A, H, W, F)."""
    parts = []
    for chunk in _chunks(x.shape[0]):
        sums = ops.split(_sums_of_sections(chunk.before, _after(parts[-1:], x[chunk.inputs])), len(kernels))
        products = [ops.conv(one, kernel, **SAME) for one, kernel in zip(sums, kernels, strict=True)]
        if bias is not None:  # Of this point's product, every section of a tile contains one.
            products[ONE] = ops.add(products[ONE], ops.reshape(bias, (1, 1, 1, -1)))
        parts.append(_sums_of_sections(chunk.after, ops.concatenate(products)))
    return _joined(parts)


def kernel_gradient(x, g, after=()):
    """(B, A, H, W, C), and (B, A, H, W, F) from behind -> the gradient of the kernel, (3, 3, 3, C, F), float32.

    It is computed once the tensors `after` are.
    """
    kernels = [_kernel_gradient(*both, after) for both in zip(_volumes(x), _volumes(g), strict=True)]
    return sum(kernels[1:], kernels[0])


def _kernel_gradient(x, g, after):
    """As `kernel_gradient` of one volume, (A, H, W, C) and (A, H, W, F)."""
    import tensorflow as tf

    factors = _factors(_tile(x.shape[0]))
    found = [[] for _ in factors.kernel]
    shape = (WIDTH, WIDTH, x.shape[-1], g.shape[-1])
    for chunk in _chunks(x.shape[0]):
        done = [products[-1] for products in found if products] or list(after)
        sums = ops.split(_sums_of_sections(chunk.before, _after(done, x[chunk.inputs])), len(found))
        behind = ops.split(_sums_of_sections(chunk.after.T, _after(done, g[chunk.outputs])), len(found))
        for product, one, gradient in zip(found, sums, behind, strict=True):
            settings = {"filter_sizes": shape, "strides": [1, 1, 1, 1], "padding": "SAME"}
            product.append(tf.raw_ops.Conv2DBackpropFilter(input=one, out_backprop=gradient, **settings))
    total = tf.stack([tf.add_n([tf.cast(one, "float32") for one in products]) for products in found])
    return _sums_of_sections(factors.kernel.T, total)


def _after(done, x):
    """`x`, once `done` are computed: TensorFlow would make the sums of all chunks first, which take several volumes."""
    import tensorflow as tf

    with tf.control_dependencies(done):
        return tf.identity(x) if done else x


def _sums_of_sections(factors, x):
    """(M, N) and (N, ...) -> (M, ...)."""
    sums = ops.matmul(ops.convert_to_tensor(factors, x.dtype), ops.reshape(x, (x.shape[0], -1)))
    return ops.reshape(sums, (-1, *x.shape[1:]))


def _joined(parts):
    return ops.concatenate(parts) if len(parts) > 1 else parts[0]


class Factors(NamedTuple):
    """Those of a tile of m sections and p = m + 2 products.

    Attributes:
        inputs: of its input sections, (p, p).
        kernel: of the sections of the kernel, (p, 3).
        outputs: of the products, (m, p).
    """

    inputs: np.ndarray
    kernel: np.ndarray
    outputs: np.ndarray


def _tile(sections):
    """How many sections a tile has, or None where no number divides them."""
    return next((tile for tile in POINTS if sections % tile == 0), None)


@cache
def _factors(tile):
    """The factors for its `POINTS` (Toom-Cook): a kernel and sections as polynomials, multiplied by their values."""
    points, products = POINTS[tile], tile + WIDTH - 1
    others = [[other for other in points if other != point] for point in points]
    inputs, kernel = np.zeros((products, products)), np.zeros((products, WIDTH))
    for row, (point, rest) in enumerate(zip(points, others, strict=True)):
        inputs[row, :-1] = polynomial.polyfromroots(rest)
        kernel[row] = point ** np.arange(WIDTH) / math.prod(point - other for other in rest)
    inputs[-1], kernel[-1, -1] = polynomial.polyfromroots(points), 1
    outputs = np.vander([*points, 0], tile, increasing=True).T
    outputs[:, -1] = np.arange(tile) == tile - 1  # Of infinity.
    return Factors(inputs, kernel, outputs)


@cache
def _chunks(sections):
    """The `Chunk`s of so many sections."""
    tile = _tile(sections)
    size = min(CHUNK, max(tile, sections // LEAST_CHUNKS // tile * tile))
    return [_chunk(first, min(first + size, sections), sections) for first in range(0, sections, size)]


def _chunk(first, last, sections):
    """The `Chunk` of the output sections from `first` to before `last`."""
    lowest, highest = max(first - 1, 0), min(last + 1, sections)
    tile = _tile(sections)
    factors, tiles = _factors(tile), (last - first) // tile
    products = tile + WIDTH - 1
    before = np.zeros((products, tiles, sections + 2))  # With the sections of zeros before and after the others.
    after = np.zeros((last - first, products, tiles))
    for number in range(tiles):
        start = number * tile
        before[:, number, first + start : first + start + products] = factors.inputs
        after[start : start + tile, :, number] = factors.outputs
    before = before[:, :, 1:-1][:, :, lowest:highest].reshape(products * tiles, -1)
    return Chunk(slice(first, last), slice(lowest, highest), before, after.reshape(last - first, -1))
