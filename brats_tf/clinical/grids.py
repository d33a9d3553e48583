"""Where the voxels of an image lie in the patient: grids, and SimpleITK images on them.

Coordinates are DICOM's and SimpleITK's: mm, the axes to the patient's left, to the back, to the head (LPS). NIfTI turns
the first two round (RAS).
"""

import itertools
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import SimpleITK as sitk

_RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MARGIN_MM = 2  # Above the brain, where a mask is longer than a case's grid.
BRATS_SIZE = (240, 240, 155)  # Voxels of a BraTS case, along left, back, head; of 1 mm.


@dataclass(frozen=True)
class Grid:
    """Voxel indices (i, j, k) to mm: `size` is (X, Y, Z), `matrix` (4, 4) maps an index to a point in LPS.

    >>> Grid((2, 3, 4), np.diag([1.0, 1.0, 5.0, 1.0])).spacing
    (1.0, 1.0, 5.0)
    """

    size: tuple
    matrix: np.ndarray

    @property
    def spacing(self):
        """Edges of a voxel along i, j, k, in mm."""
        return tuple(float(edge) for edge in np.linalg.norm(self.matrix[:3, :3], axis=0))

    @property
    def affine(self):
        """Voxel index to mm as NIfTI has it, (4, 4)."""
        return _RAS_LPS @ self.matrix

    def corners(self):
        """The centres of the eight outermost voxels, (8, 3), in mm."""
        ends = np.array([*itertools.product(*((0, size - 1) for size in self.size))])
        return ends @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def to_dict(self):
        """What `from_dict` takes, for JSON."""
        return {"size": list(self.size), "matrix_lps_mm": np.round(self.matrix, 6).tolist()}

    @classmethod
    def from_dict(cls, values):
        """The grid that `to_dict` described."""
        return cls(tuple(values["size"]), np.array(values["matrix_lps_mm"], float))


def grid_of(image):
    """The grid of a SimpleITK image."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize(), matrix)


def grid_of_volume(volume):
    """The grid of a `data.volumes.Volume`."""
    return Grid(volume.voxels.shape, _RAS_LPS @ volume.affine)


def to_image(voxels, grid):
    """A SimpleITK image of voxels (X, Y, Z) on a grid; bool becomes uint8."""
    array = np.asarray(voxels)
    array = array.astype(np.uint8 if array.dtype == bool else array.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    edges = np.array(grid.spacing)
    image.SetSpacing(edges.tolist())
    image.SetDirection((grid.matrix[:3, :3] / edges).ravel().tolist())
    image.SetOrigin(grid.matrix[:3, 3].tolist())
    return image


def to_array(image):
    """The voxels of a SimpleITK image, (X, Y, Z)."""
    return sitk.GetArrayFromImage(image).T


def empty_image(grid):
    """An image of zeros on a grid, for SimpleITK's filters that take their grid from an image."""
    return to_image(np.zeros(grid.size, np.uint8), grid)


def brats_grid(centre, size=BRATS_SIZE, *, top=None):
    """A grid as every BraTS file has it, 1 mm along left, back and head, around a point in mm.

    With `top`, which is a height in mm, the grid is moved up until it ends `MARGIN_MM` above it.
    """
    matrix = np.eye(4)
    matrix[:3, 3] = np.asarray(centre) - (np.array(size) - 1) / 2
    if top is not None:
        matrix[2, 3] = max(matrix[2, 3], top + MARGIN_MM - (size[2] - 1))
    return Grid(tuple(size), matrix)


def centre_of(mask):
    """The middle of the box around a mask, a SimpleITK image of 0 and 1, in mm."""
    box = sitk.LabelShapeStatisticsImageFilter()
    box.Execute(mask)
    first, size = np.split(np.array(box.GetBoundingBox(1)), 2)
    return np.array(mask.TransformContinuousIndexToPhysicalPoint((first + (size - 1) / 2).tolist()))


def largest_part(mask):
    """The largest part of a mask, a SimpleITK image of 0 and 1, whose voxels touch each other."""
    return sitk.RelabelComponent(sitk.ConnectedComponent(sitk.Cast(mask, sitk.sitkUInt8))) == 1


def top_of(mask):
    """The height of the highest voxel of a mask, a SimpleITK image of 0 and 1, in mm."""
    up = grid_of(mask).matrix[2]
    return float((np.argwhere(to_array(mask)) @ up[:3] + up[3]).max())


def resample(image, grid, transform, *, kind="spline"):
    """An image on another grid, 0 outside of it.

    Args:
        image: a SimpleITK image.
        grid: `Grid`.
        transform: from points of the grid to points of the image.
        kind: "spline" for intensities (cubic B-spline; where the grid is coarser, smoothed before), "linear" for
            probabilities, "nearest" for labels.
    """
    interpolators = {"spline": sitk.sitkBSpline, "linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}
    if kind == "spline":
        coarser = [max(to / have, 1.0) for to, have in zip([min(grid.spacing)] * 3, image.GetSpacing(), strict=True)]
        sigmas = [
            0.42 * np.sqrt(factor**2 - 1) * edge for factor, edge in zip(coarser, image.GetSpacing(), strict=True)
        ]
        image = sitk.Cast(image, sitk.sitkFloat32)
        if max(coarser) > 1.05:
            image = sitk.SmoothingRecursiveGaussian(image, [max(sigma, 1e-3) for sigma in sigmas])
    return sitk.Resample(image, empty_image(grid), transform, interpolators[kind], 0.0, image.GetPixelID())


def rigid_matrix(transform):
    """A SimpleITK transform that is affine as a matrix, (4, 4), of points in LPS."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    axes = [np.array(transform.TransformPoint(tuple(point))) - origin for point in np.eye(3)]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.array(axes).T, origin
    return matrix


def matrix_transform(matrix):
    """The SimpleITK transform of a matrix, (4, 4), of points in LPS."""
    matrix = np.asarray(matrix, float)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def header_on(grid):
    """A NIfTI header that lies on a `Grid`, for `write_volume`."""
    header = nib.Nifti1Header()
    header.set_data_shape(grid.size)
    header.set_sform(grid.affine, code=1)
    header.set_qform(grid.affine, code=1, strip_shears=True)
    header.set_xyzt_units("mm", "sec")
    return header
