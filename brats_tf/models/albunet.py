"""The AlbuNet paper: AlbuNet2D and AlbuNet3D, a U-Net around an ImageNet ResNet34. Read it beside the paper's Figure 2.

The paper's 1 x k x k is k x k x 1 here, because D comes last; its 3 x 1 x 1 depth layers are 1 x 1 x 3.
"""

import keras
from keras import initializers, layers

from brats_tf.models.convolutions import Conv3D, Conv3DTranspose
from brats_tf.models.feature_pyramid import check_height_and_width
from brats_tf.models.resnet34 import batch_norm, resnet34
from brats_tf.regions import CLASSES

# {block: (features of its convolution, features of its transposed convolution, the scale it joins)}; authors' code.
CENTRE = 128
DECODER = {
    "dec5": (256, 128, "P5"),
    "dec4": (256, 128, "P4"),
    "dec3": (128, 32, "P3"),
    "dec2": (64, 64, "P2"),
    "dec1": (64, 16, None),
}
LAST = 16
DEPTH_AFTER = ("dec4", "dec2")  # Besides the encoder's end and the last convolution.
DEPTH_KERNEL = 3


def albunet(shape: tuple[int, int, int, int], *, depth_layers: bool = True) -> keras.Model:
    """AlbuNet3D, or without depth layers AlbuNet2D: (B, H, W, D, C) -> softmax classes (B, H, W, D, 4), float32.

    Args:
        shape: (H, W, D, C) of a patch; H and W multiples of 32, any D. Without depth layers slices do not see each
            other, and the paper takes D = 1.
        depth_layers: whether slices see their neighbours, in four 3-wide convolutions along D.

    Source: AlbuNet paper, Section 2.1 and Figure 2; widths, order and the single convolution in the centre: authors'
    code. Weights are random until `torchvision_weights` fills the encoder.
    """
    check_height_and_width(shape, "patch")
    depth = _see_neighbours if depth_layers else _leave
    volume = keras.Input(shape, name="volume")
    pyramid = resnet34(volume)
    pyramid["P5"] = depth(pyramid["P5"], name="depth_p5")
    x = _convolve(pyramid["P5"], CENTRE, kernel=(3, 3, 1), name="centre")
    for name, (middle, filters, scale) in DECODER.items():
        if scale:
            x = layers.Concatenate(name=f"{name}_skip")([x, pyramid[scale]])
        x = _go_up(x, middle, filters, name=name)
        if name in DEPTH_AFTER:
            x = depth(x, name=f"depth_{name}")
    x = _convolve(x, LAST, kernel=(3, 3, 1), name="dec0")
    x = depth(x, name="depth_dec0")
    x = Conv3D(len(CLASSES), 1, kernel_initializer=_initial(), name="classes_conv")(x)
    classes = layers.Activation("softmax", dtype="float32", name="classes")(x)
    return keras.Model(volume, classes, name="albunet")


def _see_neighbours(x, *, name):
    """A depth layer: mixes each slice with the one before and the one after, same shape."""
    return _convolve(x, x.shape[-1], kernel=(1, 1, DEPTH_KERNEL), name=name)


def _go_up(x, middle, filters, *, name):
    """A convolution, then twice the size in plane: (B, H, W, D, C) -> (B, 2H, 2W, D, filters)."""
    x = _convolve(x, middle, kernel=(3, 3, 1), name=name)
    up = Conv3DTranspose(
        filters, (4, 4, 1), strides=(2, 2, 1), padding="same", kernel_initializer=_initial(), name=f"{name}_up"
    )
    return layers.Activation("relu", name=f"{name}_up_relu")(up(x))


def _convolve(x, filters, *, kernel, name):
    """Convolution, batch norm, ReLU: (B, H, W, D, C) -> (B, H, W, D, filters)."""
    convolution = Conv3D(filters, kernel, padding="same", kernel_initializer=_initial(), name=f"{name}_conv")
    x = batch_norm(convolution(x), name=f"{name}_norm")
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _initial():
    """PyTorch's own start for a convolution, which the authors' decoder keeps."""
    return initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _leave(x, name):
    """In place of a depth layer: the features as they are."""
    return x
