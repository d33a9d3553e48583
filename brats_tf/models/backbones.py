"""The registry of backbones: which 2D ImageNet classifiers can be embedded, and what their weights expect of an image.

A backbone is a Keras model image (B, H, W, C) -> {"P1", ..., "P5"}, `Pn` being 2**n times smaller. Who uses a pyramid
asks for a scale, never for a layer of a classifier. A family without some scale has no such key.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from keras import layers

from brats_tf.config.fields import choices_of
from brats_tf.config.settings import ClassifierSettings
from brats_tf.errors import InputError
from brats_tf.models import feature_pyramid as pyramid
from brats_tf.models.activations import with_lean_gradients
from brats_tf.models.normalisation import GroupNormalization
from brats_tf.models.precision import float32_on_cpu

BATCH_NORM = choices_of(ClassifierSettings, "batch_norm")
INPUT_SCALING = choices_of(ClassifierSettings, "input_scaling")
KERAS, SEGMENTATION_MODELS = "keras.applications", "segmentation-models"
RGB = 3

# ImageNet's mean and standard deviation per channel, of an image of 0..1.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What a family's ImageNet weights expect of an image of 0..255, as scale and offset per channel. The planes have no
# colours: plane 0 takes the place of the first channel that the weights see (blue for "caffe").
SCALINGS = {
    "torch": ([1 / (255 * std) for std in STD], [-mean / std for mean, std in zip(MEAN, STD, strict=True)]),
    "tf": ([1 / 127.5] * RGB, [-1.0] * RGB),
    "tf128": ([1 / 128] * RGB, [-1.0] * RGB),
    "caffe": ([1.0] * RGB, [-103.939, -116.779, -123.68]),
    "learned": None,  # A batch norm in front of the first convolution, whose statistics come with the weights.
}
LEARNED_LAYER = "bn_data"  # Its name in segmentation-models' ResNets.
LEARNED_EPSILON = 2e-5
SCALING_LAYER, RANGE_LAYER = "planes_scaling", "planes_range"
PLANE_EPSILON = 1e-5


@dataclass(frozen=True)
class Backbone:
    """A classifier that can be embedded.

    Attributes:
        source: the package that builds it.
        build: (input_shape, weights) -> the whole classifier without top; weights None or "imagenet".
        scaling: what its ImageNet weights expect of an image, a key of `SCALINGS`.
        weights: the names of the weights that can be had for it.
        note: what a user should know.
    """

    source: str
    build: Callable
    scaling: str
    weights: tuple = ("imagenet",)
    note: str = ""


def _keras(name, scaling, **settings):
    return Backbone(KERAS, partial(getattr(keras.applications, name), include_top=False), scaling, **settings)


def _segmentation_models(name, scaling, **settings):
    return Backbone(SEGMENTATION_MODELS, partial(_build_segmentation_models, name), scaling, **settings)


def _build_segmentation_models(name, *, input_shape, weights):
    with _quietly():
        from segmentation_models import inject_global_submodules
        from segmentation_models.backbones.backbones_factory import Backbones
    build = inject_global_submodules(Backbones.get_backbone)
    return build(name, input_shape=input_shape, weights=weights, include_top=False)


def build_efficientnet_package(name, *, image_shape):
    """Builds an EfficientNet of the package `efficientnet`, whose layers are named as keras.applications' are."""
    with _quietly():
        from efficientnet import tfkeras
    build = getattr(tfkeras, f"EfficientNet{name[-2:].upper()}")
    return build(input_shape=image_shape, weights=None, include_top=False)


@contextlib.contextmanager
def _quietly():
    """For importing the two packages: they choose their Keras then, print which, and warn of their own old syntax."""
    os.environ["SM_FRAMEWORK"] = "tf.keras"
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


SLASHES = "segmentation-models' own does not build under Keras 3, which takes no '/' in a layer's name; this is Keras's"

BACKBONES = {
    **{
        f"efficientnetb{n}": _keras(f"EfficientNetB{n}", "torch", weights=("imagenet", "noisy-student"))
        for n in range(8)
    },
    **{f"efficientnetv2b{n}": _keras(f"EfficientNetV2B{n}", "torch") for n in range(4)},
    **{f"efficientnetv2{size.lower()}": _keras(f"EfficientNetV2{size}", "tf128") for size in "SML"},
    **{
        f"convnext_{size.lower()}": _keras(f"ConvNeXt{size}", "torch", note="no P1: its first convolution has stride 4")
        for size in ("Tiny", "Small", "Base", "Large", "XLarge")
    },
    **{f"resnet{n}": _segmentation_models(f"resnet{n}", "learned") for n in (18, 34, 50, 101, 152)},
    **{f"resnet{n}v2": _keras(f"ResNet{n}V2", "tf") for n in (50, 101, 152)},
    **{f"resnext{n}": _segmentation_models(f"resnext{n}", "learned") for n in (50, 101)},
    **{f"seresnet{n}": _segmentation_models(f"seresnet{n}", "learned") for n in (18, 34)},
    **{f"seresnet{n}": _segmentation_models(f"seresnet{n}", "torch") for n in (50, 101, 152)},
    **{f"seresnext{n}": _segmentation_models(f"seresnext{n}", "torch") for n in (50, 101)},
    "senet154": _segmentation_models("senet154", "torch"),
    **{f"densenet{n}": _keras(f"DenseNet{n}", "torch", note=SLASHES) for n in (121, 169, 201)},
    **{f"vgg{n}": _keras(f"VGG{n}", "caffe") for n in (16, 19)},
    "inceptionv3": _segmentation_models("inceptionv3", "tf"),
    "inceptionresnetv2": _segmentation_models("inceptionresnetv2", "tf"),
    "xception": _keras("Xception", "tf", note="no P1, P2: its first convolutions are not padded"),
    "mobilenet": _keras("MobileNet", "tf"),
    "mobilenetv2": _keras("MobileNetV2", "tf"),
    **{f"mobilenetv3{size.lower()}": _keras(f"MobileNetV3{size}", "tf") for size in ("Small", "Large")},
}
# What one might look for, and why it is not there.
UNFIT = {
    "nasnetmobile, nasnetlarge": "a cell reads the two before it, so that no scale finer than P5 is a single output",
    "resnet50, resnet101, resnet152 of keras.applications": "these names are segmentation-models' (pre-activation)",
    "efficientnet, vgg, mobilenet of segmentation-models": "the same networks as Keras's, which are taken",
}


