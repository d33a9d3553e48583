"""One pass over a volume where there would be several, by TensorFlow's batch normalisation with given statistics.

Forward it scales and shifts each channel. Backward it sums, in float32 in any precision, what came from behind, and its
products with the input less a given value, and scales what came from behind.
"""

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from brats_tf.models.forms import is_one_form
from brats_tf.models.onednn import has_onednn, pass_with_relu
from brats_tf.models.precision import on_gpu
from brats_tf.models.sums import largest_divisor, means_of_products, means_over_space

# Values of a row, whose sums are taken apart and added up afterwards: with more rows, the last digits are lost.
LEAST_WIDTH, WIDTH = 256, 65536
ADDENDS = 64  # Of the last step of these.
LANES = 16  # Float32 numbers that a processor computes at once.
SAMPLE = 256  # About how many voxels `sample` takes.


class Sums(NamedTuple):
    """Of g and x, (B, N, C), and values m, (B, C).

    Attributes:
        means: the mean of g over N, (B, C) in float32.
        products: the mean of g (x - m), (B, C) in float32.
        scaled: g times a slope in each channel, or None.
    """

    means: Any
    products: Any
    scaled: Any


def sums_around(g, x, values, slope=None):
    """The `Sums` of g and x around `values`, in one pass where TensorFlow computes on a CPU and knows the sizes.

    `slope` is that of `scaled`, (B, C) like `values`.
    """
    if not has_one_pass(x):
        centred = ops.cast(x, "float32") - values[:, None]
        by_slope = None if slope is None else scaled(g, slope)
        return Sums(means_over_space(g), means_of_products(ops.cast(g, "float32"), centred), by_slope)
    given = (g, x, values) if slope is None else (g, x, values, slope)
    if x.shape[0] == 1:
        return _sums_of_one(*given)
    found = [_sums_of_one(*one) for one in zip(*(ops.split(each, x.shape[0]) for each in given), strict=True)]
    return Sums(*(None if parts[0] is None else ops.concatenate(parts) for parts in zip(*found, strict=True)))


