"""The operations of augmentation, in TensorFlow graphs: on channels (H, W, D) float32, with given parameters.

Spatial ones take the classes (H, W, D) uint8 along, nearest neighbour, and fill what comes from outside with 0.
Separable linear ones (blur, low resolution) are one matrix product along each axis, which costs a CPU less than
convolutions do. Angles turn voxel axes, so voxels should be cubes, as BraTS's are.
"""

import keras
import tensorflow as tf

KNOTS = 16  # Of the displacement grid, along each axis.
SMOOTH = 3**0.5  # A cubic B-spline with knots this many sigmas apart is as wide as a Gaussian of sigma.
BIAS_DEGREE = 3
AXES = 3


def mirror(channels, classes, flips):
    """Turns the axes round for which `flips`, (3,) bool, is true. Twice is the identity."""
    axes = tf.where(flips)[:, 0]
    return [tf.reverse(channel, axes) for channel in channels], tf.reverse(classes, axes)


def rotation_matrix(degrees):
    """Rotations about H, W and D, in this order, by `degrees`, (3,): a (3, 3) matrix."""
    matrix = tf.eye(AXES)
    for axis, angle in enumerate(tf.unstack(degrees * (3.141592653589793 / 180))):
        one, other = (axis + 1) % AXES, (axis + 2) % AXES
        places = [[one, one], [other, other], [one, other], [other, one], [axis, axis]]
        values = tf.stack([tf.cos(angle), tf.cos(angle), -tf.sin(angle), tf.sin(angle), 1.0])
        matrix = tf.scatter_nd(places, values, (AXES, AXES)) @ matrix
    return matrix


@tf.function(jit_compile=True)
def warp(channels, classes, matrix, shifts=None):
    """Fills each voxel p from where it came from, centre + matrix (p - centre) + shifts[p].

    Interpolation is Keras's `map_coordinates`; compiled by XLA it takes a thirtieth of the time on a CPU.

    Args:
        channels: a list of (H, W, D) float32, interpolated linearly.
        classes: (H, W, D) uint8, nearest neighbour.
        matrix: (3, 3) about the centre; the inverse of a rotation, or an edge ratio above 1 to make things smaller.
        shifts: (3, H, W, D) in voxels, see `displacement`; None for none.
    """
    sizes = classes.shape
    centred = [tf.range(size, dtype=tf.float32) - (size - 1) / 2 for size in sizes]
    h, w, d = centred[0][:, None, None], centred[1][None, :, None], centred[2][None, None, :]
    places = [
        matrix[axis, 0] * h + (matrix[axis, 1] * w + (matrix[axis, 2] * d + (size - 1) / 2))
        for axis, size in enumerate(sizes)
    ]
    places = tf.stack(places) if shifts is None else tf.stack(places) + shifts
    sample = keras.ops.image.map_coordinates
    channels = [sample(channel, places, order=1, fill_mode="constant") for channel in channels]
    return channels, sample(classes, places, order=0, fill_mode="constant")


def displacement(sizes, share, seed):
    """Smooth random shifts in voxels, (3, H, W, D): a coarse grid of noise, cubic B-splines between its knots.

    Source: the AlbuNet paper's authors' code. Bumps are as wide as a Gaussian of sigma = `share` of each axis; the
    largest shift along an axis is drawn between an eighth and a half of that sigma. Departs from it: knots are no
    closer than a 13th of the axis, which matters for shares under 0.045, whose shifts are hardly visible.
    """
    step = tf.maximum(share * SMOOTH, 1 / (KNOTS - 3))
    grid_seed, height_seed = tf.unstack(tf.random.split(seed, 2))
    field = tf.random.stateless_normal((AXES, KNOTS, KNOTS, KNOTS), grid_seed)
    height, width, depth = sizes
    field = tf.reshape(field, (AXES * KNOTS * KNOTS, KNOTS)) @ _splines(depth, step, transposed=True)
    field = _splines(width, step) @ tf.reshape(field, (AXES, KNOTS, KNOTS, depth))
    field = _splines(height, step) @ tf.reshape(field, (AXES, KNOTS, width * depth))
    sigmas = share * tf.constant(tuple(sizes), tf.float32)
    heights = tf.random.stateless_uniform((AXES,), height_seed, 1 / 8, 1 / 2) * sigmas
    largest = tf.reduce_max(tf.abs(field), axis=(1, 2))
    return tf.reshape(field * (heights / largest)[:, None, None], (AXES, *sizes))


def noise(channel, deviation, seed):
    """Adds Gaussian noise of a standard deviation."""
    return channel + tf.random.stateless_normal(channel.shape, seed) * deviation


