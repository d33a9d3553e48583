"""Modalities and label maps in and out: the numbers of a file, and its geometry untouched."""

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from brats_tf.data.nifti import read_nifti
from brats_tf.errors import InputError, format_shape
from brats_tf.regions import labels_to_classes
from brats_tf.runtime.files import atomic

ISOTROPIC_MM = 1.0  # What every BraTS file has.
FORMS_TOLERANCE_MM = 1e-2
TOLERANCE_MM = 0.1  # How far a corner of one file may lie from the same corner of another.
MAX_NONZERO_SHARE = 0.95  # Of the voxels of a file that shows a brain alone; one of BraTS has 0.15.
ROUNDING = 1e-3  # Of a sum of probabilities.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a file lie: shape (X, Y, Z), and voxel indices to mm, (4, 4)."""

    path: Path
    shape: tuple
    affine: np.ndarray


@dataclass(frozen=True)
class Volume:
    """Voxels in the order of their file, (X, Y, Z), real numbers; with the header for the way back."""

    voxels: np.ndarray
    header: nib.Nifti1Header
    path: Path

    @property
    def affine(self):
        """Voxel indices to mm, (4, 4): the sform where there is one, else the qform."""
        return self.header.get_best_affine()

    @property
    def geometry(self):
        """Shape and affine, with the file's path."""
        return Geometry(self.path, self.voxels.shape, self.affine)

    def without_voxels(self):
        """Its header and path alone, which `write_volume` needs."""
        return replace(self, voxels=np.empty(0))


def read_volume(path, *, case_id, channel=None):
    """Reads a modality (X, Y, Z), one of the last axis's channels where the file is 4D.

    Raises:
        InputError: naming case and file, when the file is unreadable, truncated, not 3D, not finite or constant.
    """
    return as_volume(read_nifti(path, case_id=case_id), case_id=case_id, channel=channel)


def as_volume(file, *, case_id, channel=None):
    """The modality that a `Nifti` holds, checked as `read_volume` says."""
    volume = _scaled(file, case_id=case_id, channel=channel)
    lowest, highest = volume.voxels.min(), volume.voxels.max()
    if not max(abs(float(lowest)), abs(float(highest))) <= LARGEST:
        bad = np.count_nonzero(~(np.abs(volume.voxels) <= LARGEST))
        raise InputError(
            f"Case {case_id}: {file.path} must hold finite numbers; received {bad} voxels that are NaN or infinite."
        )
    if lowest == highest:
        raise InputError(
            f"Case {case_id}: {file.path} must show a brain; received one value, {lowest:g}, in every voxel."
        )
    return volume


def read_segmentation(path, *, case_id):
    """Reads a label map (X, Y, Z), unchecked; `regions.labels_to_classes` checks the labels."""
    return as_segmentation(read_nifti(path, case_id=case_id), case_id=case_id)


def as_segmentation(file, *, case_id):
    """The label map that a `Nifti` holds, unchecked."""
    return _scaled(file, case_id=case_id, channel=None)


def read_probabilities(path, *, case_id, channels):
    """Reads a file of several channels, (X, Y, Z, C), float32: (its `Geometry`, the array).

    Raises:
        InputError: naming case and file, when the file is unreadable or truncated, or does not hold probabilities.
    """
    file = read_nifti(path, case_id=case_id)
    parts = [_scaled(file, case_id=case_id, channel=number) for number in range(channels)]
    voxels = np.stack([part.voxels for part in parts], axis=-1).astype(np.float32, copy=False)
    if not (voxels.min() >= -ROUNDING and voxels.max() <= 1 + ROUNDING):
        raise InputError(
            f"Case {case_id}: {path} must hold probabilities, 0 to 1; received {voxels.min():g} to {voxels.max():g}."
        )
    return parts[0].geometry, voxels


def check_same_geometry(expected, received, *, case_id):
    """Raises `InputError` unless two files of a case, as `Geometry`, have equal shapes and corners in equal places."""
    if tuple(expected.shape) != tuple(received.shape):
        raise InputError(
            f"Case {case_id}: {received.path} must have the shape {format_shape(expected.shape)} of "
            f"{expected.path.name}; received {format_shape(received.shape)}."
        )
    corners = np.array([*itertools.product(*((0, size - 1) for size in expected.shape))])
    apart = [nib.affines.apply_affine(geometry.affine, corners) for geometry in (expected, received)]
    difference = np.abs(apart[0] - apart[1]).max()
    if not difference <= TOLERANCE_MM:
        raise InputError(
            f"Case {case_id}: {received.path} must have the affine of {expected.path.name}; received one that moves a "
            f"corner by {difference:g} mm (axes {axis_codes(received.affine)}, expected {axis_codes(expected.affine)})."
        )


