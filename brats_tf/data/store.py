"""Prepared cases on disk, as raw arrays that TensorFlow reads with graph operations alone.

A file's name carries a key of the content and the settings that made it, so that a changed input is noticed; it is
written under a temporary name, then renamed, so that a killed preparation can simply be started again.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from brats_tf.data.cases import SEGMENTATION
from brats_tf.data.preparation import prepare_case
from brats_tf.errors import InputError
from brats_tf.files import atomic

VERSION = 1  # Raise it when preparation changes, so that old files are not used.


@dataclass(frozen=True)
class StoredCase:
    """Where a prepared case lies: little-endian float32 (H, W, D, C) and uint8 classes (H, W, D), C order."""

    id: str
    volume: Path
    classes: Path


def store_case(case, *, modalities, crop, folder):
    """Prepares one case into `folder`, unless it lies there already. Returns a `StoredCase`.

    Raises:
        InputError: when the case is bad, or the disk full.
    """
    key = _key(case, modalities, crop)
    stem = Path(folder) / f"{case.id}-{'-'.join(modalities)}-{key}"
    stored = StoredCase(case.id, stem.with_name(f"{stem.name}.volume"), stem.with_name(f"{stem.name}.classes"))
    if not (stored.volume.is_file() and stored.classes.is_file()):
        prepared = prepare_case(case, modalities=modalities, crop=crop, with_truth=True)
        with atomic(stored.volume) as temporary:
            prepared.volume.astype("<f4").tofile(temporary)
        with atomic(stored.classes) as temporary:
            prepared.classes.tofile(temporary)
    return stored


def _key(case, modalities, crop):
    digest = hashlib.sha256(repr((VERSION, modalities, crop, case.convention.labels)).encode())
    for part in (*modalities, SEGMENTATION):
        path = case.require(part)
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise InputError(f"Case {case.id}: {path} could not be read: {error.strerror}.") from error
    return digest.hexdigest()[:16]
