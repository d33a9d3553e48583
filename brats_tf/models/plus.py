"""`embedding-plus`: the embedding paper's idea with one image for each slab of slices instead of one for all of them.

Departs from the paper: its squeeze makes one image of a whole volume, so that the classifier's features have no depth.
Here they have: the features of the images, stacked in the order of their slabs, are a 3D pyramid. All modalities enter
at once, which the paper's Section 4 leaves for the future.
"""

from typing import Any

import keras
from keras import layers

from brats_tf.config.settings import PlusSettings
from brats_tf.errors import InputError
from brats_tf.models import backbones, slabs
from brats_tf.models.embedding import REGION_CHANNELS
from brats_tf.models.feature_pyramid import check_height_and_width
from brats_tf.models.precision import float32_on_cpu

DEFAULTS = PlusSettings()


def plus_network(
    shape: tuple[int, int, int, int],
    *,
    slab: int = DEFAULTS.slab,
    backbone: str = DEFAULTS.backbone,
    input_scaling: str = DEFAULTS.input_scaling,
    **switches: Any,
) -> keras.Model:
    """The network: volume (B, H, W, D, C) -> sigmoid regions WT, TC, ET (B, H, W, D, 3), float32.

    Args:
        shape: (H, W, D, C) of a volume; H and W multiples of 32, D of the slab.
        slab: how many slices an image stands for, N = D / slab images.
        backbone: the 2D classifier, a key of `backbones.BACKBONES`.
        input_scaling: see `backbones.scale_input`; "standardise" takes mean and deviation over all images of a case.
        switches: of `backbones.feature_pyramid`.

    Weights are random until `imagenet_weights` fills them in.

    Raises:
        InputError: when the volume does not fit.
    """
    check_shape(shape, slab)
    volume = keras.Input(shape, name="volume")
    detail = slabs.detail_path(volume, stride=slabs.detail_stride(slab))
    with float32_on_cpu():
        images = slabs.images(volume, slab=slab)
        images = backbones.scale_input(images, scaling=input_scaling, backbone=backbone)
        images = slabs.SlabsToBatch(name="images_to_batch")(images)
    classifier = backbones.feature_pyramid(backbone, images.shape[1:], **switches)
    pyramid = slabs.stacked_pyramid(classifier(images), count=shape[2] // slab)
    x = slabs.decoder(pyramid, detail)
    x = slabs.regions(x, REGION_CHANNELS, shape[:3])
    regions = layers.Activation("sigmoid", dtype="float32", name="regions")(x)
    return keras.Model(volume, regions, name="embedding_plus")


def check_shape(shape, slab):
    """Raises `InputError` when H or W is no multiple of 32, or D none of the slab."""
    check_height_and_width(shape)
    depth = shape[2]
    if depth % slab:
        raise InputError(f"The depth of a volume must be a multiple of `slab`. Received: depth={depth}, slab={slab}.")
