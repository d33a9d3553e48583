"""Spatial steps and normalisation, each spatial step with its inverse beside it.

H runs front-back, W left-right, D head-foot, whatever order and direction the file's axes have.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

ORIENTATION = ("P", "L", "S")  # Growing indices go to the back, to the patient's left, to the head.
NEAREST, LINEAR = 0, 1  # How resampling fills a voxel.


@dataclass(frozen=True)
class Grid:
    """The transform from one file's axes to the crop that networks see, and its inverse."""

    affine: np.ndarray  # Voxel indices of the file to mm, (4, 4)
    shape: tuple  # (X, Y, Z) of the file
    crop: tuple | None  # (H, W, D); None for the whole volume
    spacing_mm: float | None = None  # The edge of the voxels to resample to; None leaves them as they are

    @property
    def oriented_shape(self):
        """(H, W, D) of the whole volume in the file's own voxels."""
        return tuple(int(self.shape[axis]) for axis in np.argsort(_from_file(self.affine)[:, 0]))

    @property
    def whole_shape(self):
        """(H, W, D) of the whole volume in the voxels of the crop."""
        if self.spacing_mm is None:
            return self.oriented_shape
        sizes = zip(self.oriented_shape, self._oriented_spacing(), strict=True)
        return tuple(max(1, round(size * edge / self.spacing_mm)) for size, edge in sizes)

    @property
    def edges_mm(self):
        """The edges of a voxel of the crop along H, W, D, in mm."""
        edges = self._oriented_spacing() if self.spacing_mm is None else [self.spacing_mm] * 3
        return tuple(map(float, edges))

    @property
    def crop_shape(self):
        """(H, W, D) of what `to_crop` returns."""
        return self.whole_shape if self.crop is None else self.crop

    def to_crop(self, voxels, *, order=NEAREST):
        """Orients, resamples if asked, crops: (X, Y, Z[, C]) -> (H, W, D[, C])."""
        whole = resample(orient(voxels, self.affine), self.whole_shape, order=order)
        return np.ascontiguousarray(whole) if self.crop is None else crop(whole, self.crop)

    def to_file(self, cropped, *, order=NEAREST):
        """The inverse of `to_crop`: (H, W, D[, C]) -> (X, Y, Z[, C]), zero outside the crop."""
        whole = uncrop(cropped, self.whole_shape)
        return unorient(resample(whole, self.oriented_shape, order=order), self.affine)

    def _oriented_spacing(self):
        return nib.affines.voxel_sizes(self.affine)[np.argsort(_from_file(self.affine)[:, 0])]


def orient(voxels, affine):
    """Brings a file's axes to (H, W, D): (X, Y, Z[, C]) -> (H, W, D[, C]), a view."""
    return nib.orientations.apply_orientation(voxels, _from_file(affine))


def unorient(voxels, affine):
    """The inverse of `orient`: (H, W, D[, C]) -> (X, Y, Z[, C])."""
    back = nib.orientations.ornt_transform(_target(), nib.io_orientation(affine))
    return nib.orientations.apply_orientation(voxels, back)


def resample(voxels, shape, *, order):
    """Fits a volume to another number of voxels over the same extent: (h, w, d[, C]) -> (*shape[, C]).

    `order` is NEAREST (labels) or LINEAR. Its inverse is itself with the old shape, as far as that can be.
    """
    if voxels.shape[:3] == tuple(shape):
        return voxels
    if voxels.ndim == 4:
        return np.stack([resample(channel, shape, order=order) for channel in np.moveaxis(voxels, -1, 0)], axis=-1)
    ratio = np.divide(voxels.shape, shape)
    # Centres of voxels: the middle of the first new one lies half a new voxel from the edge of both.
    return ndimage.affine_transform(
        voxels, ratio, offset=(ratio - 1) / 2, output_shape=tuple(shape), order=order, mode="nearest"
    )


def crop(voxels, size):
    """Cuts out, or pads with zeros to, the image-centred box of `size`: (H, W, D[, C]) -> (*size[, C]).

    Source: embedding paper, Section 2.5 ("centered cropped data").

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


def brain_statistics(voxels):
    """Mean and standard deviation of the brain, the voxels that are not 0, whatever its axes: two floats.

    Source: embedding paper, Section 2.1 ("zero mean and unit variance"); that the background does not count is our
    reading.
    """
    flat = voxels.ravel(order="K")
    inside = np.compress(flat != 0, flat)
    # A binary volume has a brain of one value; it becomes 0.
    return float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64)) or 1.0


def brain_box(voxels):
    """The box around all that is not 0 in (H, W, D), as three slices; None where all is 0."""
    columns = voxels.any(axis=2)
    box = []
    for used in (columns.any(axis=1), columns.any(axis=0), voxels.any(axis=(0, 1))):
        indices = np.flatnonzero(used)
        if not indices.size:
            return None
        box.append(slice(int(indices[0]), int(indices[-1]) + 1))
    return tuple(box)


def z_score(voxels, mean, spread):
    """Shifts and scales the brain, background stays 0: (H, W, D) -> (H, W, D), float32."""
    scored = np.subtract(voxels, mean, dtype=np.float32)
    scored /= np.float32(spread)
    scored *= voxels != 0
    return scored


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
