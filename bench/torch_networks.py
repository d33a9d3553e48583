"""Networks and recipe of other systems, in PyTorch, for `bench.comparison`; all libraries are optional (extra `bench`).

Weights are random: time does not depend on them.
"""

import os
from pathlib import Path

import numpy as np

from bench.timing import median_seconds
from brats_tf.regions import MODALITIES
from brats_tf.runtime.system import peak_gb

LIBRARIES = ("torch", "monai", "dynamic_network_architectures")
BUNDLE_WINDOW, BUNDLE_OVERLAP = (240, 240, 160), 0.5  # MONAI's brats_mri_segmentation.
NNUNET_PATCH = (128, 128, 128)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # MONAI imports TensorFlow where it is installed.
MULTIPLES = {"SegResNet": 8, "PlainConvUNet": 32}  # Of each size of a volume: they halve it three and five times.


def sizes(crop):
    """(name, size of the input) of every network that is measured."""
    return [("SegResNet", BUNDLE_WINDOW), ("SegResNet", padded(crop)), ("PlainConvUNet", NNUNET_PATCH)]


def padded(crop):
    """The smallest size that holds a crop and that SegResNet can halve three times."""
    multiple = MULTIPLES["SegResNet"]
    return tuple(-(-length // multiple) * multiple for length in crop)


def forward(name, size):
    """{"gflop", "seconds", "peak_gb"} of a pass over one volume of four modalities."""
    import torch

    network = network_of(name)
    volume = torch.randn(1, len(MODALITIES), *size)
    with torch.inference_mode():
        gflop = _gflop(network, volume)  # Also warms up.
        seconds = median_seconds(lambda: network(volume), repeats=2, warm_up=False)
        return {"gflop": gflop, "seconds": seconds, "peak_gb": peak_gb()}


def step(name, size, precision):
    """{"seconds", "peak_gb"} of a training step on one volume of noise: binary cross entropy and Adam."""
    import torch

    network = network_of(name).train()
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    volume, target = torch.randn(1, len(MODALITIES), *size), (torch.rand(1, 3, *size) > 0.5).float()

    def one():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(volume)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return {"seconds": median_seconds(one, repeats=2), "peak_gb": peak_gb()}


def files(case, folder):
    """{"seconds", "peak_gb"} from the four files of a case to its label map, by the recipe of MONAI's bundle."""
    import torch
    from monai import transforms
    from monai.inferers import SlidingWindowInferer

    network = network_of("SegResNet")
    read = transforms.Compose(
        [
            transforms.LoadImaged("image"),
            transforms.EnsureChannelFirstd("image"),
            transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        ]
    )
    finish = transforms.Compose([transforms.Activations(sigmoid=True), transforms.AsDiscrete(threshold=0.5)])
    write = transforms.SaveImage(Path(folder) / "monai", output_dtype=np.uint8, print_log=False)
    infer = SlidingWindowInferer(BUNDLE_WINDOW, sw_batch_size=1, overlap=BUNDLE_OVERLAP)
    paths = [str(case.require(modality)) for modality in MODALITIES]

    def predict():
        with torch.inference_mode():
            image = read({"image": paths})["image"]
            write(finish(infer(image[None], network)[0]))

    return {"seconds": median_seconds(predict, repeats=2), "peak_gb": peak_gb()}


def network_of(name):
    """A network by its name in `sizes`, with the random weights that its training begins with, for inference."""
    import torch

    if name == "SegResNet":
        from monai.networks.nets import SegResNet

        blocks = {"blocks_down": (1, 2, 2, 4), "blocks_up": (1, 1, 1), "init_filters": 16, "dropout_prob": 0.2}
        return SegResNet(in_channels=len(MODALITIES), out_channels=3, **blocks).eval()
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network = PlainConvUNet(
        input_channels=len(MODALITIES),
        n_stages=6,
        features_per_stage=(32, 64, 128, 256, 320, 320),
        conv_op=torch.nn.Conv3d,
        kernel_sizes=3,
        strides=(1, 2, 2, 2, 2, 2),
        n_conv_per_stage=2,
        num_classes=3,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return network.apply(network.initialize).eval()  # As nnU-Net does; the class by itself does not.


def _gflop(network, volume):
    """Twice the multiply-adds of all convolutions in one pass."""
    import torch

    total = []

    def count(layer, _, output):
        transposed = isinstance(layer, torch.nn.ConvTranspose3d)
        positions = output[0, 0].numel() // (np.prod(layer.stride) if transposed else 1)
        total.append(2 * positions * layer.weight.numel())

    kinds = (torch.nn.Conv3d, torch.nn.ConvTranspose3d)
    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, kinds)]
    network(volume)
    for hook in hooks:
        hook.remove()
    return float(sum(total)) / 1e9
