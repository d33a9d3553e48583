"""Volumes with their slices first, (B, D, H, W, C): how the inter-slice encoder and decoder compute.

oneDNN computes a convolution row by row along the last axis, and the deeper into the squeeze, the fewer slices there
are: with the slices last, a row of the planes has three voxels, and the gradient of a kernel takes five times as long
in bfloat16, twice as long in float32.
"""

from keras import layers

from brats_tf.models.blocks import conv as plain_conv
from brats_tf.models.blocks import residual_block as plain_residual_block
from brats_tf.models.convolutions import SlicesFirstConv3D


def conv(x, filters, **settings):
    """As `blocks.conv`: (B, D, H, W, C) -> (B, D, H, W, filters). `kernel` is one width for all axes."""
    return plain_conv(x, filters, convolution=SlicesFirstConv3D, **settings)


def residual_block(x, filters, *, name):
    """As `blocks.residual_block`: (B, D, H, W, C) -> (B, D, H, W, filters)."""
    return plain_residual_block(x, filters, name=name, convolve=conv)


def slices_first(x, *, name):
    """(B, H, W, D, C) -> (B, D, H, W, C)."""
    return layers.Permute((3, 1, 2, 4), name=name)(x)


def slices_last(x, *, name):
    """(B, D, H, W, C) -> (B, H, W, D, C)."""
    return layers.Permute((2, 3, 1, 4), name=name)(x)
