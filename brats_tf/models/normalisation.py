"""Group normalisation whose sums are right at full size, in a third of the time of Keras's layer.

Keras's layer sums a volume in float32 one value after another, and the last digits of each are lost: at 192x160x108 its
output is wrong by up to 0.036, where this one is wrong by 5e-6 (`experiments/exact_normalisation.py` measures both
against float64). Weights, names and settings are the same, so either layer loads what the other has saved.
"""

import math

import keras
import numpy as np
from keras import ops

from brats_tf.models.forms import is_one_form
from brats_tf.models.sums import mean_squares, means_of_products, means_over_space

# Mean square over variance, up to which a variance as their difference keeps its digits.
MOST_SQUARE = {"float32": 100.0, "bfloat16": 4.0}


@keras.saving.register_keras_serializable("brats_tf")
class GroupNormalization(keras.layers.GroupNormalization):
    """Normalises the channels, the last axis, in groups: (B, ..., C) -> the same shape and type.

    Takes the arguments of Keras's layer but `axis`, and has its weights under its names. With `relu` a ReLU follows in
    the same pass. Statistics are float32 in any precision. Source: Wu and He 2018; both before
    each convolution: the embedding paper's authors' code.
    """

    def __init__(self, *args, relu=False, **settings):
        super().__init__(*args, **settings)
        self.relu = relu

    def get_config(self):
        return super().get_config() | {"relu": self.relu}

    def build(self, input_shape):
        if self.axis not in (-1, len(input_shape) - 1):
            raise ValueError(f"Channels must be the last axis. Received: axis={self.axis}.")
        super().build(input_shape)

    def call(self, inputs, training=None):
        channels = inputs.shape[-1]
        # Times one, because a gradient of our own must be given values, not variables.
        gamma = ops.ones(channels) if self.gamma is None else 1.0 * ops.cast(self.gamma, "float32")
        beta = ops.zeros(channels) if self.beta is None else 1.0 * ops.cast(self.beta, "float32")
        shape = ops.shape(inputs)
        flat = ops.reshape(inputs, (shape[0], math.prod(shape[1:-1]), channels))
        return ops.reshape(self._group_normalise(flat, gamma, beta, training=bool(training)), shape)

    def _group_normalise(self, x, gamma, beta, *, training):
        """(B, N, C) -> the same shape and type, normalised over N and each group of channels, times gamma, plus beta.

        With x̂ = (x - mean) / deviation and g the gradient behind it, dx = (γ g - mean(γ g) - x̂ mean(γ g x̂)) /
        deviation, means over a group (Wu and He 2018). What the backward pass keeps is `x`, and with `relu` the output.
        """
        channels, grouped = x.shape[-1], (-1, self.groups, x.shape[-1] // self.groups)
        share = np.ones((1, 1, grouped[-1]), "float32") / grouped[-1]

        def over_group(values):
            """The mean of a group in each of its channels: (B, C) -> (B, C)."""
            return ops.reshape(ops.sum(ops.reshape(values, grouped), axis=-1, keepdims=True) * share, (-1, channels))

        @ops.custom_gradient
        def function(x, gamma, beta):
            mean, variance = _moments(x, over_group, training=training)
            inverse = ops.rsqrt(variance + self.epsilon)
            slope = gamma * inverse
            y = scale_and_shift(x, slope, beta - mean * slope, relu=self.relu)

            def gradient(*args, upstream=None):
                g = args[0] if upstream is None else upstream
                g = _relu_gradient(g, y) if self.relu else g
                g_mean = means_over_space(g)
                gx_mean = (means_of_products(_wide(g), _wide(x)) - mean * g_mean) * inverse  # Of g x̂.
                along = -inverse * inverse * over_group(gamma * gx_mean)
                # Each term has a mean near 0, so that in half precision little is rounded away.
                constant = -inverse * over_group(gamma * g_mean)
                dx = scale_and_shift(g, slope, constant) + scale_and_shift(x, along, -along * mean)
                size = ops.cast(ops.shape(x)[1], "float32")
                return dx, size * ops.sum(gx_mean, axis=0), size * ops.sum(g_mean, axis=0)

            return y, gradient

        return function(x, gamma, beta)


def _relu_gradient(g, y):
    """The gradient before a ReLU, from that behind it and the output."""
    if keras.backend.backend() != "tensorflow":
        return ops.where(y > 0, g, ops.zeros_like(g))
    import tensorflow as tf

    return tf.raw_ops.ReluGrad(gradients=g, features=y)


def _moments(x, over_group, *, training):
    """Mean and variance of each group, in each of its channels: (B, N, C) -> (B, C) twice.

    A chunk's variance is its mean square less its squared mean. Where that would cost digits, because a mean is much
    larger than the deviation, and where there are no chunks, a further pass subtracts the mean before it squares. A
    training always takes that pass: with a `cond` for each layer, TensorFlow's graph optimiser (Grappler, which this
    package's own training turns off on a CPU) ran for ten minutes, up to its time limit, before the first step.
    """

    def around(mean):
        centred = _wide(scale_and_shift(x, ops.ones_like(mean), -mean))
        rest = over_group(means_over_space(centred))  # What rounding has left of the mean.
        return mean + rest, over_group(means_of_products(centred, centred)) - ops.square(rest)

    chunks = None if training or is_one_form() else mean_squares(x)
    if chunks is None:
        return around(over_group(means_over_space(x)))
    means, squares, dtype = chunks
    mean = over_group(ops.mean(means, axis=1))
    variance = over_group(ops.mean(squares - ops.square(means) + ops.square(means - mean[:, None]), axis=1))
    exact = ops.all(over_group(ops.mean(squares, axis=1)) <= MOST_SQUARE[dtype] * variance)
    return ops.cond(exact, lambda: (mean, variance), lambda: around(mean))


def _wide(x):
    """float16 as float32, because squares and products of float16 overflow."""
    return ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) == "float16" else x