def axis_codes(affine):
    """The directions in which the three axes run, such as "LPS" or "RAS"."""
    return "".join(code or "?" for code in nib.aff2axcodes(affine))


def spacing_of(affine):
    """The edges of a voxel along the file's three axes."""
    return tuple(float(size) for size in nib.affines.voxel_sizes(affine))


def write_volume(path, voxels, *, like, before_rename=None):
    """Writes voxels (X, Y, Z) or (X, Y, Z, C) with the affine and header geometry of the volume `like`.

    The file is complete or absent: it is written under a temporary name, given to `before_rename`, then renamed.

    Raises:
        WriteError: when the folder cannot be written to, or the disk is full.
    """
    header = like.header.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(voxels, like.affine, header)
    with atomic(Path(path), before_rename=before_rename) as temporary:
        nib.save(image, temporary)


def check_shape(shape, path, *, case_id, channel=None):
    """Raises `InputError` unless a file's shape is that of a volume, or holds the channel in its fourth axis."""
    if len(shape) < 3 or min(shape[:3]) < 2 or (channel is None and math.prod(shape[3:]) != 1):
        raise InputError(f"Case {case_id}: {path} must be a 3D volume; received the shape {format_shape(shape)}.")
    if channel is not None and not (len(shape) == 4 and channel < shape[3]):
        raise InputError(
            f"Case {case_id}: {path} must hold at least {channel + 1} channels in its fourth axis; "
            f"received the shape {format_shape(shape)}."
        )


def _scaled(file, *, case_id, channel):
    """Takes the channel and applies the header's scaling (only then are the voxels copied)."""
    shape = file.stored.shape
    check_shape(shape, file.path, case_id=case_id, channel=channel)
    voxels = file.stored.reshape(*shape[:3], -1, order="F")[..., channel or 0]
    slope, inter = file.header.get_slope_inter()
    if (slope, inter) not in ((None, None), (1, 0)):
        voxels = nib.volumeutils.apply_read_scaling(voxels, slope, inter).astype(np.float32)
    return Volume(voxels, file.header, file.path)


def read_label_classes(segmentation, case):
    """Translates a label map in its file's axes to classes (X, Y, Z), uint8, naming case and file where it cannot."""
    try:
        return labels_to_classes(segmentation.voxels, case.convention)
    except InputError as error:
        note = f" ({case.layout.note})" if case.layout.note else ""
        raise InputError(f"Case {case.id}: {segmentation.path}: {error}{note}.") from None


def notes_of(volume, *, spacing_mm=None):
    """What a person should know about a modality before trusting it: a list of clauses, mostly empty."""
    notes = geometry_notes(volume.header, spacing_mm=spacing_mm)
    if np.count_nonzero(volume.voxels) > MAX_NONZERO_SHARE * volume.voxels.size:
        notes.append("hardly any voxel is 0: the skull should be stripped and the background 0")
    return notes


def has_directions(header):
    """Whether a NIfTI header says where its axes lead; else every reader guesses, and not every one the same."""
    return bool(header["sform_code"]) or bool(header["qform_code"])


def direction_notes(header):
    """What a person should know about how a file says where its axes lead: a list of clauses, mostly empty."""
    notes = []
    sform, sform_code = header.get_sform(coded=True)
    try:
        qform, qform_code = header.get_qform(coded=True)
    except (ValueError, nib.spatialimages.HeaderDataError):  # Else `_header` would have refused the file.
        qform, qform_code = None, 0
        notes.append("the qform is damaged; the sform is used")
    if not sform_code and not qform_code:
        notes.append("neither sform nor qform is set, so the directions of its axes are a guess")
    elif sform_code and qform_code and np.abs(sform - qform).max() > FORMS_TOLERANCE_MM:
        notes.append(f"sform and qform differ by up to {np.abs(sform - qform).max():.3g} mm; the sform is used")
    return notes


def geometry_notes(header, *, spacing_mm=None):
    """What a person should know about a file's geometry before trusting it: a list of clauses, mostly empty."""
    notes = direction_notes(header)
    affine = header.get_best_affine()
    edges = spacing_of(affine)
    if spacing_mm is None and max(abs(edge - ISOTROPIC_MM) for edge in edges) > FORMS_TOLERANCE_MM:
        notes.append(f"voxels of {format_shape(f'{edge:.3g}' for edge in edges)} mm, not resampled to 1 mm")
    tilt = np.rad2deg(nib.affines.obliquity(affine)).max()
    if tilt > 1:
        notes.append(f"axes tilted by up to {tilt:.0f} degrees; they are taken as the nearest straight ones")
    return notes
