"""Rematerialisation: what a residual block computes inside is not kept for the way back but computed again there.

Only the graph that trains changes: layers, weights and their names stay, and numbers but for rounding. Two things save
memory. `keras.RematScope` has the insides of a block computed again. And normalisation with its ReLU has its gradient
written out, which needs half the space, and a third of the time, of the one that is derived from Keras's operations.
"""

import math

import keras
from keras import ops

BLOCK = ("_shortcut", "_add")  # The first and the last layer of `blocks.residual_block`.
STEPS = (1, 2)


def rematerialised(network):
    """The same layers and weights as `network`, in a `keras.Model` that keeps the inputs of residual blocks alone.

    Networks without such blocks (AlbuNet) come back as they are.
    """
    names, inputs = {layer.name for layer in network.layers}, {}
    blocks = {name.removesuffix(BLOCK[1]) for name in names if name.endswith(BLOCK[1])}
    blocks = {block for block in blocks if block + BLOCK[0] in names}
    if not blocks:
        return network

    def call(layer, *args, **kwargs):
        block, _, part = layer.name.rpartition("_")
        if block in blocks and f"_{part}" == BLOCK[0]:
            inputs[block] = args[0]
        if block in blocks and f"_{part}" == BLOCK[1]:
            # What a block computed on the way to its last layer leads nowhere and is not part of the new model.
            with keras.RematScope(mode="full"):  # Layers made inside it are computed again.
                return Block(network, block)(inputs[block])
        return layer(*args, **kwargs)

    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)


class Block(keras.layers.Layer):
    """The layers of a residual block as one: (B, H, W[, D], C) -> (B, H, W[, D], filters)."""

    def __init__(self, network, block):
        super().__init__(name=f"{block}_remat")
        self.shortcut = network.get_layer(block + BLOCK[0])
        with keras.RematScope(mode="full"):
            self.steps = [Step(network, block, number) for number in STEPS]

    def call(self, x):
        shortcut = self.shortcut(x)
        for step in self.steps:
            x = step(x)
        return x + shortcut

    def compute_output_spec(self, x):
        return self.shortcut.compute_output_spec(x)


class Step(keras.layers.Layer):
    """Normalisation, ReLU and convolution of a residual block."""

    def __init__(self, network, block, number):
        super().__init__(name=f"{block}_step{number}")
        self.norm, self.conv = (network.get_layer(f"{block}_{part}{number}") for part in ("norm", "conv"))

    def call(self, x):
        # Times one, because a gradient of our own must be given values, not variables.
        gamma, beta = (1.0 * ops.cast(weight, "float32") for weight in (self.norm.gamma, self.norm.beta))
        x = normalise_and_rectify(x, gamma, beta, groups=self.norm.groups, epsilon=self.norm.epsilon)
        return self.conv(x)

    def compute_output_spec(self, x):
        return self.conv.compute_output_spec(x)


def normalise_and_rectify(x, gamma, beta, *, groups, epsilon):
    """GroupNormalization and ReLU, (B, ..., C) -> the same shape and type, statistics in float32.

    Equal to Keras's layers but for rounding. With x̂ = (x - mean) / deviation and g the gradient behind the ReLU,
    dx = (γ g - mean(γ g) - x̂ mean(γ g x̂)) / deviation, means over a group (Wu and He 2018).
    """
    channels, axes = x.shape[-1], tuple(range(1, len(x.shape) - 1))
    count = math.prod(x.shape[1:-1]) * channels // groups

    def over_group(values):
        """Sums of (B, C) over each group, for every channel of it."""
        grouped = ops.reshape(values, (-1, groups, channels // groups))
        return ops.reshape(ops.sum(grouped, axis=-1, keepdims=True) + ops.zeros_like(grouped), (-1, channels))

    def everywhere(values):
        return ops.reshape(values, (-1, *[1] * len(axes), channels))

    @ops.custom_gradient
    def function(x, gamma, beta):
        full = ops.cast(x, "float32")
        mean = over_group(ops.sum(full, axis=axes)) / count
        variance = over_group(ops.sum(ops.square(full - everywhere(mean)), axis=axes)) / count
        inverse = ops.rsqrt(variance + epsilon)
        factor, offset = gamma * inverse, beta - mean * gamma * inverse
        y = ops.relu(full * everywhere(factor) + everywhere(offset))

        def gradient(*args, upstream=None):
            g = ops.cast(args[0] if upstream is None else upstream, "float32")
            full = ops.cast(x, "float32")
            g = ops.where(full * everywhere(factor) + everywhere(offset) > 0, g, 0.0)
            g_sum = ops.sum(g, axis=axes)
            gx_sum = (ops.sum(g * full, axis=axes) - mean * g_sum) * inverse  # Of g x̂.
            along = -inverse * inverse * over_group(gamma * gx_sum) / count
            constant = -inverse * over_group(gamma * g_sum) / count - along * mean
            dx = g * everywhere(factor) + (full * everywhere(along) + everywhere(constant))
            return ops.cast(dx, x.dtype), ops.sum(gx_sum, axis=0), ops.sum(g_sum, axis=0)

        return ops.cast(y, x.dtype), gradient

    return function(x, gamma, beta)
