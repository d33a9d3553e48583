"""The parts of `embedding-plus`: slices to images and back, and what is three-dimensional around the classifier.

N is the number of slabs, and of images, of a volume. Widths are multiples of 16: what oneDNN computes in one register.
"""

import math

import keras
from keras import layers, ops

from brats_tf.models.blocks import GROUPS, conv, residual_block
from brats_tf.models.convolutions import Conv3DTranspose
from brats_tf.models.interslice import PLANES_LAYER
from brats_tf.models.normalisation import GroupNormalization
from brats_tf.models.precision import float32_on_cpu

IMAGE_CHANNELS = 3
IMAGES_LAYER = "images"  # The layers before the planes, whose only way to the loss leads through the classifier.
OVERLAP = 1  # Slices that an image sees of each neighbouring slab.
DETAIL_FILTERS = 32
WIDTHS = {"P1": 32, "P2": 64, "P3": 96, "P4": 128, "P5": 160}


@keras.saving.register_keras_serializable("brats_tf")
class SlabsToBatch(layers.Layer):
    """The images of all slabs as one batch: (B, H, W, N, 3) -> (B N, H, W, 3)."""

    def call(self, images):
        return ops.reshape(ops.transpose(images, (0, 3, 1, 2, 4)), (-1, *images.shape[1:3], images.shape[-1]))

    def compute_output_spec(self, images):
        height, width, _, channels = images.shape[1:]
        return keras.KerasTensor((None, height, width, channels), images.dtype)


@keras.saving.register_keras_serializable("brats_tf")
class BatchToSlabs(layers.Layer):
    """The features of a batch of images in the order of their slabs: (B N, H, W, C) -> (B, H, W, N, C)."""

    def __init__(self, count, **settings):
        super().__init__(**settings)
        self.count = count

    def get_config(self):
        return super().get_config() | {"count": self.count}

    def call(self, features):
        return ops.transpose(ops.reshape(features, (-1, self.count, *features.shape[1:])), (0, 2, 3, 1, 4))

    def compute_output_spec(self, features):
        height, width, channels = features.shape[1:]
        return keras.KerasTensor((None, height, width, self.count, channels), features.dtype)


@keras.saving.register_keras_serializable("brats_tf")
class AlikeInBlock(keras.initializers.Initializer):
    """Kernels (k1, k2, k3, filters, C) with the same values at each place, so that upsampling begins as copying.

    Places of their own would each begin as another function, and stripes as fine as a voxel would have to be unlearned
    (Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution").
    """

    def __call__(self, shape, dtype=None):
        places, (filters, channels) = shape[:3], shape[3:]
        kernel = keras.initializers.GlorotUniform()((channels, filters), dtype=dtype)
        return ops.tile(ops.reshape(ops.transpose(kernel), (1, 1, 1, filters, channels)), (*places, 1, 1))


def images(volume, *, slab):
    """One linear image for each slab, which sees a slice of each neighbour: (B, H, W, D, C) -> (B, H, W, N, 3)."""
    settings = {"strides": (1, 1, slab), "name": f"{IMAGES_LAYER}_conv"}
    x = conv(volume, IMAGE_CHANNELS, kernel=(3, 3, slab + 2 * OVERLAP), **settings)
    return layers.Activation("linear", name=PLANES_LAYER)(x)


def detail_stride(slab):
    """How many slices a step of the detail path is: the half-size of the other axes where the slab allows it."""
    return 2 if slab % 2 == 0 else slab


def detail_path(volume, *, stride):
    """What no image shows at half size: (B, H, W, D, C) -> (B, H/2, W/2, D/stride, 32)."""
    with float32_on_cpu():
        kernel = (3, 3, max(3, stride))  # Sees every slice.
        x = conv(volume, DETAIL_FILTERS, kernel=kernel, strides=(2, 2, stride), name="detail_conv")
    return residual_block(x, DETAIL_FILTERS, name="detail")


def stacked_pyramid(pyramid, *, count):
    """The classifier's features as a 3D pyramid: {"Pn": (B N, h, w, c)} -> {"Pn": (B, h, w, N, filters)}."""
    return {scale: _stacked(pyramid[scale], scale, count) for scale in sorted(pyramid)}


def _stacked(features, scale, count):
    name = f"slabs_{scale.lower()}"
    x = conv(features, WIDTHS[scale], kernel=1, name=f"{name}_reduce")
    x = BatchToSlabs(count, name=f"{name}_stack")(x)
    return _norm_relu(x, name=name)


def decoder(pyramid, detail):
    """Goes up the 3D pyramid: {"Pn": (B, h, w, N, filters)}, detail (B, H/2, W/2, D', 32) -> (B, H/2, W/2, D', 32).

    A level: twice the size in the plane, add the pyramid's scale, residual block. A scale that the classifier lacks is
    not added. The finest level goes up in depth too, and adds the detail path.
    """
    x = pyramid[max(pyramid)]
    for scale in [scale for scale in reversed(WIDTHS) if scale < max(pyramid)]:
        name = f"fuse_{scale.lower()}"
        x = _upsample(x, WIDTHS[scale], factors=(2, 2, 1), name=name)
        if scale in pyramid:
            x = layers.Add(name=f"{name}_skip")([x, pyramid[scale]])
        if scale != min(WIDTHS):
            x = residual_block(x, WIDTHS[scale], name=name)
    factor = detail.shape[3] // x.shape[3]
    x = _upsample(x, DETAIL_FILTERS, factors=(1, 1, factor), name="fuse_detail") if factor > 1 else x
    return residual_block(layers.Add(name="fuse_detail_skip")([x, detail]), DETAIL_FILTERS, name="fuse_detail")


def regions(x, channels, shape):
    """Every voxel at half size becomes a block of logits: (B, H/2, W/2, D', 32) -> (B, H, W, D, channels).

    A convolution of 16 channels at full size before them would make a pass a third slower. `shape` is (H, W, D).
    """
    factors = factors_to(shape, x)
    x = _norm_relu(x, name="regions")
    with float32_on_cpu():
        return _upsample(x, channels, factors=factors, name="regions")


def factors_to(shape, x):
    """How many times larger (H, W, D) is than (B, h, w, d, C), along each axis."""
    return tuple(whole // part for whole, part in zip(shape, x.shape[1:4], strict=True))


def _norm_relu(x, *, name):
    return GroupNormalization(math.gcd(GROUPS, x.shape[-1]), relu=True, name=f"{name}_norm")(x)


def _upsample(x, filters, *, factors, name):
    """Each voxel becomes a block of `factors`: (B, h, w, d, C) -> (B, h f1, w f2, d f3, filters)."""
    settings = {"strides": factors, "padding": "same", "kernel_initializer": AlikeInBlock(), "name": f"{name}_up"}
    return Conv3DTranspose(filters, factors, **settings)(x)
