"""ResNet34 as torchvision builds it, for images and, slice by slice, for volumes (AlbuNet paper, Section 2.1).

Not the ResNet34 of `backbones`, which is segmentation-models' pre-activation variant. To equal torchvision's features,
strided convolutions pad the same on every side (Keras's "same" does not), and batch norm has PyTorch's figures.
"""

from keras import initializers, layers

from brats_tf.models.convolutions import Conv2D, Conv3D

STAGES = {"layer1": (3, 64), "layer2": (4, 128), "layer3": (6, 256), "layer4": (3, 512)}  # Blocks, filters.
SCALES = {"layer1": "P2", "layer2": "P3", "layer3": "P4", "layer4": "P5"}
STEM_FILTERS, STEM_KERNEL = 64, 7
EPSILON = 1e-5
MOMENTUM = 0.9  # How much of the moving average stays; PyTorch's momentum of 0.1 is how much is new.
PREFIX = "resnet34_"


def resnet34(x):
    """Features of an image or a volume: (B, H, W[, D], C) -> {"P2".."P5"}, `Pn` at H / 2**n, W / 2**n, all of D.

    Kernels of k x k become k x k x 1 in a volume (the paper's 1 x k x k, depth last here), so the number of weights is
    the same and ImageNet's fit. The first pooling is 2x2 instead of 3x3 (AlbuNet paper, Figure 2).
    """
    x = _convolve(x, STEM_FILTERS, kernel=STEM_KERNEL, strides=2, name=f"{PREFIX}conv1")
    x = batch_norm(x, name=f"{PREFIX}bn1")
    x = layers.Activation("relu", name=f"{PREFIX}relu")(x)
    pooling = layers.MaxPooling3D if len(x.shape) == 5 else layers.MaxPooling2D
    x = pooling(in_plane(x, 2, rest=1), name=f"{PREFIX}maxpool")(x)
    pyramid = {}
    for stage, (blocks, filters) in STAGES.items():
        for block in range(blocks):
            strides = 2 if block == 0 and stage != "layer1" else 1
            x = _basic_block(x, filters, strides=strides, name=f"{PREFIX}{stage}_{block}")
        pyramid[SCALES[stage]] = x
    return pyramid


def in_plane(x, size, *, rest):
    """A size for H and W, and `rest` for D where `x` has one: (size, size[, rest])."""
    return (size, size, rest)[: len(x.shape) - 2]


def batch_norm(x, *, name):
    """Batch norm with PyTorch's epsilon and momentum."""
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)(x)


def _basic_block(x, filters, *, strides, name):
    """Two 3x3 convolutions and the way around them: (B, H, W[, D], C) -> (B, H / s, W / s[, D], filters)."""
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = _convolve(x, filters, kernel=1, strides=strides, name=f"{name}_downsample_0")
        shortcut = batch_norm(shortcut, name=f"{name}_downsample_1")
    x = _convolve(x, filters, kernel=3, strides=strides, name=f"{name}_conv1")
    x = batch_norm(x, name=f"{name}_bn1")
    x = layers.Activation("relu", name=f"{name}_relu1")(x)
    x = _convolve(x, filters, kernel=3, strides=1, name=f"{name}_conv2")
    x = batch_norm(x, name=f"{name}_bn2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.Activation("relu", name=f"{name}_relu2")(x)


def _convolve(x, filters, *, kernel, strides, name):
    """A convolution without bias in H and W, padded by half its kernel on every side."""
    three = len(x.shape) == 5
    padding = "same"
    if strides > 1 and kernel > 1:
        pad = layers.ZeroPadding3D if three else layers.ZeroPadding2D
        x = pad(in_plane(x, kernel // 2, rest=0), name=f"{name}_pad")(x)
        padding = "valid"
    convolution = Conv3D if three else Conv2D
    return convolution(
        filters,
        in_plane(x, kernel, rest=1),
        strides=in_plane(x, strides, rest=1),
        padding=padding,
        use_bias=False,
        kernel_initializer=initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),  # As torchvision's.
        name=name,
    )(x)
