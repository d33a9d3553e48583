"""The planes between 3D encoder and classifier: looked at, measured, and taken away from the classifier."""

import keras
from keras import layers, ops

from brats_tf.models.decoder2d import DECODED_PLANES_LAYER
from brats_tf.models.interslice import PLANES_LAYER
from brats_tf.models.remat import rematerialised


def has_planes(network):
    """Whether a network is an embedding, whose classifier sees planes."""
    return PLANES_LAYER in {layer.name for layer in network.layers}


def with_planes(network, *, keep="all"):
    """A network with more outputs: probabilities, and where there are planes, those from the 3D encoder
    (B, H, W, planes) and those into the 3D decoder (B, H, W, planes). `keep` is that of `remat.rematerialised`.
    """
    names = (PLANES_LAYER, DECODED_PLANES_LAYER) if has_planes(network) else ()
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


class MeanOfPlanes(layers.Layer):
    """Replaces every pixel by the mean of its plane: (B, H, W, planes) -> the same shape."""

    def call(self, planes):
        return ops.mean(planes, axis=(1, 2), keepdims=True) + ops.zeros_like(planes)


def live_share(planes):
    """The share of plane pixels that are not 0, which a ReLU can make of all of them: (B, H, W, planes) -> ()."""
    return ops.mean(ops.cast(planes != 0, "float32"))


def deviation(planes):
    """The standard deviation over the pixels of a plane, mean over the planes: (B, H, W, planes) -> ()."""
    return ops.mean(ops.std(ops.cast(planes, "float32"), axis=(1, 2)))
