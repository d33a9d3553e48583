"""Group normalisation whose sums are right at full size, in a third of the time of Keras's layer.

Keras's layer sums a volume in float32 one value after another, and the last digits of each are lost: at 192x160x108 its
output is wrong by up to 0.036, where this one is wrong by 6e-6 (`experiments/exact_normalisation.py` measures both
against float64). Weights, names and settings are the same, so either layer loads what the other has saved.
"""

import math
from contextlib import contextmanager
from contextvars import ContextVar

import keras
import numpy as np
from keras import ops

from brats_tf.runtime.system import cpu_has_bfloat16

EPSILON = 1e-3  # Keras's default, and the authors'.
# Of what a product adds up: the more chunks, the less the rounding of each matters.
WIDTH, LEAST_ROWS, MOST_ROWS, LEAST_CHUNKS = 64, 256, 4096, 64

_ONE_FORM = ContextVar("one_form", default=False)


@contextmanager
def one_form():
    """Within it, networks are traced without TensorFlow's faster form for one volume, which other runtimes lack."""
    token = _ONE_FORM.set(True)
    try:
        yield
    finally:
        _ONE_FORM.reset(token)


class GroupNormalization(keras.layers.GroupNormalization):
    """Normalises the channels, the last axis, in groups: (B, ..., C) -> the same shape and type.

    Takes the arguments of Keras's layer but `axis`, and has its weights under its names. Statistics are float32 in any
    precision. Source: Wu and He 2018; the embedding paper's Section 2.2 asks for it before each convolution.
    """

    def build(self, input_shape):
        if self.axis not in (-1, len(input_shape) - 1):
            raise ValueError(f"Channels must be the last axis. Received: axis={self.axis}.")
        super().build(input_shape)

    def call(self, inputs):
        channels = inputs.shape[-1]
        # Times one, because a gradient of our own must be given values, not variables.
        gamma = ops.ones(channels) if self.gamma is None else 1.0 * ops.cast(self.gamma, "float32")
        beta = ops.zeros(channels) if self.beta is None else 1.0 * ops.cast(self.beta, "float32")
        shape = ops.shape(inputs)
        flat = ops.reshape(inputs, (shape[0], math.prod(shape[1:-1]), channels))
        flat = group_normalise(flat, gamma, beta, groups=self.groups, epsilon=self.epsilon)
        return ops.reshape(flat, shape)


