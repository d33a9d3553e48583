"""2D decoders: from a feature pyramid back to three planes at full size."""

from keras import layers

from brats_tf.models.blocks import conv, residual_block
from brats_tf.models.interslice import PLANES

FILTERS = {"P4": 512, "P3": 256, "P2": 128, "P1": 64}  # Authors' code; the text: features change by a factor 2.
FULL_SIZE_FILTERS = 32
DROPOUT = 0.5  # Authors' code.


def residual_decoder(pyramid):
    """Goes up by homogeneous residual blocks: {"P1".."P5"} -> (B, H, W, 3).

    A level: 1x1 convolution, bilinear upsampling by 2, join the pyramid's scale, residual block (paper A, Figure 1 and
    Section 2.3; the widths: authors' code).
    """
    x = pyramid["P5"]
    for scale, filters in FILTERS.items():
        name = f"plane_{scale.lower()}"
        x = _upsample(x, filters, name=name)
        x = layers.Concatenate(name=f"{name}_skip")([x, pyramid[scale]])
        x = residual_block(x, filters, name=name)
    x = _upsample(x, FULL_SIZE_FILTERS, name="plane_p0")
    x = residual_block(x, FULL_SIZE_FILTERS, name="plane_p0")
    return conv(x, PLANES, kernel=1, name="decoded_planes")


def transposed_decoder(pyramid):
    """Goes up by transposed convolutions with batch norm and dropout: {"P1".."P5"} -> (B, H, W, 3).

    Source: authors' code, which departs from the text's residual blocks with GroupNorm.
    """
    x = pyramid["P5"]
    for scale, filters in FILTERS.items():
        name = f"plane_{scale.lower()}"
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", use_bias=False, name=f"{name}_up")(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        x = layers.SpatialDropout2D(DROPOUT, name=f"{name}_dropout")(x)
        x = layers.Activation("relu", name=f"{name}_relu")(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, pyramid[scale]])
    return layers.Conv2DTranspose(PLANES, 3, strides=2, padding="same", name="decoded_planes")(x)


def _upsample(x, filters, *, name):
    """Fewer features, then twice the size: (B, H, W, C) -> (B, 2H, 2W, filters). Source: Myronenko 2018."""
    x = conv(x, filters, kernel=1, name=f"{name}_reduce")
    return layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up")(x)
