"""The blocks that every half of the network is made of, in 2D and in 3D."""

from keras import layers

from brats_tf.models.convolutions import Conv2D, Conv3D
from brats_tf.models.normalisation import GroupNormalization

GROUPS = 8  # Of a group normalisation, or one per channel where there are fewer (8: authors' code).


def conv(x, filters, *, kernel, name, convolution=None, **settings):
    """Convolves, keeping the size: (B, H, W[, D], C) -> (B, H, W[, D], filters).

    `convolution` is the layer's class; if None, the rank of `x` chooses 2D or 3D.
    """
    convolution = convolution or (Conv3D if len(x.shape) == 5 else Conv2D)
    return convolution(filters, kernel, padding="same", name=name, **settings)(x)


def residual_block(x, filters, *, name, convolve=conv):
    """Pre-activation residual block: (B, H, W[, D], C) -> (B, H, W[, D], filters).

    Twice GroupNorm, ReLU and a convolution of width 3, added to a 1-wide convolution of the input (embedding paper,
    Section 2.2, after Myronenko 2018; the order and the shortcut that is always a convolution: authors' code).
    """
    shortcut = convolve(x, filters, kernel=1, name=f"{name}_shortcut")
    for step in (1, 2):
        x = GroupNormalization(min(GROUPS, x.shape[-1]), relu=True, name=f"{name}_norm{step}")(x)
        x = convolve(x, filters, kernel=3, name=f"{name}_conv{step}")
    return layers.Add(name=f"{name}_add")([x, shortcut])
