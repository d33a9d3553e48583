"""ImageNet weights, filled in after a network is built: find the file, check it, copy it layer by layer.

A file holds the weights of a whole classifier without its top. They are loaded into such a classifier and copied by
layer name, so that the network's topology is the same whatever the weights, or without any.
"""

import hashlib
import os
import socket
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import keras
import numpy as np

from brats_tf.errors import InputError, in_one_line
from brats_tf.models.backbones import (
    LEARNED_LAYER,
    RANGE_LAYER,
    RGB,
    SCALING_LAYER,
    build_classifier,
    build_efficientnet_package,
    get_backbone,
)
from brats_tf.models.random_weights import estimate_statistics
from brats_tf.runtime.files import read_text

FOLDER_VARIABLE = "BRATS_TF_WEIGHTS"
HASHES = "SHA256SUMS"  # As `sha256sum * > SHA256SUMS` writes it, beside the files.
DOWNLOAD_TIMEOUT_S = 20
FORMATS = (".weights.h5", ".h5")
IMAGE_SHAPE = (224, 224, RGB)  # Of the classifiers that files are loaded into; MobileNet's weights depend on it.
NOISY_STUDENT = "noisy-student"
NOISY_STUDENT_URL = "https://github.com/qubvel/efficientnet/releases/download/v0.0.1/"
# MD5 of the files without top, as the package efficientnet 1.1 publishes them. (1.0, which segmentation-models asks
# for, has the layers but does not know these files.)
NOISY_STUDENT_MD5 = {
    "efficientnetb0": "a5b48ae7547fc990c7e4f3951230290d",
    "efficientnetb1": "4d35baa41ca36f175506a33918f7e334",
    "efficientnetb2": "e496e531f41242598288ff3a4b4199f9",
    "efficientnetb3": "47da5b154de1372b557a65795d3e6135",
    "efficientnetb4": "47c10902a4949eec589ab92fe1c35ed8",
    "efficientnetb5": "4d53ef3544d4114e2d8080d6d777a74c",
    "efficientnetb6": "71f96d7e15d9f891f3729b4f4e701f77",
    "efficientnetb7": "e112b00c464fe929b821edbb35d1af55",
}
PTH = (
    "{} is a PyTorch file, which is a pickle and could run any code; none is loaded here. Convert it where PyTorch is "
    "installed, as docs/how-to/offline-weights.md says under 'Convert PyTorch weights', and name the .weights.h5 that "
    "this writes."
)


def fill_backbone(network, *, backbone, source):
    """Fills the network's backbone with ImageNet weights. Nothing is changed if it cannot be.

    A backbone for other than three planes has its first convolution inflated, see `inflate`.

    Args:
        network: a network with a nested model called `backbone`.
        backbone: a key of `BACKBONES`.
        source: "none" keeps random weights, whose batch norm, where it is frozen, gets the statistics of random
            images, see `random_weights`; "imagenet" or "noisy-student" takes the file in the folder
            $BRATS_TF_WEIGHTS, or else the published one from Keras's cache or a download; anything else is the path of
            a file (`.weights.h5` or `.h5`).

    Returns:
        Where the weights came from, in words.

    Raises:
        InputError: when no file can be had, its hash is wrong, or it holds no weights of this backbone.
    """
    if source == "none":
        classifier = network.get_layer(backbone)
        frozen = estimate_statistics(classifier, *_seen(network))
        return "random weights, batch norm statistics of random images" if frozen else "random weights"
    known = get_backbone(backbone).weights
    if source == NOISY_STUDENT and source not in known:
        raise InputError(f"The weights of {backbone} are {', '.join(known)}, or a file. Received: {source}.")
    path = _find(backbone, source) if source in known else Path(source)
    classifier, origin = _published(backbone, source) if path is None else (_load(backbone, path), path.name)
    if not all(np.isfinite(array).all() for array in classifier.get_weights()):
        raise InputError(f"The weights of {backbone} must be finite; received NaN or infinity from {origin}.")
    _copy(classifier, network, backbone)
    return f"ImageNet weights from {origin}"


def _seen(network):
    """(deviation, mean) of what a network's classifier sees of planes with deviation 1 and mean 0."""
    for layer in network.layers:
        if layer.name in (SCALING_LAYER, RANGE_LAYER) and isinstance(layer, keras.layers.Rescaling):
            return layer.scale, layer.offset
    return 1.0, 0.0


def inflate(weights, shape):
    """Repeats three channels for any number of planes: (h, w, 3, F) -> (h, w, planes, F), or (3,) -> (planes,).

    A convolution's kernel is shared out among the planes that repeat a channel, so that equal planes give the response
    that an image of three equal channels gave; one plane or two share the mean of the channels.
    """
    planes = shape[0] if len(shape) == 1 else shape[2]
    channels = [plane % RGB for plane in range(planes)]
    if len(shape) == 1:
        return weights[channels]
    if planes < RGB:
        return weights.mean(axis=2, keepdims=True).repeat(planes, axis=2) * (RGB / planes)
    return weights[:, :, channels] / [[channels.count(channel)] for channel in channels]


