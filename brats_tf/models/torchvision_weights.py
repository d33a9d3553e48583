"""torchvision's ImageNet ResNet34, filled into an AlbuNet's encoder: its published file, or one in safetensors.

PyTorch is not needed: `state_dict` reads its `.pth` files without running them.
"""

import json
import math
import os
import re
from pathlib import Path

import numpy as np

from brats_tf.errors import InputError, format_shape, in_one_line
from brats_tf.models.backbones import RGB
from brats_tf.models.imagenet_weights import FOLDER_VARIABLE, check_hash, download, inflate
from brats_tf.models.resnet34 import PREFIX
from brats_tf.models.state_dict import read_state_dict
from brats_tf.runtime.files import sha256_of

PUBLISHED = "resnet34-b627a593.pth"  # torchvision's IMAGENET1K_V1; the digits begin the file's SHA-256.
URL = "https://download.pytorch.org/models/"
FILES = ("resnet34.safetensors", PUBLISHED)
FORMATS = (".safetensors", ".pth", ".pt")
DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8"}
MAX_HEADER_BYTES = 2**24
KINDS = ("weight", "bias", "running_mean", "running_var")  # PyTorch's, in the order of Keras's weights.


def fill_resnet34(network, *, source):
    """Fills an AlbuNet's encoder with torchvision's weights. Nothing is changed if it cannot be.

    Args:
        network: what `models.albunet.albunet` built. For other than three channels the first kernel is inflated.
        source: "none" leaves it as it is; "imagenet" takes a file of `FILES` in the folder $BRATS_TF_WEIGHTS or, where
            that is not set, torchvision's published file from Keras's cache or the network; anything else is the path
            of a .safetensors or .pth file.

    Returns:
        Where the weights came from, in words.

    Raises:
        InputError: when the file cannot be had, its hash is wrong, or it holds no ResNet34.
    """
    if source == "none":
        return "random weights"
    path = _find() if source == "imagenet" else Path(source)
    if path.suffix not in FORMATS:
        raise InputError(
            f"Weights of ResNet34 must be imagenet, none or a {' or '.join(FORMATS)} file. Received: {path}."
        )
    if not path.is_file():
        raise InputError(f"The weights file {path} does not exist.")
    check_hash(path)
    _check_name(path)
    state = read_safetensors(path) if path.suffix == ".safetensors" else read_state_dict(path)
    fitting = {layer: _arrays(layer, state, path) for layer in network.layers if _is_filled(layer)}
    for layer, arrays in fitting.items():
        layer.set_weights(arrays)
    return f"ImageNet weights from {path.name}"


def torchvision_names(layer):
    """torchvision's names for the weights of a layer of `resnet34.resnet34`, in Keras's order.

    Its layers are called as torchvision's modules, `_` for the dots: layer1_0_downsample_1 is layer1.0.downsample.1.
    """
    stage, _, rest = layer.name.removeprefix(PREFIX).partition("_")
    block, _, part = rest.partition("_")
    stem = f"{stage}.{block}.{part.replace('_', '.')}" if rest else stage
    return [f"{stem}.{kind}" for kind in KINDS[: len(layer.weights)]]


def read_safetensors(path):
    """{name: array} of a safetensors file. Raises `InputError` when it is none, or damaged."""
    try:
        data = Path(path).read_bytes()
        size = int.from_bytes(data[:8], "little")
        if not 2 <= size <= min(MAX_HEADER_BYTES, len(data) - 8):
            raise ValueError(f"a header of {size} bytes in a file of {len(data)}")
        header = json.loads(data[8 : 8 + size])
        body = memoryview(data)[8 + size :]
        return {name: _array(entry, body) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no readable safetensors file: {error}.") from error


def _array(entry, body):
    first, last = entry["data_offsets"]
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
    if not 0 <= first <= last <= len(body) or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"expected {math.prod(shape) * dtype.itemsize} bytes, received {first} to {last}")
    return np.frombuffer(body[first:last], dtype).reshape(shape)


def _find():
    """The file in $BRATS_TF_WEIGHTS or, where that is not set, the published one, downloaded once."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        for name in FILES:
            if (Path(folder) / name).is_file():
                return Path(folder) / name
        raise InputError(
            f"{FOLDER_VARIABLE}={folder} must hold {' or '.join(FILES)} for an ImageNet ResNet34. Received: neither. "
            "Or choose --weights FILE, or --weights none to train from random weights."
        )
    try:
        return Path(download(PUBLISHED, URL + PUBLISHED))
    except Exception as error:  # Whatever the network, the proxy or the cache leads to.
        raise InputError(
            f"The ImageNet weights of ResNet34 could not be downloaded ({in_one_line(error)}). Put torchvision's "
            f"{PUBLISHED} into a folder and name that folder in {FOLDER_VARIABLE}, or choose --weights FILE, "
            "or --weights none to train from random weights."
        ) from error


def _check_name(path):
    """torchvision writes the first digits of a file's SHA-256 into its name; they must be right."""
    digits = re.fullmatch(r"resnet34-([0-9a-f]{8})\.pth", path.name)
    if digits and not sha256_of(path).startswith(digits[1]):
        raise InputError(
            f"{path} must have a SHA-256 that begins with {digits[1]}, as its name says. Received: "
            f"{sha256_of(path)[:8]}. Remove it, so that it is downloaded again."
        )


def _is_filled(layer):
    return layer.name.startswith(PREFIX) and layer.weights


def _arrays(layer, state, path):
    """A layer's arrays, in the order of its weights; kernels (out, in, h, w) become (h, w[, 1], in, out)."""
    arrays = []
    for name, weight in zip(torchvision_names(layer), layer.weights, strict=True):
        shape = tuple(weight.shape)
        array = state.get(name)
        if array is not None and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
            if name == "conv1.weight" and array.shape[2] == RGB != shape[-2]:
                array = inflate(array, (*array.shape[:2], *shape[-2:]))
            array = array[:, :, None] if len(shape) == 5 else array
        if array is None or array.shape != shape:
            received = "none" if array is None else format_shape(array.shape)
            raise InputError(
                f"{path} must hold torchvision's ResNet34: {name} of {'x'.join(map(str, shape))}, in Keras's "
                f"order. Received: {received}."
            )
        if not np.isfinite(array).all():
            raise InputError(f"{path} must hold finite weights; received NaN or infinity in {name}.")
        arrays.append(array.astype(np.float32))
    return arrays
