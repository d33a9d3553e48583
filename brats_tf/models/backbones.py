"""2D ImageNet classifiers as feature pyramids: image (B, H, W, 3) -> {"P1", ..., "P5"}.

`Pn` is 2**n times smaller than the image. Who uses a pyramid asks for a scale, never for a layer of a classifier.
"""

from dataclasses import dataclass

import keras
from keras import layers

from brats_tf.errors import InputError

BATCH_NORM = ("frozen", "batch")
INPUT_SCALING = ("none", "imagenet")

# What Keras's EfficientNet does to an image of 0..255 before its first convolution, as one affine map per channel.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A classifier of keras.applications: its builder, its first layer after the input scaling, its scales."""

    application: callable
    stem: str
    scales: dict


BACKBONES = {
    # The expansions before each strided depthwise convolution, and the top (authors' code).
    "efficientnetb0": Backbone(
        application=keras.applications.EfficientNetB0,
        stem="stem_conv_pad",
        scales={
            "P1": "block2a_expand_activation",
            "P2": "block3a_expand_activation",
            "P3": "block4a_expand_activation",
            "P4": "block6a_expand_activation",
            "P5": "top_activation",
        },
    )
}


def feature_pyramid(name, *, image_shape, batch_norm="frozen", stochastic_depth=False):
    """Builds a classifier without its top and without any input scaling, with random weights.

    Args:
        name: a key of `BACKBONES`.
        image_shape: (H, W, 3); H and W multiples of 32.
        batch_norm: "frozen" keeps the inference statistics and the affine parameters while training; "batch"
            normalises by the batch's own statistics, which with one case a batch is another function than the one
            used for prediction.
        stochastic_depth: whether training drops residual branches at random, as EfficientNet was trained on ImageNet
            (the authors' code leaves it on; paper A names no dropout).

    Returns:
        A `keras.Model` image (B, H, W, 3) -> {"P1": (B, H/2, W/2, C1), ..., "P5": (B, H/32, W/32, C5)}.

    Raises:
        InputError: on an unknown name or batch norm.
    """
    if name not in BACKBONES:
        raise InputError(f"`backbone` must be one of {', '.join(BACKBONES)}. Received: {name!r}.")
    if batch_norm not in BATCH_NORM:
        raise InputError(f"`batch_norm` must be one of {', '.join(BATCH_NORM)}. Received: {batch_norm!r}.")
    backbone = BACKBONES[name]
    classifier = backbone.application(include_top=False, weights=None, input_shape=image_shape)
    # Cut behind Keras's own scaling layers: planes are features of order 1, and divided by 255 they are a constant.
    pyramid = keras.Model(
        classifier.get_layer(backbone.stem).input,
        {scale: classifier.get_layer(layer).output for scale, layer in backbone.scales.items()},
        name=name,
    )
    pyramid.layers[0].name = "image"  # Keras calls the input of a cut model keras_tensor_409CLONE.
    for layer in pyramid.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = batch_norm == "batch"
        if isinstance(layer, layers.Dropout) and not stochastic_depth:
            layer.rate = 0.0
    return pyramid


def scale_input(planes, *, scaling):
    """Scales the planes as ImageNet weights expect an image: (B, H, W, 3) -> (B, H, W, 3).

    "none" (paper A: the planes *are* the input) returns them; "imagenet" takes 0..255 to zero mean, unit variance
    (authors' code, which leaves Keras's hidden scaling in).
    """
    if scaling not in INPUT_SCALING:
        raise InputError(f"`input_scaling` must be one of {', '.join(INPUT_SCALING)}. Received: {scaling!r}.")
    if scaling == "none":
        return planes
    return layers.Rescaling(
        scale=[1 / (255 * std) for std in IMAGENET_STD],
        offset=[-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
        name="planes_scaling",
    )(planes)
