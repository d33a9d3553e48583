"""The embedding paper: a 2D ImageNet classifier embedded in a 3D segmenter. Read it beside the paper's Figure 1."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers

from brats_tf.config.presets import PRESETS
from brats_tf.config.settings import EmbeddingSettings
from brats_tf.models import backbones, decoder2d, interslice
from brats_tf.models.feature_pyramid import check_height_and_width
from brats_tf.models.slices_first import conv, slices_first, slices_last

REGION_CHANNELS = 3  # WT, TC, ET
CLASS_CHANNELS = 4  # background, necrosis, edema, enhancing


# See `backbones.scale_input` and `backbones.feature_pyramid`.
class Switches(NamedTuple):
    """How the classifier is embedded."""

    input_scaling: str
    batch_norm: str
    stochastic_depth: bool


class Halves(NamedTuple):
    """What lies before and behind the classifier: an inter-slice encoder and a 2D decoder."""

    squeeze: Callable
    decode: Callable


DEFAULTS = EmbeddingSettings()
PAPER = Switches(DEFAULTS.input_scaling, DEFAULTS.batch_norm, DEFAULTS.stochastic_depth)
AUTHORS = Switches(*(PRESETS["embedding-authors"][name] for name in Switches._fields))


def embedding_network(
    shape: tuple[int, int, int, int],
    *,
    depth_factors: tuple[int, int, int] | None = None,
    planes: int = DEFAULTS.planes,
    backbone: str = DEFAULTS.backbone,
    **switches: Any,
) -> keras.Model:
    """The network of the text: volume (B, H, W, D, C) -> sigmoid regions WT, TC, ET (B, H, W, D, 3), float32.

    Args:
        shape: (H, W, D, C) of a volume; H and W multiples of 32, D the planes times the product of the depth factors.
        depth_factors: three factors of the squeeze; None chooses them from D.
        planes: how many slices the squeeze leaves, the channels of the classifier's image.
        backbone: the 2D classifier, a key of `backbones.BACKBONES`.
        switches: replace those of `PAPER`.

    Source: embedding paper, Figure 1, Table 1, Section 2. Weights are random until `imagenet_weights` fills them in.
    """
    halves = Halves(interslice.pooled_encoder, decoder2d.residual_decoder)
    settings = {"depth_factors": depth_factors, "planes": planes, "backbone": backbone}
    volume, x = _embed(shape, halves, **settings, switches=PAPER._replace(**switches))
    x = conv(x, REGION_CHANNELS, kernel=1, name="regions_conv")
    x = slices_last(x, name="regions_slices_last")
    regions = layers.Activation("sigmoid", dtype="float32", name="regions")(x)
    return keras.Model(volume, regions, name="embedding")


def authors_network(
    shape: tuple[int, int, int, int],
    *,
    depth_factors: tuple[int, int, int] | None = None,
    planes: int = DEFAULTS.planes,
    backbone: str = DEFAULTS.backbone,
    **switches: Any,
) -> keras.Model:
    """The network of the authors' code: volume (B, H, W, D, C) -> softmax classes (B, H, W, D, 4), float32.

    The arguments are those of `embedding_network`; the switches replace those of `AUTHORS`. Departs from the paper:
    strided squeeze, transposed 2D decoder with batch norm, a last 16-filter convolution, softmax over background,
    necrosis, edema and enhancing tumour.
    """
    halves = Halves(interslice.strided_encoder, decoder2d.transposed_decoder)
    settings = {"depth_factors": depth_factors, "planes": planes, "backbone": backbone}
    volume, x = _embed(shape, halves, **settings, switches=AUTHORS._replace(**switches))
    x = conv(x, interslice.FILTERS[0], kernel=3, name="last_conv")
    x = conv(x, CLASS_CHANNELS, kernel=1, name="classes_conv")
    x = slices_last(x, name="classes_slices_last")
    classes = layers.Activation("softmax", dtype="float32", name="classes")(x)
    return keras.Model(volume, classes, name="embedding_authors")


def _embed(shape, halves, *, depth_factors, planes, backbone, switches):
    """Figure 1, box by box, up to the head: (H, W, D, C) -> the input volume, features (B, D, H, W, 16)."""
    factors = check_shape(shape, depth_factors, planes)
    scaling, *classifier_switches = switches
    volume = keras.Input(shape, name="volume")
    squeezed, skips = halves.squeeze(slices_first(volume, name="volume_slices_first"), depth_factors=factors)
    image = backbones.scale_input(squeezed, scaling=scaling, backbone=backbone)
    classifier = backbones.feature_pyramid(backbone, image.shape[1:], *classifier_switches)
    decoded = halves.decode(classifier(image), planes=planes)
    return volume, interslice.decoder(decoded, skips, depth_factors=factors)


def check_shape(shape, depth_factors=None, planes=interslice.PLANES):
    """Returns the depth factors for volumes of `shape` (H, W, D, C).

    Raises:
        InputError: when H or W is no multiple of 32, or D does not squeeze into the planes.
    """
    check_height_and_width(shape)
    return interslice.check_depth_factors(depth_factors, shape[2], planes)
