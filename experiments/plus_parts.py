"""Parts of `embedding-plus` that its package does not have: what its builder makes with another of each.

`replaced` puts them in the place of the package's while a network is built. Each departs from `brats_tf.models.slabs`
in one thing; the losses depart from CE - Dice (`brats_tf.models.losses`).
"""

import contextlib
from unittest import mock

import keras
from keras import layers, ops

from brats_tf.models import slabs
from brats_tf.models.blocks import conv, residual_block
from brats_tf.models.interslice import PLANES_LAYER
from brats_tf.models.losses import EPSILON, soft_dice
from brats_tf.models.precision import float32_on_cpu
from brats_tf.regions import REGIONS

FULL_FILTERS = 16  # At full size, where a pass is dearest.
AUXILIARY = ("fuse_p2", "fuse_p3")  # The levels that deep supervision adds a head to.


def mean_images(volume, *, slab):
    """The mean of each slab's slices, modalities mixed linearly: (B, H, W, D, C) -> (B, H, W, N, 3)."""
    x = layers.AveragePooling3D((1, 1, slab), name="slab_means")(volume)
    x = conv(x, slabs.IMAGE_CHANNELS, kernel=1, name=f"{slabs.IMAGES_LAYER}_conv")
    return layers.Activation("linear", name=PLANES_LAYER)(x)


def block_images(volume, *, slab):
    """Two convolutions with a norm and a ReLU between them: (B, H, W, D, C) -> (B, H, W, N, 3)."""
    x = conv(volume, FULL_FILTERS, kernel=3, name="images_block")
    x = slabs._norm_relu(x, name="images_block")
    settings = {"strides": (1, 1, slab), "name": f"{slabs.IMAGES_LAYER}_conv"}
    x = conv(x, slabs.IMAGE_CHANNELS, kernel=(3, 3, slab + 2 * slabs.OVERLAP), **settings)
    return layers.Activation("linear", name=PLANES_LAYER)(x)


def coarse_scales(pyramid, *, count, whole=slabs.stacked_pyramid):
    """`slabs.stacked_pyramid` of P3, P4 and P5: fine details come from the detail path alone."""
    return whole({scale: pyramid[scale] for scale in ("P3", "P4", "P5")}, count=count)


def no_detail(volume, *, stride, path=slabs.detail_path):
    """A detail path that adds nothing: whatever is at half size comes from the classifier's P1."""
    return layers.Rescaling(0.0, name="detail_nothing")(path(volume, stride=stride))


class FullSize:
    """The volume itself, and a residual block at full size before the regions."""

    def detail_path(self, volume, *, stride, path=slabs.detail_path):
        """`slabs.detail_path`, and a convolution of the volume for `regions`."""
        with float32_on_cpu():
            self.detail = conv(volume, FULL_FILTERS, kernel=3, name="full_conv")
        return path(volume, stride=stride)

    def regions(self, x, channels, shape):
        """`slabs.regions` by way of 16 channels at full size: (B, H/2, W/2, D', 32) -> (B, H, W, D, channels)."""
        factors = slabs.factors_to(shape, x)
        x = slabs._norm_relu(x, name="regions")
        with float32_on_cpu():
            x = slabs._upsample(x, FULL_FILTERS, factors=factors, name="full")
            x = layers.Add(name="full_skip")([x, self.detail])
            x = slabs._norm_relu(residual_block(x, FULL_FILTERS, name="full"), name="full_last")
            return conv(x, channels, kernel=1, name="regions_conv")


class DeepSupervision:
    """Two levels of the decoder predict the regions too: three more channels each, behind the network's own."""

    def __init__(self):
        self.levels = {}

    def residual_block(self, x, filters, *, name):
        """`blocks.residual_block`, whose results at some levels `regions` takes."""
        x = residual_block(x, filters, name=name)
        if name in AUXILIARY:
            self.levels[name] = x
        return x

    def regions(self, x, channels, shape, head=slabs.regions):
        """Logits (B, H, W, D, channels) of each head, one behind another."""
        found = [head(x, channels, shape)]
        for name in AUXILIARY:
            x = conv(self.levels[name], channels, kernel=1, name=f"{name}_head", dtype="float32")
            found.append(layers.UpSampling3D(slabs.factors_to(shape, x), name=f"{name}_head_up", dtype="float32")(x))
        return layers.Concatenate(name="heads", dtype="float32")(found)


class RegionLoss(keras.losses.Loss):
    """A sum of binary cross entropy and -Dice of sigmoid regions (B, H, W, D, 3): (B,).

    Args:
        entropy, dice: the weights of both.
        weights: of WT, TC and ET in both.
        background: whether the Dice of what is no tumour counts as that of a region.
        heads: the weights of predictions that stand one behind another, of three channels each.
    """

    def __init__(self, *, entropy=1.0, dice=1.0, weights=(1, 1, 1), background=False, heads=(1.0,)):
        super().__init__(name="region_loss")
        self.entropy, self.dice, self.weights = entropy, dice, [one / sum(weights) for one in weights]
        self.background, self.heads = background, heads

    def call(self, y_true, y_pred):
        count = len(REGIONS)
        target = ops.cast(y_true, "float32")[..., :count]
        heads = [ops.cast(y_pred, "float32")[..., count * index :][..., :count] for index in range(len(self.heads))]
        losses = [weight * self._of(target, head) for weight, head in zip(self.heads, heads, strict=True)]
        return sum(losses) / sum(self.heads)

    def _of(self, target, prediction):
        clipped = ops.clip(prediction, EPSILON, 1 - EPSILON)
        entropies = -ops.mean(target * ops.log(clipped) + (1 - target) * ops.log(1 - clipped), axis=(1, 2, 3))
        dice = soft_dice(target, prediction)
        entropy, dice = (ops.sum(one * ops.convert_to_tensor(self.weights), axis=-1) for one in (entropies, dice))
        if self.background:
            rest = soft_dice(1 - target[..., :1], 1 - prediction[..., :1])[:, 0]
            dice = (len(REGIONS) * dice + rest) / (len(REGIONS) + 1)
        return self.entropy * entropy - self.dice * dice


def _full_size():
    parts = FullSize()
    return {"detail_path": parts.detail_path, "regions": parts.regions}


def _deep_supervision():
    parts = DeepSupervision()
    return {"residual_block": parts.residual_block, "regions": parts.regions}


# What of `slabs` each variant replaces.
PARTS = {
    "mean-images": lambda: {"images": mean_images},
    "block-images": lambda: {"images": block_images},
    "coarse-scales": lambda: {"stacked_pyramid": coarse_scales},
    "no-detail": lambda: {"detail_path": no_detail},
    "full-size": _full_size,
    "deep-supervision": _deep_supervision,
}


@contextlib.contextmanager
def replaced(variant):
    """Inside it, the builder of `embedding-plus` makes its networks with the parts of a variant, if it has any."""
    with contextlib.ExitStack() as stack:
        if variant in PARTS:
            stack.enter_context(mock.patch.multiple(slabs, **PARTS[variant]()))
        yield
