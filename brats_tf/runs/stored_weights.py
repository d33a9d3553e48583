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
from brats_tf.runtime.files import check_regular, sha256_of

KEEP_OPEN = os.name != "nt"  # Windows does not replace a file that is open.


class StoredWeights:
    """The weights of a network in the file that it has just loaded them from.

    The file stays open, so that they remain what they are where a training replaces the file. Where one has replaced it
    by now, or on Windows, they are kept in memory.
    """

    def __init__(self, network: keras.Model, path: str | Path) -> None:
        """Finds each weight of `network` in `path`, a `.weights.h5` of Keras, by its content."""
        self._open(path)
        arrays = [keras.ops.convert_to_numpy(weight) for weight in network.weights]
        found = defaultdict(list)
        try:
            datasets = list(_datasets(self._file)) if self._file else []
            shapes = {array.shape for array in arrays}
            for one in datasets:
                if one.shape in shapes:
                    found[_content(one[()])].append(one)
        except Exception:  # h5py raises whatever damage leads to, here of what Keras does not need.
            datasets = []
        self._kinds = _kinds(datasets)
        places = [found[_content(array)] for array in arrays]
        self._stored: list[Any] = [all_[0] if all_ else array for all_, array in zip(places, arrays, strict=True)]
        self._names = _names(network.weights, places)

    def _open(self, path: str | Path) -> None:
        self.path, self._file = Path(path), h5py.File(path) if KEEP_OPEN else None
        self._before = self._stamp()

    @property
    def names_are_known(self) -> bool:
        """Whether `in_another` can find them."""
        return self._names is not None

    def in_another(self, path: str | Path) -> "tuple[StoredWeights, str] | None":
        """Those of the same network in another file, under the names that they have in this one, and its SHA-256.

        It takes a fifth of the time that Keras takes to find them. None where the names are not known, or the file is
        not as it should be: Keras says what is wrong.
        """
        if self._names is None:
            return None
        other = copy.copy(self)
        try:
            check_regular(path)
            other._open(path)
            sha256 = sha256_of(path)
            datasets = list(_datasets(other._file))
            found = {one.name: one for one in datasets}
            alike = _kinds(datasets) == self._kinds and all(np.isfinite(one[()]).all() for one in datasets)
            same = os.path.samestat(os.stat(path), _status(other._file)) and other._stamp() == other._before
            other._stored = [found[name] for name in self._names] if alike and same else []
        except Exception:  # h5py raises whatever the damage leads to, and Keras says it in a sentence.
            return None
        return (other, sha256) if other._stored else None

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
    """Those that lie in this file: what links and external storage lead to is in no hash, and Keras refuses it."""
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            item = group[name]
            if isinstance(item, h5py.Group):
                yield from _datasets(item)
            elif isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
                yield item


def _names(weights: list[keras.Variable], places: list[list[h5py.Dataset]]) -> list[str] | None:
    """The name of each weight's dataset, of those in `places`, which have its content; None where that leaves a choice.

    Biases that start alike and get the same gradients stay alike. But Keras writes the weights of a layer into one
    group, under their numbers.
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


def _kinds(datasets: list[h5py.Dataset]) -> dict[str, tuple]:
    return {one.name: (one.shape, one.dtype) for one in datasets}


def _content(array: np.ndarray) -> tuple:
    return array.shape, array.dtype.str, hashlib.sha256(np.ascontiguousarray(array).data).digest()
