"""The order of axes of the inter-slice encoder and decoder: slices first, (B, D, H, W, C), because that is faster.

oneDNN computes a convolution row by row along the last axis, and the deeper into the squeeze, the fewer slices there
are: with the slices last, (B, H, W, D, C), a row of the planes has three voxels, and in float32 the gradient of a
kernel takes twice as long.
"""

import keras
from keras import layers, ops

from brats_tf.models import convolutions
from brats_tf.models.blocks import conv as plain_conv
from brats_tf.models.blocks import residual_block as plain_residual_block


@keras.saving.register_keras_serializable("brats_tf", name="SlicesFirstConv3D")
class Conv3D(convolutions.Conv3D):
    """(B, D, H, W, C) -> (B, d, h, w, filters), with the strides of its input but the kernel of (H, W, D).

    So weights are those of a convolution of (B, H, W, D, C), and the class has that one's name, which Keras writes into
    weights files. The kernel is equally wide along all axes.
    """

    def in_order(self, kernel):
        return ops.transpose(kernel, (2, 0, 1, 3, 4))


@keras.saving.register_keras_serializable("brats_tf")
class RepeatedSlices(layers.UpSampling3D):
    """(B, D, H, W, C) -> (B, D factor, H, W, C) for a `size` of (factor, 1, 1).

    As Keras's layer, which takes ten times as many operations to trace.
    """

    def __init__(self, size, **settings):
        super().__init__(size, **settings)
        if self.size[1:] != (1, 1) or self.data_format != "channels_last":
            raise ValueError(f"Slices alone are repeated. Received: size={self.size}, {self.data_format}.")

    def call(self, inputs):
        factor = self.size[0]
        batch, depth, *rest = ops.shape(inputs)
        repeated = ops.tile(inputs[:, :, None], (1, 1, factor, 1, 1, 1))
        return ops.reshape(repeated, (batch, depth * factor, *rest))


def conv(x, filters, **settings):
    """As `blocks.conv`, (B, D, H, W, C) -> (B, d, h, w, filters). `kernel` is one width for all axes."""
    return plain_conv(x, filters, convolution=Conv3D, **settings)


def residual_block(x, filters, *, name):
    """As `blocks.residual_block`, (B, D, H, W, C) -> (B, D, H, W, filters)."""
    return plain_residual_block(x, filters, name=name, convolve=conv)


def slices_first(x, *, name):
    """(B, H, W, D, C) -> (B, D, H, W, C)."""
    return layers.Permute((3, 1, 2, 4), name=name)(x)


def slices_last(x, *, name):
    """(B, D, H, W, C) -> (B, H, W, D, C)."""
    return layers.Permute((2, 3, 1, 4), name=name)(x)
