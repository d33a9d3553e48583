"""The graph that computes: residual blocks with fused normalisation, kept or recomputed in the backward pass.

`fused_graph` changes neither layers nor weights nor their names. Normalisation and ReLU of a residual block become one
function with exact sums and a written-out gradient (see `normalisation`): a prediction takes less than half the time,
and differs from Keras's layers in the third digit at full size, where their float32 mean is inexact. With
`rematerialise`, `keras.RematScope` recomputes the insides of a block in the backward pass.
"""

from contextlib import nullcontext

import keras
from keras import ops

from brats_tf.models.normalisation import normalise_and_rectify

BLOCK = ("_shortcut", "_add")  # The first and the last layer of `blocks.residual_block`.
STEPS = (1, 2)


def fused_graph(network, *, rematerialise=False):
    """The layers and weights of `network` in a `keras.Model` whose residual blocks normalise in one function.

    Training, prediction and export all use it. With `rematerialise` it keeps only the inputs of residual blocks.
    Networks without such blocks (AlbuNet, or a graph that is fused already) are returned unchanged.
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
