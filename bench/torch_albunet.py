"""AlbuNet in PyTorch, built from torchvision's ResNet34: what ours is compared with, in tests and in `python -m bench`.

PyTorch and torchvision are optional (extra `bench`); import torchvision before TensorFlow, or both crash. Volumes run
(B, C, D, H, W) here, as in the paper.
"""

import numpy as np

from brats_tf.models.albunet import CENTRE, DECODER, DEPTH_AFTER, DEPTH_KERNEL, LAST
from brats_tf.models.resnet34 import PREFIX, SCALES
from brats_tf.models.torchvision_weights import KINDS, torchvision_names
from brats_tf.regions import CLASSES


def torch_albunet(*, depth_layers=True):
    """The twin of `models.albunet.albunet` for three channels, as a `torch.nn.Module` with random weights."""
    import torch
    from torch import nn

    class AlbuNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch_encoder()
            self.parts = nn.ModuleDict({"centre": convolution(512, CENTRE, (1, 3, 3))})
            channels = CENTRE
            skips = {"P5": 512, "P4": 256, "P3": 128, "P2": 64, None: 0}
            for name, (middle, filters, scale) in DECODER.items():
                self.parts[name] = convolution(channels + skips[scale], middle, (1, 3, 3))
                self.parts[f"{name}_up"] = nn.ConvTranspose3d(middle, filters, (1, 4, 4), (1, 2, 2), (0, 1, 1))
                channels = filters
            self.parts["dec0"] = convolution(LAST, LAST, (1, 3, 3))
            if depth_layers:
                for name, width in (("p5", 512), ("dec4", 128), ("dec2", 64), ("dec0", LAST)):
                    self.parts[f"depth_{name}"] = convolution(width, width, (DEPTH_KERNEL, 1, 1))
            self.parts["classes"] = nn.Conv3d(LAST, len(CLASSES), 1)

        def depth(self, x, name):
            return self.parts[f"depth_{name}"](x) if depth_layers else x

        def forward(self, x):
            pyramid = self.encoder(x)
            pyramid["P5"] = self.depth(pyramid["P5"], "p5")
            x = self.parts["centre"](pyramid["P5"])
            for name, (_, _, scale) in DECODER.items():
                x = torch.cat([x, pyramid[scale]], dim=1) if scale else x
                x = torch.relu(self.parts[f"{name}_up"](self.parts[name](x)))
                x = self.depth(x, name) if name in DEPTH_AFTER else x
            return torch.softmax(self.parts["classes"](self.depth(self.parts["dec0"](x), "dec0")), dim=1)

    def convolution(given, filters, kernel):
        padding = tuple(size // 2 for size in kernel)
        return nn.Sequential(
            nn.Conv3d(given, filters, kernel, padding=padding), nn.BatchNorm3d(filters), nn.ReLU(inplace=True)
        )

    return AlbuNet().eval()


def torch_encoder(*, slices=True):
    """torchvision's ResNet34 with a first pooling of 2x2, as {"P2".."P5"}; with `slices` its kernels are 1xkxk."""
    import torchvision
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torchvision.models.resnet34(weights=None)
            self.net.maxpool = nn.MaxPool2d(2)
            del self.net.fc
            if slices:
                _extend(self.net)

        def forward(self, x):
            net, pyramid = self.net, {}
            x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
            for stage, scale in SCALES.items():
                pyramid[scale] = x = getattr(net, stage)(x)
            return pyramid

    return Encoder().eval()


def _extend(module):
    """Replaces every 2D layer by the 3D one that treats each slice alone, with the same weights."""
    from torch import nn

    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            sizes = [(1, *child.kernel_size), (1, *child.stride), (0, *child.padding)]
            made = nn.Conv3d(child.in_channels, child.out_channels, *sizes, bias=False)
            made.weight.data = child.weight.data.unsqueeze(2)
        elif isinstance(child, nn.BatchNorm2d):
            made = nn.BatchNorm3d(child.num_features)
            made.load_state_dict(child.state_dict())
        elif isinstance(child, nn.MaxPool2d):
            made = nn.MaxPool3d((1, child.kernel_size, child.kernel_size))
        else:
            _extend(child)
            continue
        setattr(module, name, made)


def twin_state(network):
    """The weights of a Keras AlbuNet, or of its encoder, by their names in the PyTorch twin: {name: array}."""
    state = {}
    for layer in network.layers:
        for name, array in zip(_names(layer), layer.get_weights(), strict=bool(layer.weights)):
            state[name] = np.transpose(array, (4, 3, 2, 0, 1)) if array.ndim == 5 else array
    return state


def _names(layer):
    """The twin's entries for a layer, in the order of Keras's weights."""
    if layer.name.startswith(PREFIX):
        return [f"encoder.net.{name}" for name in torchvision_names(layer)]
    if layer.name == "classes_conv":
        stem = "parts.classes"
    elif layer.name.endswith("_up"):
        stem = f"parts.{layer.name}"
    else:
        part, _, kind = layer.name.rpartition("_")
        stem = f"parts.{part}.{0 if kind == 'conv' else 1}"
    return [f"{stem}.{kind}" for kind in KINDS[: len(layer.weights)]]
