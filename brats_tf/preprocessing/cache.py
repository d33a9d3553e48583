"""Preprocessed cases on disk, as raw arrays that TensorFlow reads with graph operations alone.

Each modality and each segmentation of a case is one data file with a JSON record beside it. A name carries a key of the
content and the settings that made it, so that a changed input is noticed. The record is written last, under a temporary
name that is then renamed: a killed preparation leaves complete entries, and resumes from them.
"""

import hashlib
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal import isal_zlib

from brats_tf.data import volumes
from brats_tf.data.case import size_and_time
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.errors import enough_memory
from brats_tf.preprocessing.preprocess import Reader, crop_notes, grid_of, prepare_volume
from brats_tf.preprocessing.transforms import brain_box
from brats_tf.runtime.files import atomic, read_json, write_json

VERSION = 3  # Raise it when preparation changes, so that old files are not used.
RECORD = ".json"
ORPHAN_S = 600  # A data file without a record may be this young because its record is being written.
_ENTRY = re.compile(r"[^.].*-[0-9a-f]{16}\.(volume|classes)\.json")
BYTES = {"volume": 4, "classes": 1}  # Of a voxel, by the ending of the data file.


@dataclass(frozen=True)
class CachedCase:
    """Where a preprocessed case lies: little-endian float32 volumes and uint8 classes, each (H, W, D), C order."""

    id: str
    volumes: dict  # modality -> Path
    classes: Path | None
    box: tuple  # ((h, w, d), (h, w, d)): the first voxel of the brain's box, and the one after its last

    @property
    def paths(self):
        """All data files."""
        return [*self.volumes.values(), *([self.classes] if self.classes else [])]


@dataclass(frozen=True)
class CacheSettings:
    """What decides, with a file's content, what its entry holds: the crop in voxels, and the spacing in mm or None."""

    crop: tuple
    spacing_mm: float | None = None

    def key(self, case, part, sha256):
        """The key of a case's entry; of a segmentation the label numbers count too, of a modality its channel."""
        convention = case.convention
        read_as = (convention.labels, convention.others) if part == SEGMENTATION else case.channels.get(part)
        content = (VERSION, part, tuple(self.crop), self.spacing_mm, sha256, read_as)
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def entry_bytes(part, crop):
    """The size of an entry's data file."""
    return BYTES["classes" if part == SEGMENTATION else "volume"] * math.prod(crop)


