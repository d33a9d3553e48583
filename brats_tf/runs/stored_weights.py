"""The weights of a network where they are stored: they take no memory until it needs them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from brats_tf.errors import InputError, reason_of

KEEP_OPEN = os.name != "nt"  # Windows does not replace a file that is open.


class StoredWeights:
    """The weights of a network in the file that it has just loaded them from.

    The file stays open, so that they remain what they are where a training replaces the file. Where one has replaced it
    by now, or on Windows, they are kept in memory.
    """

    def __init__(self, network: keras.Model, path: str | Path) -> None:
        """Finds each weight of `network` in `path`, a `.weights.h5` of Keras, by its content."""
        self.path, self._file = Path(path), h5py.File(path) if KEEP_OPEN else None
        self._before = self._stamp()
        found = {_content(one[()]): one for one in _datasets(self._file)} if self._file else {}
        arrays = (keras.ops.convert_to_numpy(weight) for weight in network.weights)
        self._stored: list[Any] = [found.get(_content(array), array) for array in arrays]

    @property
    def in_memory(self) -> int:
        """The bytes of those that are kept in memory."""
        return sum(one.nbytes for one in self._stored if isinstance(one, np.ndarray))

    def assign_to(self, network: keras.Model) -> None:
        """Fills a network of the same layers with them.

        Raises:
            InputError: when somebody has written into the file, instead of replacing it, or it cannot be read.
        """
        try:
            for weight, stored in zip(network.weights, self._stored, strict=True):
                weight.value.assign(stored[()])  # Not Keras's `assign`, whose checks take half of the time.
            changed = "another content" if self._stamp() != self._before else None
        except OSError as error:
            changed = reason_of(error)
        if changed:
            raise InputError(f"{self.path} must stay as it is while its network is in use. Received: {changed}.")

    def _stamp(self) -> tuple[int, int] | None:
        """What changes when somebody writes into the open file; None where all weights are in memory."""
        if self._file is None:
            return None
        status = os.fstat(self._file.id.get_vfd_handle())
        return status.st_size, status.st_mtime_ns


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    for item in group.values():
        yield from _datasets(item) if isinstance(item, h5py.Group) else [item]


def _content(array: np.ndarray) -> tuple:
    return array.shape, array.dtype.str, hashlib.sha256(np.ascontiguousarray(array).data).digest()
