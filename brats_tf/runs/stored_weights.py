"""The weights of a network where they are stored: they take no memory until it needs them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

KEEP_OPEN = os.name != "nt"  # Windows does not replace a file that is open.


class StoredWeights:
    """The weights of a network in the file that it has just loaded them from.

    The file stays open, so that they remain what they are where a training replaces the file. Where one has replaced it
    by now, or on Windows, they are kept in memory.
    """

    def __init__(self, network: keras.Model, path: str | Path) -> None:
        """Finds each weight of `network` in `path`, a `.weights.h5` of Keras, by its content."""
        found = {_content(one[()]): one for one in _datasets(h5py.File(path))} if KEEP_OPEN else {}
        arrays = (keras.ops.convert_to_numpy(weight) for weight in network.weights)
        self._stored: list[Any] = [found.get(_content(array), array) for array in arrays]

    @property
    def in_memory(self) -> int:
        """The bytes of those that are kept in memory."""
        return sum(one.nbytes for one in self._stored if isinstance(one, np.ndarray))

    def assign_to(self, network: keras.Model) -> None:
        """Fills a network of the same layers with them."""
        for weight, stored in zip(network.weights, self._stored, strict=True):
            weight.assign(stored[()])


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    for item in group.values():
        yield from _datasets(item) if isinstance(item, h5py.Group) else [item]


def _content(array: np.ndarray) -> tuple:
    return array.shape, array.dtype.str, hashlib.sha256(np.ascontiguousarray(array).data).digest()
