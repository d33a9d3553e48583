"""NIfTI files as they lie on disk, read whole or by their header, with what is wrong with them in one sentence."""

import hashlib
import io
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import nibabel.filebasedimages
import nibabel.spatialimages
import numpy as np
from isal import igzip, isal_zlib

from brats_tf.errors import InputError, enough_memory, format_shape
from brats_tf.runtime.files import check_regular

DEFLATE_LIMIT = 1032  # Deflate packs no better than this, so a larger size is a lie.
TRAILING_BYTES = 2**20  # What may follow the voxels, and how much longer than they a packed file may be.
EDGES_MM = (0.05, 100)  # Of a voxel; others are metres, micrometres or nonsense.
_HEADER_BYTES = 544  # Of NIfTI-2; NIfTI-1 has fewer.
_FIRST_VOXEL = {348: 352, 540: 544}  # By the size of the header: NIfTI's least `vox_offset` of a single file.
_GZIP = b"\x1f\x8b"
_LFS_POINTER = b"version https://git-lfs"
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
    isal_zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)


@dataclass(frozen=True)
class Nifti:
    """One file as it lies on disk: header, stored numbers in their own type and order, hash of the file's bytes."""

    path: Path
    header: nib.Nifti1Header
    stored: np.ndarray
    sha256: str


def read_nifti(path, *, case_id):
    """Reads a whole file, gzipped or not whatever its name says. Raises `InputError`, naming case and file."""
    path = Path(path)
    header = read_header(path, case_id=case_id)
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    with enough_memory(f"Case {case_id}: {path}"):
        try:
            raw = _read_at_most(path, offset + expected + TRAILING_BYTES)
            possible = len(raw) * DEFLATE_LIMIT
            enough = not raw.startswith(_GZIP) or offset + expected <= possible
            content = unpacked(raw, offset + expected + TRAILING_BYTES) if enough else None
        except _UNREADABLE as error:
            raise InputError(_damaged(case_id, path, error)) from error
    if content is None:
        raise InputError(_wrong_size(case_id, path, header, f"at most {max(possible - offset, 0)}"))
    if not 0 <= len(content) - offset - expected <= TRAILING_BYTES:
        more = "at least " if len(content) > offset + expected else ""
        raise InputError(_wrong_size(case_id, path, header, f"{more}{max(len(content) - offset, 0)}"))
    stored = np.frombuffer(content, dtype, count=expected // dtype.itemsize, offset=offset).reshape(shape, order="F")
    return Nifti(path, header, stored, hashlib.sha256(raw).hexdigest())


def _wrong_size(case_id, path, header, received):
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    return (
        f"Case {case_id}: {path} is damaged or truncated: expected {format_shape(shape)} voxels in {expected} bytes, "
        f"received {received}."
    )


def read_header(path, *, case_id):
    """A file's header, from its first bytes; the file is not read to its end. Raises `InputError` as `read_nifti`."""
    path = Path(path)
    try:
        check_regular(path)
        with open(path, "rb") as file:
            zipped = file.read(len(_GZIP)) == _GZIP
        with (igzip.open if zipped else open)(path, "rb") as file:
            content = file.read(_HEADER_BYTES)
    except _UNREADABLE as error:
        raise InputError(_damaged(case_id, path, error)) from error
    return _header(content, path, case_id)


def unpacked(raw, limit):
    """The content of a file, gzipped or not, or its first `limit + 1` bytes where it is longer.

    In one go where its last bytes tell a size below the limit: half the time.
    """
    if not raw.startswith(_GZIP):
        return raw
    size = int.from_bytes(raw[-4:], "little")
    if size <= min(limit, len(raw) * DEFLATE_LIMIT) and raw.find(_GZIP + b"\x08", 10) < 0:
        with suppress(isal_zlib.error):
            inflate = isal_zlib.decompressobj(wbits=31)
            content = inflate.decompress(raw, size + 1)  # The size may be a lie: never more than it says.
            if len(content) == size and inflate.eof:
                return content
    # Perhaps several members, or damage, which it says in clear words.
    with igzip.open(io.BytesIO(raw)) as file:
        return file.read(min(limit, len(raw) * DEFLATE_LIMIT) + 1)


def _read_at_most(path, limit):
    """The bytes of a file; no packed file of `limit` bytes is larger than them by more than one in a hundred."""
    limit += limit // 100
    with open(path, "rb") as file:
        return file.read(min(limit, path.stat().st_size) + 1)


def _header(content, path, case_id):
    """Parses and checks the header at the beginning of a file's content, without its extensions."""
    if content[4:8] == b"n+2\x00":
        kind, size = nib.Nifti2Header, 540
    elif content[344:348] == b"n+1\x00":
        kind, size = nib.Nifti1Header, 348
    else:
        raise InputError(f"Case {case_id}: {path} is no readable NIfTI file: {_what_else(path)}.")
    if len(content) < size:
        raise InputError(
            f"Case {case_id}: {path} is damaged or truncated: expected a header of {size} bytes, received "
            f"{len(content)}."
        )
    try:
        header = kind.from_fileobj(io.BytesIO(content[:size] + bytes(4)))
        shape, affine = header.get_data_shape(), header.get_best_affine()
        offset = header.get_data_offset()
        header.get_slope_inter()  # It raises what it cannot read.
    except _UNREADABLE as error:
        raise InputError(f"Case {case_id}: {path} is no readable NIfTI file: {_one_line(error)}.") from error
    if not shape or min(shape) < 1:
        raise InputError(
            f"Case {case_id}: {path} must have axes of at least one voxel; received the shape {format_shape(shape)}."
        )
    if header.get_data_dtype().kind not in "biuf":
        raise InputError(f"Case {case_id}: {path} must hold plain numbers; received {header.get_data_dtype()}.")
    if offset < _FIRST_VOXEL[size]:
        raise InputError(
            f"Case {case_id}: {path} must have its first voxel at byte {_FIRST_VOXEL[size]} or later (`vox_offset`); "
            f"received {offset}."
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"Case {case_id}: {path} has an affine that cannot be inverted: {affine.tolist()}.")
    edges = nib.affines.voxel_sizes(affine)
    if edges.min() < EDGES_MM[0] or edges.max() > EDGES_MM[1]:
        raise InputError(
            f"Case {case_id}: {path} must have voxels of {EDGES_MM[0]:g} to {EDGES_MM[1]:g} mm; received "
            f"{format_shape(f'{edge:.3g}' for edge in edges)} mm."
        )
    if np.isnan(nib.io_orientation(affine)).any():
        raise InputError(f"Case {case_id}: {path} has an affine whose axes cannot be told apart: {affine.tolist()}.")
    return header


def _what_else(path):
    """What a file is that is no single-file NIfTI."""
    try:
        with open(path, "rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                return "it is a Git LFS pointer, which `git lfs pull` replaces by the file"
        return f"expected a single .nii or .nii.gz, received {type(nib.load(path)).__name__}"
    except Exception as error:  # nibabel's readers of other formats raise whatever the damage leads to.
        return _one_line(error)


def _damaged(case_id, path, error):
    return f"Case {case_id}: {path} is damaged or truncated: {_one_line(error)}."


def _one_line(error):
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # Without the number and the path, which the sentence names.
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
