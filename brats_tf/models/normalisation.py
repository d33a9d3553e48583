"""Group normalisation with its ReLU, with a gradient that keeps less than the one derived from Keras's operations.

Keras's layer sums a volume in float32 one value after another, and the last digits of each are lost: at 192x160x108 its
output is wrong by up to 0.036, where this function is wrong by 6e-6, in less than half the time (measured against
float64 on a CPU by `experiments/exact_normalisation.py`).
"""

import math

import numpy as np
from keras import ops


def normalise_and_rectify(x, gamma, beta, *, groups, epsilon):
    """GroupNormalization and ReLU, (B, ..., C) -> the same shape and type, statistics in float32.

    Equal to Keras's layers but for rounding. With x̂ = (x - mean) / deviation and g the gradient behind the ReLU,
    dx = (γ g - mean(γ g) - x̂ mean(γ g x̂)) / deviation, means over a group (Wu and He 2018).
    """
    channels, axes = x.shape[-1], tuple(range(1, len(x.shape) - 1))
    size = math.prod(x.shape[1:-1])
    count, grouped = size * channels // groups, (-1, groups, channels // groups)

    def over_space(values):
        """Sums of (B, ..., C) over all axes between: (B, G, C/G). As a matrix product, faster than a reduction."""
        flat = ops.reshape(values, (-1, size, channels))
        return ops.reshape(ops.matmul(ops.ones((1, size), flat.dtype), flat), grouped)

    def over_group(values):
        """Sums of (B, G, C/G) over each group: (B, G, 1)."""
        return ops.sum(values, axis=-1, keepdims=True)

    def everywhere(values):
        """(B, G, C/G), or (B, G, 1), which all channels of a group share, beside (B, ..., C)."""
        full = values + np.zeros(grouped[1:], "float32") if values.shape[-1] != grouped[-1] else values
        return ops.reshape(full, (-1, *[1] * len(axes), channels))

    @ops.custom_gradient
    def function(x, gamma, beta):
        full = ops.cast(x, "float32")
        gamma, beta = (ops.reshape(weight, grouped) for weight in (gamma, beta))
        mean = over_group(over_space(full)) / count
        variance = over_group(over_space(ops.square(full - everywhere(mean)))) / count
        inverse = ops.rsqrt(variance + epsilon)
        factor = gamma * inverse
        slope, offset = everywhere(factor), everywhere(beta - mean * factor)
        y = ops.relu(full * slope + offset)

        def gradient(*args, upstream=None):
            g = ops.cast(args[0] if upstream is None else upstream, "float32")
            full = ops.cast(x, "float32")
            g = ops.where(full * slope + offset > 0, g, 0.0)
            g_sum = over_space(g)
            gx_sum = (over_space(g * full) - mean * g_sum) * inverse  # Of g x̂.
            along = -inverse * inverse * over_group(gamma * gx_sum) / count
            constant = -inverse * over_group(gamma * g_sum) / count - along * mean
            dx = g * slope + (full * everywhere(along) + everywhere(constant))
            of_weights = (ops.reshape(ops.sum(sums, axis=0), (channels,)) for sums in (gx_sum, g_sum))
            return ops.cast(dx, x.dtype), *of_weights

        return ops.cast(y, x.dtype), gradient

    return function(x, gamma, beta)
