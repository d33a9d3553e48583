"""Group normalisation with its ReLU, with a gradient that keeps less than the one derived from Keras's operations."""

import math

from keras import ops


def normalise_and_rectify(x, gamma, beta, *, groups, epsilon):
    """GroupNormalization and ReLU, (B, ..., C) -> the same shape and type, statistics in float32.

    Equal to Keras's layers but for rounding. With x̂ = (x - mean) / deviation and g the gradient behind the ReLU,
    dx = (γ g - mean(γ g) - x̂ mean(γ g x̂)) / deviation, means over a group (Wu and He 2018).
    """
    channels, axes = x.shape[-1], tuple(range(1, len(x.shape) - 1))
    count = math.prod(x.shape[1:-1]) * channels // groups

    def over_space(values):
        """Sums of (B, ..., C) over all axes between: (B, C). As a matrix product, faster than a reduction."""
        flat = ops.reshape(values, (-1, math.prod(values.shape[1:-1]), channels))
        return ops.matmul(ops.ones((1, flat.shape[1]), flat.dtype), flat)[:, 0]

    def over_group(values):
        """Sums of (B, C) over each group, for every channel of it."""
        grouped = ops.reshape(values, (-1, groups, channels // groups))
        return ops.reshape(ops.sum(grouped, axis=-1, keepdims=True) + ops.zeros_like(grouped), (-1, channels))

    def everywhere(values):
        return ops.reshape(values, (-1, *[1] * len(axes), channels))

    @ops.custom_gradient
    def function(x, gamma, beta):
        full = ops.cast(x, "float32")
        mean = over_group(over_space(full)) / count
        variance = over_group(over_space(ops.square(full - everywhere(mean)))) / count
        inverse = ops.rsqrt(variance + epsilon)
        factor, offset = gamma * inverse, beta - mean * gamma * inverse
        y = ops.relu(full * everywhere(factor) + everywhere(offset))

        def gradient(*args, upstream=None):
            g = ops.cast(args[0] if upstream is None else upstream, "float32")
            full = ops.cast(x, "float32")
            g = ops.where(full * everywhere(factor) + everywhere(offset) > 0, g, 0.0)
            g_sum = over_space(g)
            gx_sum = (over_space(g * full) - mean * g_sum) * inverse  # Of g x̂.
            along = -inverse * inverse * over_group(gamma * gx_sum) / count
            constant = -inverse * over_group(gamma * g_sum) / count - along * mean
            dx = g * everywhere(factor) + (full * everywhere(along) + everywhere(constant))
            return ops.cast(dx, x.dtype), ops.sum(gx_sum, axis=0), ops.sum(g_sum, axis=0)

        return ops.cast(y, x.dtype), gradient

    return function(x, gamma, beta)
