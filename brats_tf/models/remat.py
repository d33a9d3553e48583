"""Rematerialisation: what a residual block computes inside is not kept for the way back but computed again there.

Only the graph that trains changes: layers, weights and their names stay, and numbers but for rounding. Two things save
memory. `keras.RematScope` has the insides of a block computed again. And normalisation with its ReLU has its gradient
written out, which needs half the space, and a third of the time, of the one that is derived from Keras's operations.
"""

from contextlib import nullcontext

import keras
from keras import ops

from brats_tf.models.normalisation import normalise_and_rectify

BLOCK = ("_shortcut", "_add")  # The first and the last layer of `blocks.residual_block`.
STEPS = (1, 2)


def training_graph(network, *, rematerialise=False):
    """The same layers and weights as `network`, in a `keras.Model` whose residual blocks normalise with our gradient.

    With `rematerialise` it keeps the inputs of residual blocks alone. Networks without such blocks (AlbuNet) come back
    as they are.
    """
    scope = keras.RematScope if rematerialise else nullcontext
    settings = {"mode": "full"} if rematerialise else {}
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
            with scope(**settings):  # Layers made inside it are computed again.
                return Block(network, block)(inputs[block])
        return layer(*args, **kwargs)

    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)


class Block(keras.layers.Layer):
    """The layers of a residual block as one: (B, H, W[, D], C) -> (B, H, W[, D], filters)."""

    def __init__(self, network, block):
        super().__init__(name=f"{block}_remat")
        self.shortcut = network.get_layer(block + BLOCK[0])
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