def scale_and_shift(x, slope, offset, *, relu=False):
    """x slope + offset for (B, N, C) and (B, C), computed in float32, then ReLU if `relu`: the shape and type of `x`.

    In TensorFlow and for one volume it is a batch normalisation with given statistics, whose one pass takes a quarter
    of the time of the two (a sixth in bfloat16). Other backends compile two passes to one themselves.
    """
    if keras.backend.backend() != "tensorflow" or is_one_form():
        return _two_passes(x, slope, offset, relu)
    import tensorflow as tf

    def fused():
        scale, shift = (tf.reshape(values, (-1,)) for values in (slope, offset))
        if relu:  # oneDNN's pass makes 0 of what is not a number, but leaves infinity, of which the next sum makes NaN.
            finite = tf.math.is_finite(scale + shift)
            scale, shift = tf.where(finite, scale, 0.0), tf.where(finite, shift, math.inf)
        # TensorFlow takes the operation apart where scale or variance is constant. This is one, and it cannot know.
        one = tf.sign(1.0 + tf.abs(scale) + tf.math.minimum(tf.abs(shift), 1.0))
        settings = {"scale": scale * one, "offset": shift, "mean": tf.zeros_like(one), "variance": one}
        flat = tf.reshape(x, (1, 1, -1, x.shape[-1]))
        y = tf.raw_ops.FusedBatchNormV3(x=flat, **settings, epsilon=0.0, is_training=False).y
        y = tf.nn.relu(y) if relu else y  # Before the new shape, so that TensorFlow makes one operation of both.
        return tf.reshape(y, ops.shape(x))

    if x.shape[0] is None:
        return tf.cond(tf.shape(x)[0] == 1, fused, lambda: _two_passes(x, slope, offset, relu))
    return fused() if x.shape[0] == 1 else _two_passes(x, slope, offset, relu)


def _two_passes(x, slope, offset, relu):
    y = ops.cast(ops.cast(x, "float32") * slope[:, None] + offset[:, None], x.dtype)
    return ops.relu(y) if relu else y