class Cache:
    """A folder of prepared cases. Its records are read once, when it is opened."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self._records = {}  # (case id, part) -> [record]
        for path in entries(self.folder):
            record = read_cache_record(path)
            if record:
                self._records.setdefault((record["case"], record["part"]), []).append(record)

    def find(self, case, part, settings):
        """The record of a part, where an entry fits its file and the settings; else None. Reads no file's content.

        As `make` and Git do, it takes a file whose path, size and time are the same for unchanged.
        """
        stat = _stat(case, part)
        for record in self._records.get((case.id, part), ()):
            source = record["source"]
            same_file = (source["path"], source["bytes"], source["mtime_ns"]) == stat
            key = settings.key(case, part, source["sha256"])
            if same_file and record["key"] == key and is_complete(self.folder / record["file"], part, settings.crop):
                return record
        return None

    def add(self, case, parts, settings):
        """Prepares the parts of a case that are not here yet. Returns (`CachedCase`, notes on its geometry).

        Raises:
            InputError: when the case is bad.
            WriteError: when the folder is read-only, or the disk is full.
        """
        reader, records = Reader(case), {}
        for part in parts:
            with enough_memory(f"Case {case.id}: its {part}"):
                records[part] = self.find(case, part, settings) or self._prepare(reader, part, settings)
        _check_geometry(case, records)
        notes = sorted({note for record in records.values() for note in record["notes"]})
        if case.layout.note and SEGMENTATION in parts:
            notes.append(case.layout.note)
        return self._stored(case, records), notes

    def _prepare(self, reader, part, settings):
        case, stat = reader.case, _stat(reader.case, part)
        file = reader.file(part)
        key = settings.key(case, part, file.sha256)
        ending = "classes" if part == SEGMENTATION else "volume"
        source = dict(zip(("path", "bytes", "mtime_ns"), stat, strict=True)) | {"sha256": file.sha256}
        for found in self._records.get((case.id, part), ()):
            if found["key"] == key and is_complete(self.folder / found["file"], part, settings.crop):
                moved = found | {"source": source}  # The same content elsewhere, or with another time.
                write_json(record_path(self.folder / found["file"]), moved)
                return moved
        record = {
            "case": case.id,
            "part": part,
            "key": key,
            "file": f"{case.id}-{part}-{key}.{ending}",
            "source": source,
            "shape": list(file.stored.shape[:3]),
            "affine": file.header.get_best_affine().tolist(),
        }
        voxels, record["notes"] = _voxels(reader, part, settings)
        record |= {"crc32": isal_zlib.crc32(voxels), "box": _box(voxels)}
        path = self.folder / record["file"]
        with atomic(path) as temporary, open(temporary, "wb") as data:
            data.write(voxels)
        write_json(record_path(path), record)
        return record

    def _stored(self, case, records):
        paths = {part: self.folder / record["file"] for part, record in records.items()}
        boxes = np.array([record["box"] for part, record in records.items() if part != SEGMENTATION])
        box = (tuple(boxes[:, 0].min(axis=0).tolist()), tuple(boxes[:, 1].max(axis=0).tolist()))
        return CachedCase(case.id, paths, paths.pop(SEGMENTATION, None), box)


def record_path(data):
    """The record beside a data file."""
    return data.with_name(data.name + RECORD)


def entries(folder):
    """The paths of all records in a folder, whatever else lies there, and not what is being written now."""
    return [path for path in sorted(Path(folder).glob(f"*{RECORD}")) if _ENTRY.fullmatch(path.name)]


def orphans(folder):
    """Data files without a record that nobody can be about to write: what a kill between the two leaves."""
    old = time.time() - ORPHAN_S
    found = (path for path in sorted(Path(folder).iterdir()) if _ENTRY.fullmatch(path.name + RECORD))
    return [path for path in found if not record_path(path).exists() and path.stat().st_mtime < old]


def read_cache_record(path):
    """A record, or None where it is none that this version wrote."""
    try:
        record = read_json(path)
        source, places = record["source"], np.array(record["box"], int)
        named = [record["case"], record["part"], record["key"], source["path"], source["sha256"], *record["notes"]]
        counted = [record["crc32"], source["bytes"], source["mtime_ns"], *record["shape"]]
        whole = all(isinstance(one, str) for one in named) and all(isinstance(one, int) for one in counted)
        fitting = places.shape == (2, 3) and np.array(record["affine"], float).shape == (4, 4)
    except (OSError, ValueError, TypeError, KeyError, OverflowError):  # Infinity is no whole number.
        return None
    return record | {"file": path.name.removesuffix(RECORD)} if whole and fitting else None


def damage(folder, record):
    """What is wrong with an entry, in a clause; None when its data are what preparation wrote. Reads the whole file."""
    path = Path(folder) / record["file"]
    try:
        received = isal_zlib.crc32(path.read_bytes())
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    expected = record["crc32"]
    return None if received == expected else f"expected the checksum {expected:08x}, received {received:08x}"


def _stat(case, part):
    """(path, size, time) of a part's file."""
    path = case.require(part)
    return str(path.resolve()), *size_and_time(path, case_id=case.id)


def is_complete(path, part, crop):
    """Whether a part's data file is there and has the size of its crop."""
    try:
        return path.stat().st_size == entry_bytes(part, crop)
    except OSError:
        return False


def _voxels(reader, part, settings):
    """The array of an entry, (H, W, D) in C order, and notes: float32 of a modality, uint8 of a segmentation."""
    volume = reader.segmentation() if part == SEGMENTATION else reader.volume(part)
    grid = grid_of(volume, settings.crop, settings.spacing_mm, case_id=reader.case.id)
    if part == SEGMENTATION:
        classes = grid.to_crop(volumes.read_label_classes(volume, reader.case))
        return np.ascontiguousarray(classes), volumes.geometry_notes(volume.header, spacing_mm=settings.spacing_mm)
    notes = volumes.notes_of(volume, spacing_mm=settings.spacing_mm)
    notes += crop_notes(volume, grid, case_id=reader.case.id)
    return np.ascontiguousarray(prepare_volume(volume, grid), dtype="<f4"), notes


def _box(voxels):
    """The brain's box, first voxel and the one after the last; the whole crop where all is 0."""
    box = brain_box(voxels) or tuple(slice(0, size) for size in voxels.shape)
    return [[part.start for part in box], [part.stop for part in box]]


def _check_geometry(case, records):
    """Raises `InputError` unless all parts of a case share shape and affine, those prepared earlier too."""
    found = [
        volumes.Geometry(case.require(part), record["shape"], np.array(record["affine"]))
        for part, record in records.items()
    ]
    for geometry in found[1:]:
        volumes.check_same_geometry(found[0], geometry, case_id=case.id)
