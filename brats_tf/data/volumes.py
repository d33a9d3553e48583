"""NIfTI in and out: voxels as float32 or labels, geometry untouched."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from brats_tf.errors import InputError
from brats_tf.files import atomic

AFFINE_TOLERANCE_MM = 1e-2
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)


@dataclass(frozen=True)
class Volume:
    """Voxels in the order of their file, (X, Y, Z), with the file's own image for the way back."""

    voxels: np.ndarray
    image: nib.Nifti1Image
    path: Path

    @property
    def affine(self):
        """Voxel indices to mm, (4, 4)."""
        return self.image.affine


def read_volume(path, *, case_id):
    """Reads a modality as float32 (X, Y, Z).

    Raises:
        InputError: naming case and file, when the file is unreadable, truncated, not 3D, not finite or constant.
    """
    volume = _read(path, case_id=case_id)
    finite = np.isfinite(volume.voxels)
    if not finite.all():
        raise InputError(
            f"Case {case_id}: {path} must hold finite numbers; received {finite.size - finite.sum()} voxels that are "
            "NaN or infinite."
        )
    lowest, highest = volume.voxels.min(), volume.voxels.max()
    if lowest == highest:
        raise InputError(f"Case {case_id}: {path} must show a brain; received one value, {lowest:g}, in every voxel.")
    return volume


def read_segmentation(path, *, case_id):
    """Reads a label map as float32 (X, Y, Z), unchecked; `regions.labels_to_classes` checks the labels."""
    return _read(path, case_id=case_id)


def check_same_geometry(volume, other, *, case_id):
    """Raises `InputError` unless two files of a case have equal shapes and affines (to 0.01 mm)."""
    expected, received = volume.voxels.shape, other.voxels.shape
    if expected != received:
        raise InputError(
            f"Case {case_id}: {other.path} must have the shape {_by(expected)} of {volume.path.name}; "
            f"received {_by(received)}."
        )
    difference = np.abs(volume.affine - other.affine).max()
    if not difference <= AFFINE_TOLERANCE_MM:
        raise InputError(
            f"Case {case_id}: {other.path} must have the affine of {volume.path.name}; received one that differs by "
            f"up to {difference:g} mm (axes {axis_codes(other.affine)}, expected {axis_codes(volume.affine)})."
        )


def axis_codes(affine):
    """The directions in which the three axes run, such as "LPS" or "RAS"."""
    return "".join(code or "?" for code in nib.aff2axcodes(affine))


def write_volume(path, voxels, *, like):
    """Writes voxels (X, Y, Z) or (X, Y, Z, C) with the affine and header geometry of the volume `like`.

    The file is complete or absent: it is written under a temporary name, then renamed.

    Raises:
        InputError: when the folder cannot be written to, or the disk is full.
    """
    header = like.image.header.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    image = type(like.image)(voxels, like.affine, header)
    path = Path(path)
    with atomic(path) as temporary:
        nib.save(image, temporary)


def _read(path, *, case_id):
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise InputError(f"Case {case_id}: {path} is no readable NIfTI file: {_one_line(error)}.") from error
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(f"Case {case_id}: {path} must be NIfTI; received {type(image).__name__}.")
    if image.get_data_dtype().kind not in "biuf":
        raise InputError(f"Case {case_id}: {path} must hold plain numbers; received {image.get_data_dtype()}.")
    if len(image.shape) != 3 or min(image.shape) < 2:
        raise InputError(f"Case {case_id}: {path} must be a 3D volume; received the shape {_by(image.shape)}.")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise InputError(f"Case {case_id}: {path} has an affine that cannot be inverted: {image.affine.tolist()}.")
    try:
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
    except (*_UNREADABLE, MemoryError) as error:
        raise InputError(
            f"Case {case_id}: {path} is damaged or truncated: expected {_by(image.shape)} voxels, "
            f"received {_one_line(error)}."
        ) from error
    return Volume(voxels, image, Path(path))


def _by(shape):
    return "x".join(str(size) for size in shape)


def _one_line(error):
    return " ".join(str(error).split()).rstrip(".")
