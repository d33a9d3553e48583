"""ImageNet weights, filled in after a network is built: find the file, check it, copy it layer by layer.

A file holds the weights of a whole `keras.applications` model without its top. They are loaded into such a model and
copied by layer name, so that the network's topology is the same whatever the weights, or without any.
"""

import os
import socket
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from brats_tf.errors import InputError
from brats_tf.models.backbones import BACKBONES

FOLDER_VARIABLE = "BRATS_TF_WEIGHTS"
DOWNLOAD_TIMEOUT_S = 20
FORMATS = (".weights.h5", ".h5")


def fill_backbone(network, *, backbone, source):
    """Fills the network's backbone with ImageNet weights. Nothing is changed if it cannot be.

    Args:
        network: a network with a nested model called `backbone`.
        backbone: a key of `BACKBONES`.
        source: "none" leaves it as it is; "imagenet" takes the file in the folder $BRATS_TF_WEIGHTS, or else Keras's
            own file from Keras's cache or download; anything else is the path of a file (`.weights.h5` or `.h5`).

    Returns:
        Where the weights came from, in words.

    Raises:
        InputError: when no file can be had, or it holds no weights of this backbone.
    """
    if source == "none":
        return "random weights"
    path = _find(backbone) if source == "imagenet" else Path(source)
    classifier, origin = _keras_own(backbone) if path is None else (_load(backbone, path), path.name)
    for layer in network.get_layer(backbone).layers:
        layer.set_weights(classifier.get_layer(layer.name).get_weights() if layer.weights else [])
    return f"ImageNet weights from {origin}"


def _find(backbone):
    """The backbone's file in $BRATS_TF_WEIGHTS; None when the variable is not set."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    names = [f"{backbone}.weights.h5", f"{backbone}_notop.h5"]
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise InputError(f"{FOLDER_VARIABLE}={folder} must hold {' or '.join(names)}. Received: neither.")


def _load(backbone, path):
    """The whole classifier with the weights of a file."""
    if not path.name.endswith(FORMATS):
        raise InputError(
            f"Weights must be imagenet, none, or a Keras file ({' or '.join(FORMATS)}) without its top. "
            f"Received: {path}."
        )
    if not path.is_file():
        raise InputError(f"The weights file {path} does not exist.")
    classifier = BACKBONES[backbone].application(include_top=False, weights=None)
    try:
        classifier.load_weights(path)
    except Exception as error:  # h5py and Keras raise whatever the damage leads to.
        raise InputError(
            f"{path} must hold the weights of {backbone} without its top. Received: {_first_line(error)}"
        ) from error
    return classifier


def _keras_own(backbone):
    """The whole classifier with Keras's own file, from its cache or downloaded and checked by Keras."""
    try:
        # Keras's download bar goes beside our own lines, not among them.
        with _socket_timeout(DOWNLOAD_TIMEOUT_S), redirect_stdout(sys.stderr):
            classifier = BACKBONES[backbone].application(include_top=False, weights="imagenet")
    except Exception as error:  # Whatever the network, the proxy or the cache leads to.
        raise InputError(
            f"The ImageNet weights of {backbone} could not be downloaded ({_first_line(error)}). Put "
            f"{backbone}_notop.h5 into a folder and name that folder in {FOLDER_VARIABLE}, or choose --weights FILE, "
            "or --weights none to train from random weights."
        ) from error
    return classifier, "Keras's cache"


@contextmanager
def _socket_timeout(seconds):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