def group_normalise(x, gamma, beta, *, groups, epsilon=EPSILON):
    """(B, N, C) -> the same shape and type, normalised over N and each group of channels, times gamma, plus beta.

    With x̂ = (x - mean) / deviation and g the gradient behind it, dx = (γ g - mean(γ g) - x̂ mean(γ g x̂)) / deviation,
    means over a group (Wu and He 2018). What the backward pass keeps is `x`.
    """
    channels, grouped = x.shape[-1], (-1, groups, x.shape[-1] // groups)
    share = np.ones((1, 1, grouped[-1]), "float32") / grouped[-1]

    def over_group(values):
        """The mean of a group in each of its channels: (B, C) -> (B, C)."""
        return ops.reshape(ops.sum(ops.reshape(values, grouped), axis=-1, keepdims=True) * share, (-1, channels))

    @ops.custom_gradient
    def function(x, gamma, beta):
        mean = over_group(means_over_space(x))
        centred = scale_and_shift(x, ops.ones_like(mean), -mean)
        inverse = ops.rsqrt(over_group(means_over_space(ops.square(centred))) + epsilon)
        slope = gamma * inverse
        y = scale_and_shift(x, slope, beta - mean * slope)

        def gradient(*args, upstream=None):
            g = args[0] if upstream is None else upstream
            g_mean = means_over_space(g)
            gx_mean = (means_over_space(g * x) - mean * g_mean) * inverse  # Of g x̂.
            along = -inverse * inverse * over_group(gamma * gx_mean)
            constant = -inverse * over_group(gamma * g_mean) - along * mean
            dx = scale_and_shift(g, slope, constant) + scale_and_shift(x, along, ops.zeros_like(along))
            size = ops.cast(ops.shape(x)[1], "float32")
            return dx, size * ops.sum(gx_mean, axis=0), size * ops.sum(g_mean, axis=0)

        return y, gradient

    return function(x, gamma, beta)


def means_over_space(x):
    """The float32 means of (B, N, C) over N: (B, C).

    Sums are products with ones, a chunk at a time: a processor's matrix products add in blocks, so that they lose less
    than its reductions, and are faster. A GPU's reductions add in a tree, and its products may round their factors.
    """
    if any(device.startswith("gpu") for device in keras.distribution.list_devices()):
        return ops.mean(ops.cast(x, "float32"), axis=1)
    size, channels = ops.shape(x)[1], x.shape[-1]
    rows = _rows_of_chunks(size, channels)
    # Where the processor multiplies in bfloat16, it rounds a sum once for each chunk. Others round on the way.
    if rows is None or keras.backend.standardize_dtype(x.dtype) != "bfloat16" or not cpu_has_bfloat16():
        x = ops.cast(x, "float32")
    if rows is None:
        return _sums_with_a_rest(x, size) / ops.cast(size, "float32")
    width = max(channels, WIDTH)
    chunks = ops.matmul(ops.ones((1, 1, rows), x.dtype), ops.reshape(x, (-1, rows, width)))
    chunks = ops.reshape(chunks, (-1, size // rows, channels))
    return ops.sum(ops.cast(chunks, "float32"), axis=1) / size


def _sums_with_a_rest(x, size):
    """The sums of (B, N, C) over any N: of chunks of `LEAST_ROWS`, and of the rows that are left."""
    count = size // LEAST_ROWS
    whole = count * LEAST_ROWS
    channels = x.shape[-1]
    chunks = ops.reshape(x[:, :whole], (ops.shape(x)[0], count, LEAST_ROWS, channels))
    sums = ops.sum(ops.matmul(ops.ones((1, 1, 1, LEAST_ROWS)), chunks), axis=1)
    rest = ops.matmul(ops.ones((1, 1, size - whole)), x[:, whole:])
    return ops.reshape(sums + rest, (-1, channels))


def _rows_of_chunks(size, channels):
    """How many rows of `WIDTH` values a chunk has, or None where there is no good number."""
    width = max(channels, WIDTH)
    if not isinstance(size, int) or width % channels or size * channels % width:
        return None
    rows = size * channels // width
    most = min(MOST_ROWS, rows // LEAST_CHUNKS)
    return next((count for count in range(most, LEAST_ROWS - 1, -1) if rows % count == 0), None)


def scale_and_shift(x, slope, offset):
    """x slope + offset for (B, N, C) and (B, C), computed in float32: the shape and type of `x`.

    In TensorFlow and for one volume it is a batch normalisation with given statistics, whose one pass takes a quarter
    of the time of the two (a sixth in bfloat16). Other backends compile two passes to one themselves.
    """
    if keras.backend.backend() != "tensorflow" or _ONE_FORM.get():
        return _two_passes(x, slope, offset)
    import tensorflow as tf

    def fused():
        scale, shift = (tf.reshape(values, (-1,)) for values in (slope, offset))
        # TensorFlow takes the operation apart where scale or variance is constant. This is one, and it cannot know.
        one = tf.sign(1.0 + tf.abs(scale) + tf.abs(shift))
        settings = {"scale": scale * one, "offset": shift, "mean": tf.zeros_like(one), "variance": one}
        flat = tf.reshape(x, (1, 1, -1, x.shape[-1]))
        y = tf.raw_ops.FusedBatchNormV3(x=flat, **settings, epsilon=0.0, is_training=False).y
        return tf.reshape(y, ops.shape(x))

    if x.shape[0] is None:
        return tf.cond(tf.shape(x)[0] == 1, fused, lambda: _two_passes(x, slope, offset))
    return fused() if x.shape[0] == 1 else _two_passes(x, slope, offset)


def _two_passes(x, slope, offset):
    return ops.cast(ops.cast(x, "float32") * slope[:, None] + offset[:, None], x.dtype)
