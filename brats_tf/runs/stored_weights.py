"""The weights of a network where they are stored: they take no memory until it needs them."""

import copy
import hashlib
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from brats_tf.errors import InputError, reason_of
from brats_tf.runtime.files import sha256_of

KEEP_OPEN = os.name != "nt"  # Windows does not replace a file that is open.


class StoredWeights:
    """The weights of a network in the file that it has just loaded them from.

    The file stays open, so that they remain what they are where a training replaces the file. Where one has replaced it
    by now, or on Windows, they are kept in memory.
    """

    def __init__(self, network: keras.Model, path: str | Path) -> None:
        """Finds each weight of `network` in `path`, a `.weights.h5` of Keras, by its content."""
        self._open(path)
        found = defaultdict(list)
        self._kinds = {}
        for one in _datasets(self._file) if self._file else ():
            found[_content(one[()])].append(one)
            self._kinds[one.name] = _kind(one)
        arrays = [keras.ops.convert_to_numpy(weight) for weight in network.weights]
        places = [found[_content(array)] for array in arrays]
        self._stored: list[Any] = [all_[0] if all_ else array for all_, array in zip(places, arrays, strict=True)]
        self._names = _names(network.weights, places)

    def _open(self, path: str | Path) -> None:
        self.path, self._file = Path(path), h5py.File(path) if KEEP_OPEN else None
        self._before = self._stamp()

    def in_another(self, path: str | Path) -> "tuple[StoredWeights, str] | None":
        """Those of the same network in another file, under the names that they have in this one, and its SHA-256.

        It takes a fifth of the time that Keras takes to find them. None where the names are not known, or the file is
        not as it should be: Keras says what is wrong.
        """
        if self._names is None:
            return None
        other = copy.copy(self)
        try:
            other._open(path)
            sha256 = sha256_of(path)
            found = {one.name: one for one in _datasets(other._file)}
            alike = {name: _kind(one) for name, one in found.items()} == self._kinds
            finite = alike and all(np.isfinite(one[()]).all() for one in found.values())
            same = os.path.samestat(os.stat(path), _status(other._file)) and other._stamp() == other._before
        except OSError:
            return None
        other._stored = [found.get(name) for name in self._names]
        return (other, sha256) if finite and same else None

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
        status = _status(self._file)
        return status.st_size, status.st_mtime_ns


def _status(file: h5py.File) -> os.stat_result:
    return os.fstat(file.id.get_vfd_handle())


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    for item in group.values():
        yield from _datasets(item) if isinstance(item, h5py.Group) else [item]


def _names(weights: list[keras.Variable], places: list[list[h5py.Dataset]]) -> list[str] | None:
    """The name of each weight's dataset, of those in `places`, which have its content; None where that leaves a choice.

    Biases that get the same gradient have the same content. But Keras writes the weights of a layer into one group,
    under their numbers.
    """
    known = []
    for _, layer in groupby(zip(weights, places, strict=True), lambda both: posixpath.dirname(both[0].path)):
        names = [{one.name for one in found} for _, found in layer]
        groups = set.intersection(*({posixpath.dirname(name) for name in found} for found in names))
        numbered = [f"{group}/{number}" for group in groups for number in range(len(names))]
        if len(groups) != 1 or not all(map(set.__contains__, names, numbered)):
            return None
        known += numbered
    return known


def _kind(dataset: h5py.Dataset) -> tuple:
    return dataset.shape, dataset.dtype


def _content(array: np.ndarray) -> tuple:
    return array.shape, array.dtype.str, hashlib.sha256(np.ascontiguousarray(array).data).digest()