def sample(x):
    """Some voxels of (B, N, C): (B, n, C), float32."""
    step = max(1, x.shape[1] // SAMPLE) | 1  # Odd, so that it meets all places of a row.
    return ops.cast(x[:, step // 2 :: step], "float32")  # Not the corner, where a padding makes outliers.


def has_one_pass(x):
    """Whether `sums_around` of (B, N, C) takes one pass here."""
    if keras.backend.backend() != "tensorflow" or is_one_form() or on_gpu() or None in x.shape or not x.shape[0]:
        return False
    suits = keras.backend.standardize_dtype(x.dtype) in ("float32", "bfloat16")
    return suits and _row(*x.shape[1:]) is not None


def _row(size, channels):
    """How many voxels make a row, or None where no number divides them."""
    return largest_divisor(size, -(-LEAST_WIDTH // channels), WIDTH // channels)


def _sums_of_one(g, x, values, slope=None):
    """`Sums` of one volume, as there, with B of 1."""
    import tensorflow as tf

    _, size, channels = x.shape
    count = _row(size, channels)
    rows = (1, 1, size // count, count * channels)
    around = tf.reshape(values, (-1,))
    # These are ones, and it cannot know: TensorFlow would keep constants of this size in each copy of a graph.
    ones = _side_by_side(tf.sign(1.0 + tf.abs(around)), count)
    found = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=tf.reshape(g, rows),
        x=tf.reshape(x, rows),
        scale=ones if slope is None else _side_by_side(tf.reshape(slope, (-1,)), count),
        reserve_space_1=_side_by_side(around, count),  # The mean, and the variance, of which it takes the root.
        reserve_space_2=ones,
        reserve_space_3=ones,
        epsilon=0.0,
        is_training=False,
    )
    # Added up in two steps, each of few addends, so that the last digits remain.
    steps = (2, 1, math.gcd(count, ADDENDS), -1, channels)
    sums = tf.reshape(tf.stack([found.offset_backprop, found.scale_backprop]), steps)
    means, products = tf.unstack(tf.reduce_sum(tf.reduce_sum(sums, axis=3), axis=2) / size)
    return Sums(means, products, None if slope is None else tf.reshape(found.x_backprop, x.shape))


def _side_by_side(values, count):
    """(C,) so many times: (count C,)."""
    return ops.tile(values, count) if count > 1 else values


def scale_and_shift(x, slope, offset, *, relu=False, training=False):
    """x slope + offset for (B, N, C) and (B, C), computed in float32, then ReLU if `relu`: the shape and type of `x`.

    In TensorFlow and for one volume it is a batch normalisation with given statistics, whose one pass takes a quarter
    of the time of the two (a sixth in bfloat16). Other backends compile two passes to one themselves. Of the pass and
    the ReLU, TensorFlow's graph optimiser (Grappler) makes one operation; a `training` on a CPU, where it is off, asks
    for that operation.
    """
    if keras.backend.backend() != "tensorflow" or is_one_form():
        return _two_passes(x, slope, offset, relu)
    import tensorflow as tf

    def fused():
        scale, shift = (tf.reshape(values if values.shape[0] == 1 else values[:1], (-1,)) for values in (slope, offset))
        if relu:  # oneDNN's pass makes 0 of what is not a number, but leaves infinity, of which the next sum makes NaN.
            finite = tf.math.is_finite(scale + shift)
            scale, shift = tf.where(finite, scale, 0.0), tf.where(finite, shift, math.inf)
        # TensorFlow takes the operation apart where scale or variance is constant. This is one, and it cannot know.
        one = tf.sign(1.0 + tf.abs(scale) + tf.math.minimum(tf.abs(shift), 1.0))
        settings = {"scale": scale * one, "offset": shift, "mean": tf.zeros_like(one), "variance": one}
        count = _to_fill_lanes(*x.shape[1:])
        settings = {name: _side_by_side(values, count) for name, values in settings.items()}
        flat = tf.reshape(x, (1, 1, -1, count * x.shape[-1]))
        if relu and training and _may_ask_for_both(flat):
            return tf.reshape(pass_with_relu(flat, settings), ops.shape(x))
        y = tf.raw_ops.FusedBatchNormV3(x=flat, **settings, epsilon=0.0, is_training=False).y
        y = tf.nn.relu(y) if relu else y  # Before the new shape, so that TensorFlow makes one operation of both.
        return tf.reshape(y, ops.shape(x))

    if x.shape[0] is None:
        return tf.cond(tf.shape(x)[0] == 1, fused, lambda: _two_passes(x, slope, offset, relu))
    return fused() if x.shape[0] == 1 else _two_passes(x, slope, offset, relu)


def scaled(x, slope):
    """(B, N, C) times (B, C): by lanes of all channels, where TensorFlow's broadcast takes four times as long."""
    return scale_and_shift(x, slope, ops.zeros_like(slope))


def _may_ask_for_both(x):
    """Whether the graph that is traced may have `pass_with_relu` of `x`."""
    import tensorflow as tf

    suits = not tf.executing_eagerly() and x.dtype in (tf.float32, tf.bfloat16) and x.shape[-1] % 4 == 0
    return suits and not on_gpu() and has_onednn(x.dtype.name)


def relu_gradient(g, y):
    """The gradient before a ReLU, from that behind it and the output."""
    if keras.backend.backend() != "tensorflow":
        return ops.where(y > 0, g, ops.zeros_like(g))
    import tensorflow as tf

    return tf.raw_ops.ReluGrad(gradients=g, features=y)


def _to_fill_lanes(size, channels):
    """How many voxels to put side by side: with fewer channels than lanes, a pass takes ten times as long."""
    count = LANES // math.gcd(channels, LANES)
    return count if size is not None and size % count == 0 else 1


def _two_passes(x, slope, offset, relu):
    y = ops.cast(ops.cast(x, "float32") * slope[:, None] + offset[:, None], x.dtype)
    return ops.relu(y) if relu else y