def _copy(classifier, network, backbone):
    """Copies the classifier's weights into the network's backbone, and into the input scaling where that is learned."""
    pairs = [(layer, classifier.get_layer(layer.name)) for layer in network.get_layer(backbone).layers if layer.weights]
    pairs += [
        (layer, classifier.get_layer(LEARNED_LAYER))
        for layer in network.layers
        if layer.name == SCALING_LAYER and layer.weights
    ]
    fitting = [
        [
            given if given.shape == tuple(mine.shape) else inflate(given, mine.shape)
            for given, mine in zip(theirs.get_weights(), layer.weights, strict=True)
        ]
        for layer, theirs in pairs
    ]
    for (layer, _), arrays in zip(pairs, fitting, strict=True):
        layer.set_weights(arrays)


def _find(backbone, source):
    """The backbone's file in $BRATS_TF_WEIGHTS; None when the variable is not set."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    stem = _stem(backbone, source)
    names = [f"{stem}.weights.h5", f"{stem}_notop.h5"]
    if source == NOISY_STUDENT:
        names.append(_noisy_student_file(backbone))
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise InputError(f"{FOLDER_VARIABLE}={folder} must hold {' or '.join(names)}. Received: none of them.")


def _load(backbone, path):
    """The whole classifier with the weights of a file."""
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        raise InputError(PTH.format(path))
    if not path.name.endswith(FORMATS):
        raise InputError(
            f"Weights must be {', '.join(get_backbone(backbone).weights)}, none, or a Keras file "
            f"({' or '.join(FORMATS)}) without its top. Received: {path}."
        )
    if not path.is_file():
        raise InputError(f"The weights file {path} does not exist.")
    check_hash(path)
    builders = [build_classifier]
    if NOISY_STUDENT in get_backbone(backbone).weights:
        builders.append(build_efficientnet_package)  # Files of that package know no Normalization layer.
    errors = []
    for build in builders:
        classifier = build(backbone, image_shape=IMAGE_SHAPE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # What Keras says before it fails; the failure says more.
                classifier.load_weights(path)
            return classifier
        except Exception as error:  # h5py and Keras raise whatever the damage leads to.
            errors.append(error)
    raise InputError(
        f"{path} must hold the weights of {backbone} without its top. Received: {in_one_line(errors[0])}"
    ) from errors[0]


def check_hash(path):
    """Compares a file with its published hash, and with the line for it in SHA256SUMS beside it, where there is one."""
    for backbone, expected in NOISY_STUDENT_MD5.items():
        if path.name == _noisy_student_file(backbone):
            _compare(path, hashlib.md5(usedforsecurity=False), expected)
    sums = path.parent / HASHES
    if sums.is_file():
        try:
            lines = (line.partition(" ") for line in read_text(sums).splitlines())
        except (OSError, ValueError) as error:
            raise InputError(f"{sums} must hold hashes of weights files: {in_one_line(error)}.") from None
        expected = {name.strip().removeprefix("*").removeprefix("./"): digest for digest, _, name in lines}
        if path.name not in expected:
            raise InputError(f"{sums} must have a line for {path.name}. Received: {', '.join(expected)}.")
        _compare(path, hashlib.sha256(), expected[path.name])


def _compare(path, digest, expected):
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        raise InputError(f"{path} must have the {digest.name.upper()} {expected}. Received: {digest.hexdigest()}.")


def _published(backbone, source):
    """The whole classifier with the published file, from Keras's cache or downloaded; its source checks the hash."""
    try:
        # Keras's download bar goes beside our own lines, not among them.
        with _socket_timeout(DOWNLOAD_TIMEOUT_S), redirect_stdout(sys.stderr):
            if source == "imagenet":
                return build_classifier(backbone, image_shape=IMAGE_SHAPE, weights=source), "Keras's cache"
            name = _noisy_student_file(backbone)
            path = _get_file(name, NOISY_STUDENT_URL + name, file_hash=NOISY_STUDENT_MD5[backbone])
    except Exception as error:  # Whatever the network, the proxy or the cache leads to.
        raise InputError(
            f"The {source} weights of {backbone} could not be downloaded ({in_one_line(error)}). Put the published "
            f"file into a folder as {_stem(backbone, source)}_notop.h5 and name that folder in {FOLDER_VARIABLE}, or "
            "choose --weights FILE, or --weights none to train from random weights."
        ) from error
    return _load(backbone, Path(path)), name


def download(name, url):
    """The path of a file in Keras's cache, downloaded if it is not there; raises what the network leads to."""
    with _socket_timeout(DOWNLOAD_TIMEOUT_S), redirect_stdout(sys.stderr):
        return _get_file(name, url)


def _get_file(name, url, file_hash=None):
    return keras.utils.get_file(name, url, cache_subdir="models", file_hash=file_hash)


def _stem(backbone, source):
    return backbone if source == "imagenet" else f"{backbone}_{source}"


def _noisy_student_file(backbone):
    return f"efficientnet-{backbone[-2:]}_noisy-student_notop.h5"


@contextmanager
def _socket_timeout(seconds):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
