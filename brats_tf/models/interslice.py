"""The inter-slice encoder and decoder: between the slices of a volume and the three planes of an image.

The embedding paper, Section 2.2 and Table 1 (the squeeze) and Section 2.3 (the way back). H and W are never touched
here.
"""

import math

from keras import layers

from brats_tf.config.settings import EmbeddingSettings
from brats_tf.errors import InputError
from brats_tf.models.dropout import SpatialDropout3D
from brats_tf.models.slices_first import RepeatedSlices, conv, residual_block, slices_first, slices_last

PLANES_LAYER = "planes"  # What the encoder hands to the classifier.
PLANES = EmbeddingSettings().planes  # What a 2D classifier takes: one image with three channels.
FILTERS = (16, 32, 64, 64)  # Authors' code; the text gives none.
SMALLEST_FACTOR = 2
LAST_BLOCK = f"squeeze{len(FILTERS)}"  # Its only way to the loss leads through the classifier.
STEM_LAYER = "stem_conv"
STEM_DROPOUT = 0.2  # Authors' code.


def default_depth_factors(depth, planes=PLANES):
    """Three factors that squeeze `depth` slices into the planes, as even as possible, the largest last.

    Source: embedding paper, Section 2.2 ("can be changed and adapted according to the third dimension").

    >>> default_depth_factors(108), default_depth_factors(144), default_depth_factors(108, planes=6)
    ((3, 3, 4), (3, 4, 4), (2, 3, 3))

    Raises:
        InputError: when no three factors of at least 2 multiply to depth / planes.
    """
    if planes < 1:
        raise InputError(f"`planes` must be at least 1. Received: {planes}.")
    product, rest = divmod(depth, planes)
    divisors = [factor for factor in range(SMALLEST_FACTOR, product + 1) if product % factor == 0]
    found = [
        (first, second, product // (first * second))
        for first in divisors
        for second in divisors
        if rest == 0 and product % (first * second) == 0 and first <= second <= product // (first * second)
    ]
    if not found:
        raise InputError(
            f"The depth of a volume must be {planes} planes times three whole factors of at least {SMALLEST_FACTOR} "
            f"(108 = 3 planes x 3 x 3 x 4). Received: depth={depth}."
        )
    return min(found, key=lambda factors: factors[2] - factors[0])


def check_depth_factors(depth_factors, depth, planes=PLANES):
    """Returns `depth_factors`, or the default for `depth` when it is None.

    Raises:
        InputError: when the factors do not squeeze `depth` slices into `planes` planes.
    """
    if depth_factors is None:
        return default_depth_factors(depth, planes)
    product = planes * math.prod(depth_factors)
    if len(depth_factors) != 3 or min(depth_factors) < 1 or product != depth:
        raise InputError(
            f"`depth_factors` must be three factors that squeeze {depth} slices into {planes} planes. Received: "
            f"depth_factors={tuple(depth_factors)}, for {product} slices."
        )
    return tuple(depth_factors)


def pooled_encoder(volume, *, depth_factors):
    """Squeezes slices into planes by max-pooling: (B, D, H, W, C) -> (B, H, W, planes), skips fine to coarse.

    The skips are (B, D, H, W, 16), (B, D/f1, H, W, 32), (B, D/(f1 f2), H, W, 64). Source: embedding paper, Sections 2.2
    and 4, Table 1.
    """
    x = conv(volume, FILTERS[0], kernel=3, name=STEM_LAYER)
    skips = []
    for level, (filters, factor) in enumerate(zip(FILTERS, depth_factors, strict=False), start=1):
        x = residual_block(x, filters, name=f"squeeze{level}")
        skips.append(x)
        x = layers.MaxPooling3D((factor, 1, 1), name=f"squeeze{level}_pool")(x)
    x = residual_block(x, FILTERS[-1], name=LAST_BLOCK)
    # Table 1 calls the row with one filter a block, and Section 2.2 says what a block is. It ends in a sum, not in a
    # ReLU, so that no plane can stay at 0 for ever.
    return _as_image(residual_block(x, 1, name=PLANES_LAYER)), skips


def strided_encoder(volume, *, depth_factors):
    """Squeezes slices into planes by strided convolutions: (B, D, H, W, C) -> (B, H, W, planes), skips fine to coarse.

    The skips are as in `pooled_encoder`. Source: authors' code (stem dropout 0.2, strided 3x3x3 convolutions, planes by
    one 1x1x1 filter with ReLU).
    """
    x = conv(volume, FILTERS[0], kernel=3, name=STEM_LAYER)
    x = SpatialDropout3D(STEM_DROPOUT, name="stem_dropout")(x)
    skips = []
    for level, factor in enumerate(depth_factors, start=1):
        x = residual_block(x, FILTERS[level - 1], name=f"squeeze{level}")
        skips.append(x)
        x = conv(x, FILTERS[level], kernel=3, name=f"squeeze{level}_stride", strides=(factor, 1, 1))
    x = residual_block(x, FILTERS[-1], name=LAST_BLOCK)
    return _as_image(conv(x, 1, kernel=1, name="planes_conv", activation="relu")), skips


def decoder(planes, skips, *, depth_factors):
    """Spreads the planes over the slices again: (B, H, W, planes), skips fine to coarse -> (B, D, H, W, 16).

    A level: 1x1x1 convolution, upsample the depth, add the encoder's skip, residual block. Source: authors' code;
    embedding paper, Section 2.3 asks for "homogeneous blocks" with skips.
    """
    height, width, depth = planes.shape[1:]
    x = layers.Reshape((height, width, depth, 1), name="volume_from_planes")(planes)
    x = slices_first(x, name="volume_from_planes_slices_first")
    for level in range(len(skips), 0, -1):
        skip, name = skips[level - 1], f"spread{level}"
        x = conv(x, skip.shape[-1], kernel=1, name=f"{name}_reduce")
        x = RepeatedSlices((depth_factors[level - 1], 1, 1), name=f"{name}_up")(x)
        x = layers.Add(name=f"{name}_skip")([x, skip])
        x = residual_block(x, skip.shape[-1], name=name)
    return x


def _as_image(x):
    """Makes the slices the channels of an image: (B, planes, H, W, 1) -> (B, H, W, planes)."""
    x = slices_last(x, name=f"{PLANES_LAYER}_slices_last")
    return layers.Reshape(x.shape[1:4], name=PLANES_LAYER)(x)
