"""What a training keeps of its forward pass, and what it computes again in the backward pass.

A residual block at full size makes five tensors of 200 MB on its way. `rematerialised` changes neither layers nor
weights nor their names, only which of them stay in memory: by "step" the normalised inputs of the convolutions do not,
which is next to free, because a normalisation is; by "block" nothing but the input of each block does, at the price of
one more convolution for each block.
"""

from functools import partial

import keras

from brats_tf.models.normalisation import GroupNormalization

BLOCK = ("_shortcut", "_add")  # The first and the last layer of `blocks.residual_block`.
PARTS, STEPS = ("norm", "conv"), (1, 2)


def rematerialised(network, keep="step"):
    """The layers and weights of `network` in a `keras.Model` for training; `keep` is "all", "step" or "block".

    Networks without residual blocks (AlbuNet) are returned unchanged, as all are with "all".
    """
    names, inputs = {layer.name for layer in network.layers}, {}
    blocks = {name.removesuffix(BLOCK[1]) for name in names if name.endswith(BLOCK[1])}
    blocks = {block for block in blocks if block + BLOCK[0] in names}
    if keep == "all" or not blocks:
        return network

    def call(layer, *args, **kwargs):
        block, _, part = layer.name.rpartition("_")
        if block in blocks and f"_{part}" == BLOCK[0]:
            inputs[block] = args[0]
        if block in blocks and f"_{part}" == BLOCK[1]:
            # What a block computed on the way to its last layer leads nowhere and is not part of the new model.
            return Block(network, block, keep)(inputs[block])
        return layer(*args, **kwargs)

    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)


class Block(keras.layers.Layer):
    """The layers of a residual block as one: (B, H, W[, D], C) -> (B, H, W[, D], filters)."""

    def __init__(self, network, block, keep):
        super().__init__(name=f"{block}_remat")
        self.keep, self.shortcut = keep, network.get_layer(block + BLOCK[0])
        self.steps = [[network.get_layer(f"{block}_{part}{step}") for part in PARTS] for step in STEPS]

    def call(self, x, training=None):
        steps = [partial(_through, step, training) for step in self.steps]
        if self.keep == "step":
            steps = [keras.remat(step) for step in steps]

        def insides(x):
            for step in steps:
                x = step(x)
            return x

        return self.shortcut(x) + (keras.remat(insides) if self.keep == "block" else insides)(x)

    def compute_output_spec(self, x):
        return self.shortcut.compute_output_spec(x)


def _through(layers, training, x):
    for layer in layers:
        # What is computed again is so outside the call that knows of the training.
        x = layer(x, training=training) if isinstance(layer, GroupNormalization) else layer(x)
    return x