def get_backbone(name):
    """Looks up a `Backbone`. Raises `InputError` on an unknown name."""
    if name not in BACKBONES:
        raise InputError(f"`backbone` must be one of {', '.join(BACKBONES)}. Received: {name!r}.")
    return BACKBONES[name]


def build_classifier(name, *, image_shape, weights=None):
    """Builds the whole classifier without top; the layers that Keras named by itself are counted from zero.

    Args:
        name: a key of `BACKBONES`.
        image_shape: (H, W, C); C other than 3 without weights only.
        weights: None, or "imagenet" for the source's own file from its cache or download.
    """
    with warnings.catch_warnings():
        # That images usually have 3 channels, or that MobileNet's weights are for 224 x 224.
        warnings.simplefilter("ignore", UserWarning)
        classifier = get_backbone(name).build(input_shape=image_shape, weights=weights)
    pyramid.number_layers(classifier)
    return classifier


def feature_pyramid(name, image_shape, batch_norm="frozen", stochastic_depth=False):
    """Builds a classifier without its top and without any input scaling, with random weights.

    Args:
        name: a key of `BACKBONES`.
        image_shape: (H, W, C); H and W multiples of 32.
        batch_norm: "frozen" keeps the inference statistics and the affine parameters while training; "batch"
            normalises by the batch's own statistics, which with one case a batch is another function than the one
            used for prediction.
        stochastic_depth: whether training drops residual branches at random, as EfficientNet was trained on ImageNet
            (the authors' code leaves it on; the embedding paper names no dropout).

    Returns:
        A `keras.Model` image (B, H, W, C) -> {"P1": (B, H/2, W/2, C1), ..., "P5": (B, H/32, W/32, C5)}.

    Raises:
        InputError: on an unknown name or batch norm, or an image that is too small for the classifier.
    """
    if batch_norm not in BATCH_NORM:
        raise InputError(f"`batch_norm` must be one of {', '.join(BATCH_NORM)}. Received: {batch_norm!r}.")
    get_backbone(name)
    try:
        with float32_on_cpu():
            network = pyramid.cut(build_classifier(name, image_shape=image_shape), name=name)
    except ValueError as error:
        height, width, _ = image_shape
        raise InputError(f"{name} could not be built for planes of {height}x{width} voxels: {error}.") from error
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = batch_norm == "batch"
        if isinstance(layer, layers.Dropout) and not stochastic_depth:
            layer.rate = 0.0
    return with_lean_gradients(network)


def scale_input(planes, *, scaling, backbone):
    """Scales the planes as the backbone's ImageNet weights expect an image: (B, ..., C) -> the same shape.

    "standardise" gives each plane of each case mean 0 and standard deviation 1, as the images had that the weights'
    statistics come from, and where a family's images had another range, that one (deviations of 0.45 for "tf", 57 for
    "caffe"); "none" returns the planes; "imagenet" takes 0..255 to what `SCALINGS` says (authors' code, which leaves
    Keras's hidden scaling in). More than three planes repeat the three channels.
    """
    if scaling not in INPUT_SCALING:
        raise InputError(f"`input_scaling` must be one of {', '.join(INPUT_SCALING)}. Received: {scaling!r}.")
    if scaling == "none":
        return planes
    if scaling == "standardise":
        settings = {"epsilon": PLANE_EPSILON, "center": False, "scale": False, "name": SCALING_LAYER}
        planes = GroupNormalization(planes.shape[-1], **settings)(planes)
        deviation, mean = expected_range(backbone, planes.shape[-1])
        if np.allclose(deviation, 1, atol=0.05):
            return planes
        return layers.Rescaling(scale=deviation, offset=mean, name=RANGE_LAYER)(planes)
    constants = SCALINGS[get_backbone(backbone).scaling]
    if constants is None:
        # Its statistics are filled in with the weights; until then it passes the planes through.
        return layers.BatchNormalization(scale=False, epsilon=LEARNED_EPSILON, trainable=False, name=SCALING_LAYER)(
            planes
        )
    scale, offset = ([values[plane % RGB] for plane in range(planes.shape[-1])] for values in constants)
    return layers.Rescaling(scale=scale, offset=offset, name=SCALING_LAYER)(planes)


def expected_range(backbone, planes=RGB):
    """(standard deviations, means) of what a classifier's weights see of ImageNet's images, for each plane."""
    scaling = get_backbone(backbone).scaling
    if SCALINGS[scaling] is None:
        return [1.0] * planes, [0.0] * planes
    std, mean = (values[::-1] if scaling == "caffe" else values for values in (STD, MEAN))  # Its first plane is blue.
    scale, offset = SCALINGS[scaling]
    channels = [plane % RGB for plane in range(planes)]
    deviations = [255 * scale[one] * std[one] for one in channels]
    return deviations, [255 * scale[one] * mean[one] + offset[one] for one in channels]
