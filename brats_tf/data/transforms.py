"""Spatial steps and normalisation, each spatial step with its inverse beside it.

H runs front-back, W left-right, D head-foot, whatever order and direction the file's axes have.
"""

import nibabel as nib
import numpy as np

ORIENTATION = ("P", "L", "S")  # Growing indices go to the back, to the patient's left, to the head.


def orient(voxels, affine):
    """Brings a file's axes to (H, W, D): (X, Y, Z[, C]) -> (H, W, D[, C])."""
    return nib.orientations.apply_orientation(voxels, _from_file(affine))


def unorient(voxels, affine):
    """The inverse of `orient`: (H, W, D[, C]) -> (X, Y, Z[, C])."""
    back = nib.orientations.ornt_transform(_target(), nib.io_orientation(affine))
    return nib.orientations.apply_orientation(voxels, back)


def crop(voxels, size):
    """Cuts out, or pads with zeros to, the image-centred box of `size`: (H, W, D[, C]) -> (*size[, C]).

    Source: paper A, Section 2.5 ("centered cropped data").

    >>> crop(np.arange(5).reshape(1, 1, 5), (1, 1, 3)).ravel()
    array([1, 2, 3])
    """
    result = np.zeros((*size, *voxels.shape[3:]), voxels.dtype)
    inside, outside = _overlap(voxels.shape[:3], size)
    result[outside] = voxels[inside]
    return result


def uncrop(voxels, shape):
    """The inverse of `crop`, zero outside the box: (h, w, d[, C]) -> (*shape[, C]).

    >>> uncrop(np.array([[[1, 2, 3]]]), (1, 1, 5)).ravel()
    array([0, 1, 2, 3, 0])
    """
    result = np.zeros((*shape, *voxels.shape[3:]), voxels.dtype)
    inside, outside = _overlap(shape, voxels.shape[:3])
    result[inside] = voxels[outside]
    return result


def z_score(voxels):
    """Zero mean and unit variance over the brain (voxels that are not 0), background stays 0: (H, W, D), float32.

    Source: paper A, Section 2.1 ("zero mean and unit variance"); that the background does not count is our reading.
    """
    brain = voxels != 0
    inside = voxels[brain].astype(np.float64)
    spread = inside.std() or 1.0  # A binary volume has a brain of one value; it becomes 0.
    return np.where(brain, (voxels - inside.mean()) / spread, 0).astype(np.float32)


def _target():
    return nib.orientations.axcodes2ornt(ORIENTATION)


def _from_file(affine):
    return nib.orientations.ornt_transform(nib.io_orientation(affine), _target())


def _overlap(shape, size):
    """Where the centred box of `size` meets a volume of `shape`: slices into the volume, slices into the box."""
    inside, outside = [], []
    for length, target in zip(shape, size, strict=True):
        start = (length - target) // 2
        inside.append(slice(max(start, 0), max(start, 0) + min(length, target)))
        outside.append(slice(max(-start, 0), max(-start, 0) + min(length, target)))
    return tuple(inside), tuple(outside)
