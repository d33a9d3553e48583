"""The planes between 3D encoder and classifier: looked at, measured, and taken away from the classifier."""

import keras
from keras import layers, ops

from brats_tf.models.decoder2d import DECODED_PLANES_LAYER
from brats_tf.models.interslice import LAST_BLOCK, PLANES_LAYER
from brats_tf.models.remat import rematerialised
from brats_tf.models.slabs import IMAGES_LAYER

# What the names of the last layers before the planes begin with: their only way to the loss leads through the
# classifier.
BEFORE_PLANES = (f"{LAST_BLOCK}_", f"{IMAGES_LAYER}_")
# Planes are (B, H, W, planes), or (B, H, W, N, planes) where there is an image for each of N slabs.
SPACE = (1, 2)


def has_planes(network):
    """Whether a network has a 2D classifier, which sees planes."""
    return PLANES_LAYER in {layer.name for layer in network.layers}


def with_planes(network, *, keep="all"):
    """A network with more outputs: probabilities, and where there are any, the planes that enter the classifier and
    those that enter the 3D decoder (B, H, W, planes). `keep` is that of `remat.rematerialised`.
    """
    there = {layer.name for layer in network.layers}
    names = [name for name in (PLANES_LAYER, DECODED_PLANES_LAYER) if name in there]
    outputs = [network.outputs[0], *(network.get_layer(name).output for name in names)]
    return rematerialised(keras.Model(network.inputs[0], outputs), keep)


def blinded(graph):
    """The layers and weights of a network whose classifier sees each plane as its mean, that is, nothing of the case.

    What such a network still predicts, the 3D encoder and its skips do alone.
    """

    def call(layer, *args, **kwargs):
        y = layer(*args, **kwargs)
        return MeanOfPlanes(name="planes_mean")(y) if layer.name == PLANES_LAYER else y

    return keras.models.clone_model(graph, clone_function=lambda layer: layer, call_function=call)


@keras.saving.register_keras_serializable("brats_tf")
class MeanOfPlanes(layers.Layer):
    """Replaces every pixel by the mean of its plane, and a slab's by that of all slabs: the shape stays."""

    def call(self, planes):
        axes = tuple(range(1, len(planes.shape) - 1))
        return ops.mean(planes, axis=axes, keepdims=True) + ops.zeros_like(planes)


def live_share(planes):
    """The share of plane pixels that are not 0, which a ReLU can make of all of them: a scalar."""
    return ops.mean(ops.cast(planes != 0, "float32"))


def deviation(planes):
    """The standard deviation over the pixels of a plane, mean over the planes: a scalar."""
    return ops.mean(ops.std(ops.cast(planes, "float32"), axis=SPACE))
