"""The order of axes of the inter-slice encoder and decoder: slices first, (B, D, H, W, C), where that is faster.

oneDNN computes a convolution row by row along the last axis, and the deeper into the squeeze, the fewer slices there
are: with the slices last, (B, H, W, D, C), a row of the planes has three voxels, and in float32 the gradient of a
kernel takes twice as long. In half precision on a CPU they stay last: neither order is faster there, and oneDNN's
bfloat16 gradient of a kernel is wrong where the first axis is short, from errors of 8 % to NaN and crashes (TensorFlow
2.21, a processor with AMX, 3 to 12 slices of up to 192x160 voxels).
"""

import keras
from keras import layers, ops

from brats_tf.models import convolutions
from brats_tf.models.blocks import conv as plain_conv
from brats_tf.models.blocks import residual_block as plain_residual_block
from brats_tf.models.precision import on_gpu


@keras.saving.register_keras_serializable("brats_tf", name="SlicesFirstConv3D")
class Conv3D(convolutions.Conv3D):
    """(B, D, H, W, C) -> (B, d, h, w, filters), with the strides of its input but the kernel of (H, W, D).

    So weights are those of a convolution of (B, H, W, D, C), and the class has that one's name, which Keras writes into
    weights files. The kernel is equally wide along all axes.
    """

    def in_order(self, kernel):
        return ops.transpose(kernel, (2, 0, 1, 3, 4))


def slices_are_first():
    """Whether networks that are built now have their slices first."""
    return on_gpu() or keras.config.dtype_policy().compute_dtype == "float32"


def along_slices(factor):
    """The strides or sizes of an operation along the slices alone."""
    return (factor, 1, 1) if slices_are_first() else (1, 1, factor)


def conv(x, filters, **settings):
    """As `blocks.conv`, in the order of axes of now. `kernel` is one width for all axes."""
    return plain_conv(x, filters, convolution=Conv3D if slices_are_first() else None, **settings)


def residual_block(x, filters, *, name):
    """As `blocks.residual_block`, in the order of axes of now."""
    return plain_residual_block(x, filters, name=name, convolve=conv)


def slices_first(x, *, name):
    """(B, H, W, D, C) -> the order of axes of now, (B, D, H, W, C) if slices are first."""
    return layers.Permute((3, 1, 2, 4), name=name)(x) if slices_are_first() else x


def slices_last(x, *, name):
    """The order of axes of now -> (B, H, W, D, C)."""
    return layers.Permute((2, 3, 1, 4), name=name)(x) if slices_are_first() else x
