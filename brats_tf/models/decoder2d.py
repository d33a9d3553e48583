"""2D decoders: from a feature pyramid back to planes at full size.

A pyramid may lack scales: a level without one goes up without a skip, and the coarsest scale there is comes first.
"""

from keras import layers

from brats_tf.models.blocks import conv, residual_block
from brats_tf.models.convolutions import Conv2DTranspose
from brats_tf.models.dropout import SpatialDropout2D

FILTERS = {"P4": 512, "P3": 256, "P2": 128, "P1": 64}  # Authors' code; the text names a factor 2.
FULL_SIZE_FILTERS = 32
DECODED_PLANES_LAYER = "decoded_planes"  # What the 3D decoder sees.
DROPOUT = 0.5  # Authors' code.


def residual_decoder(pyramid, *, planes):
    """Goes up by homogeneous residual blocks: {"P1".."P5"} -> (B, H, W, planes).

    A level: 1x1 convolution, bilinear upsampling by 2, join the pyramid's scale, residual block. Source: embedding
    paper, Figure 1 and Section 2.3; the upsampling: Myronenko 2018; widths and concatenation: authors' code; the level
    at full size, which has no scale to join: ours.
    """
    x = pyramid[max(pyramid)]
    for scale, filters in _levels(pyramid):
        name = f"plane_{scale.lower()}"
        x = _upsample(x, filters, name=name)
        x = _join(x, pyramid, scale)
        x = residual_block(x, filters, name=name)
    x = _upsample(x, FULL_SIZE_FILTERS, name="plane_p0")
    x = residual_block(x, FULL_SIZE_FILTERS, name="plane_p0")
    return conv(x, planes, kernel=1, name=DECODED_PLANES_LAYER)


def transposed_decoder(pyramid, *, planes):
    """Goes up by transposed convolutions with batch norm and dropout: {"P1".."P5"} -> (B, H, W, planes).

    Source: authors' code, which departs from the text's residual blocks with GroupNorm.
    """
    x = pyramid[max(pyramid)]
    for scale, filters in _levels(pyramid):
        name = f"plane_{scale.lower()}"
        x = Conv2DTranspose(filters, 3, strides=2, padding="same", use_bias=False, name=f"{name}_up")(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        x = SpatialDropout2D(DROPOUT, name=f"{name}_dropout")(x)
        x = layers.Activation("relu", name=f"{name}_relu")(x)
        x = _join(x, pyramid, scale)
    return Conv2DTranspose(planes, 3, strides=2, padding="same", name=DECODED_PLANES_LAYER)(x)


def _levels(pyramid):
    """The levels above the coarsest scale of a pyramid, coarse to fine, with their filters."""
    return [(scale, filters) for scale, filters in FILTERS.items() if scale < max(pyramid)]


def _join(x, pyramid, scale):
    """Concatenates the pyramid's scale, where it has that one: (B, H, W, C) -> (B, H, W, C + skip channels)."""
    if scale not in pyramid:
        return x
    return layers.Concatenate(name=f"plane_{scale.lower()}_skip")([x, pyramid[scale]])


def _upsample(x, filters, *, name):
    """Fewer features, then twice the size: (B, H, W, C) -> (B, 2H, 2W, filters). Source: Myronenko 2018."""
    x = conv(x, filters, kernel=1, name=f"{name}_reduce")
    return layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up")(x)
