"""What a training keeps of its forward pass, and what it computes again in the backward pass.

A residual block at full size makes five tensors of 200 MB on its way. `rematerialised` changes neither layers nor
weights nor their names, only which of them stay in memory: by "step" the normalised inputs of the convolutions do not,
which is next to free, because a normalisation is. By "block" nothing stays but what the inputs of the blocks are made
of, and the classifier's features at each scale, at the price of one more convolution for each block and one more pass
of the classifier.
"""

from functools import partial

import keras

from brats_tf.models.feature_pyramid import stages
from brats_tf.models.interslice import STEM_LAYER

BLOCK = ("_shortcut", "_add")  # The first and the last layer of `blocks.residual_block`.
PARTS, STEPS = ("norm", "conv"), (1, 2)


def rematerialised(network, keep="step"):
    """The layers and weights of `network` in a `keras.Model` for training; `keep` is "all", "step" or "block".

    Networks without residual blocks (AlbuNet) are returned unchanged, as all are with "all". A classifier whose second
    pass would differ, because it learns batch statistics or drops features at random, is computed once.
    """
    names, inputs, made = {layer.name for layer in network.layers}, {}, {}
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
            before = Again(inputs[block], made if keep == "block" else {})
            return Block(network, block, keep, before)(before.kept)
        if keep == "block" and isinstance(layer, keras.Model) and repeats_itself(layer):
            return Classifier(layer)(*args)
        y = layer(*args, **kwargs)
        made[id(y)] = (y, layer, keras.tree.flatten(args))  # With `y`, so that no other tensor gets its number.
        return y

    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)


class Again:
    """How a tensor is made again of what a training keeps anyway, where that is cheap.

    Args:
        tensor: a `KerasTensor`.
        made: {id: (tensor, the layer that made it, its inputs)} of all that may be made again.

    Attributes:
        kept: the tensors that it is made of, itself if nothing is cheap.
        layers: what makes it of them.
    """

    def __init__(self, tensor, made):
        self.tensor = tensor
        _, self.layer, inputs = made.get(id(tensor), (None, None, ()))
        if not self._cheap(inputs, made):
            self.layer, inputs = None, ()
        self.parts = [Again(one, made) for one in inputs]
        self.kept = [one for part in self.parts for one in part.kept] or [tensor]
        self.layers = [one for part in self.parts for one in part.layers] + ([self.layer] if self.layer else [])

    def _cheap(self, inputs, made):
        """Whether it takes no time to speak of: a convolution of one image, pooling, copies, a sum with copies."""
        if isinstance(self.layer, keras.layers.Add):
            return any(isinstance(made[id(one)][1], keras.layers.UpSampling3D) for one in inputs if id(one) in made)
        copying = isinstance(self.layer, (keras.layers.MaxPooling3D, keras.layers.UpSampling3D))
        return copying or (self.layer is not None and self.layer.name == STEM_LAYER)

    def __call__(self, values, training):
        """The tensor of the values of `kept`."""
        if not self.layer:
            return values[0]
        values, inputs = list(values), []
        for part in self.parts:
            inputs.append(part(values[: len(part.kept)], training))
            del values[: len(part.kept)]
        return self.layer(inputs if len(inputs) > 1 else inputs[0], training=training)


class Block(keras.layers.Layer):
    """The layers of a residual block as one, what its input is made of included: tensors -> (B, H, W[, D], filters)."""

    def __init__(self, network, block, keep, before):
        super().__init__(name=f"{block}_remat", autocast=False)  # Kept in the format in which it comes.
        self.keep, self.before = keep, before
        self.before_layers = before.layers  # Where Keras looks for weights.
        self.shortcut = network.get_layer(block + BLOCK[0])
        self.steps = [[network.get_layer(f"{block}_{part}{step}") for part in PARTS] for step in STEPS]
        self.spec = self.shortcut.compute_output_spec(before.tensor)

    def call(self, kept, training=None):
        # Each step once more within the block, so that of all steps the inputs of one convolution are there at a time.
        steps = [(norm, keras.remat(partial(_step, norm, conv, training))) for norm, conv in self.steps]

        def block(*kept):
            x = y = self.before(kept, training)
            for norm, step in steps:
                y = step(y, *norm.statistics(y, training))
            return self.shortcut(x, training=training) + y

        return (keras.remat(block) if self.keep == "block" else block)(*kept)

    def compute_output_spec(self, kept):
        return self.spec


class Classifier(keras.layers.Layer):
    """A classifier as a layer that keeps its features at each scale: images (B, H, W, C) -> {"Pn": (B, h, w, c)}."""

    def __init__(self, pyramid):
        super().__init__(name=f"{pyramid.name}_remat", autocast=False)
        self.pyramid, self.stages = pyramid, stages(pyramid)

    def call(self, images, training=None):
        features, x = {}, images
        for scale, stage in self.stages.items():
            features[scale] = x = keras.remat(partial(stage, training=training))(x)
        return features

    def compute_output_spec(self, images):
        return self.pyramid.compute_output_spec(images)


def classifiers(network):
    """The nested models of a network: its classifier, if it embeds one, also where a training computes it again."""
    layers = (layer.pyramid if isinstance(layer, Classifier) else layer for layer in network.layers)
    return [layer for layer in layers if isinstance(layer, keras.Model)]


def repeats_itself(classifier):
    """Whether a second pass of a training gives the same numbers, and leaves the same state."""
    for layer in classifier.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            return False
        if getattr(layer, "rate", 0) or getattr(layer, "drop_path_rate", 0):
            return False
    return True


def _step(norm, conv, training, x, *statistics):
    """What is computed again is so outside the call that knows of the training."""
    return conv(norm(x, training=training, statistics=statistics), training=training)