def brightness(channel, factor):
    """Multiplies by a factor."""
    return channel * factor


def contrast(channel, factor):
    """Stretches around the mean by a factor, within the old range."""
    mean = tf.reduce_mean(channel)
    stretched = (channel - mean) * factor + mean
    return tf.clip_by_value(stretched, tf.reduce_min(channel), tf.reduce_max(channel))


def gamma(channel, exponent):
    """Raises, as 0...1 between the extremes, to an exponent; keeps mean and deviation."""
    lowest = tf.reduce_min(channel)
    extent = tf.maximum(tf.reduce_max(channel) - lowest, 1e-7)
    # exp and log are vectorised, where TensorFlow's pow is not; the log of 0 comes back as 0.
    bent = tf.exp(exponent * tf.math.log((channel - lowest) / extent))
    mean, deviation = _statistics(channel)
    new_mean, new_deviation = _statistics(bent)
    gain = tf.math.divide_no_nan(deviation, new_deviation)
    return bent * gain + (mean - new_mean * gain)


def inverted_gamma(channel, exponent):
    """`gamma` of the negative image: it bends the bright end instead of the dark one."""
    return -gamma(-channel, exponent)


def blur(channel, sigma):
    """Smooths with a Gaussian of `sigma` voxels along each axis."""
    matrices = []
    for size in channel.shape:
        places = tf.range(size, dtype=tf.float32)
        weights = tf.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
        matrices.append(weights / tf.reduce_sum(weights, axis=1, keepdims=True))
    return _along_axes(channel, matrices)


def low_resolution(channel, factor):
    """Takes the nearest of `factor` times as many voxels along each axis, and interpolates back linearly."""
    matrices = []
    for axis, size in enumerate(channel.shape):
        few = tf.maximum(tf.round(size * factor), 1)
        ratio = size / few
        channel = tf.gather(channel, tf.cast((tf.range(few) + 0.5) * ratio, tf.int32), axis=axis)
        places = tf.clip_by_value((tf.range(size, dtype=tf.float32) + 0.5) / ratio - 0.5, 0, few - 1)
        matrices.append(tf.maximum(1 - tf.abs(places[:, None] - tf.range(few)), 0))
    return _along_axes(channel, matrices)


def bias_field(channel, coefficients):
    """Multiplies what lies above the least value by exp of a polynomial, as the coil of a scanner does.

    `coefficients`, (4, 4, 4), belong to products of Legendre polynomials over -1...1; those of a total degree above 3
    are not used.
    """
    degrees = tf.range(BIAS_DEGREE + 1)
    total = degrees[:, None, None] + degrees[None, :, None] + degrees[None, None, :]
    field = tf.where(total <= BIAS_DEGREE, coefficients, 0)
    for size in channel.shape:  # Each turn takes the first axis away and puts its voxels last.
        x = tf.linspace(-1.0, 1.0, size)
        legendre = tf.stack([tf.ones_like(x), x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2])
        field = tf.tensordot(field, legendre, axes=[[0], [0]])
    lowest = tf.reduce_min(channel)
    return (channel - lowest) * tf.exp(field) + lowest


def _statistics(channel):
    """Mean and standard deviation, in one pass each; no voxel is far from 0, so that nothing cancels."""
    mean = tf.reduce_mean(channel)
    return mean, tf.sqrt(tf.maximum(tf.reduce_mean(tf.square(channel)) - mean**2, 0))


def _along_axes(channel, matrices):
    """Applies matrices (H, h), (W, w) and (D, d) along the axes: (h, w, d) -> (H, W, D)."""
    along_h, along_w, along_d = matrices
    (height, width, depth), few = (matrix.shape[0] for matrix in matrices), tf.shape(channel)
    channel = tf.matmul(tf.reshape(channel, (few[0] * few[1], few[2])), along_d, transpose_b=True)
    channel = along_w @ tf.reshape(channel, (few[0], few[1], depth))
    channel = along_h @ tf.reshape(channel, (few[0], width * depth))
    return tf.reshape(channel, (height, width, depth))


def _splines(size, step, *, transposed=False):
    """Cubic B-splines at the voxels of an axis, knots `step` of its length apart: (size, KNOTS)."""
    places = (tf.range(size, dtype=tf.float32) - (size - 1) / 2) / (step * size)
    knots = tf.range(KNOTS, dtype=tf.float32) - (KNOTS - 1) / 2
    far = tf.abs(knots[:, None] - places if transposed else places[:, None] - knots)
    near = 2 / 3 - far**2 + far**3 / 2
    return tf.where(far < 1, near, tf.where(far < 2, (2 - far) ** 3 / 6, 0.0))
