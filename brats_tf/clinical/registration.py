"""Rigid registration of two images of one head: mutual information, from coarse to fine, checked at its end."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from brats_tf.clinical.grids import empty_image, grid_of, rigid_matrix, to_array
from brats_tf.errors import InputError

BINS = 32
COARSE_MM, FINE_MM = 6.0, (4.0, 2.0, 1.0)  # Voxels of the search and of the refinement.
CHECK_MM = 2.0  # Voxels for the check at the end.
SMOOTHING = 0.5  # Of a level, in its voxels.
SAMPLES = (1.0, 0.5, 0.25)  # Share of the head's voxels, at each level of `FINE_MM`.
START_DEGREES = (-15.0, 0.0, 15.0)
TRIED = 4  # Starts that are refined on the coarse level.
LEAST_OVERLAP = 0.8  # Dice of the two heads where both images have voxels.
LEAST_GAIN = 1.02  # Mutual information at the end, over that at the end moved by `MOVED_MM`.
MOVED_MM = 8.0
STRIPPED = 0.4  # Share of voxels that are exactly 0 in an image of a brain alone.
SEED = 1


@dataclass(frozen=True)
class Registration:
    """A rigid transform and how good it is.

    Attributes:
        matrix: (4, 4), points of the fixed image to points of the moving one, LPS mm.
        information: mutual information of the two images, in nats.
        overlap: Dice of the two heads, within the field of view of both.
        degrees, shift_mm: of rotation; of the head's centre.
    """

    matrix: np.ndarray
    information: float
    overlap: float
    degrees: float
    shift_mm: float

    def to_dict(self):
        """For JSON."""
        return {
            "matrix_lps_mm": np.round(self.matrix, 6).tolist(),
            "mutual_information_nats": round(self.information, 4),
            "overlap": round(self.overlap, 4),
            "rotation_degrees": round(self.degrees, 3),
            "shift_mm": round(self.shift_mm, 3),
        }


def foreground(image):
    """The head, or the brain where the skull is stripped, as a SimpleITK image of 0 and 1, holes filled."""
    stripped = (to_array(image) == 0).mean() > STRIPPED
    mask = image > 0 if stripped else sitk.OtsuThreshold(sitk.SmoothingRecursiveGaussian(image, 1.0), 0, 1, 128)
    mask = sitk.BinaryMorphologicalClosing(mask, [2, 2, 2])
    labelled = sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True)
    return sitk.BinaryFillhole(labelled == 1)


def register(fixed, moving, *, name):
    """Finds the rigid transform from `fixed` to `moving`.

    Several starts, on a coarse level: the scanner's coordinates, the heads' centres, and both turned; the best of them
    is refined on finer levels.

    Args:
        fixed, moving: SimpleITK images of one head, of any contrast, spacing and orientation.
        name: of the moving series, in messages.

    Returns:
        `Registration`.

    Raises:
        InputError: when the heads do not overlap, or the images say no more about each other than when moved apart.
    """
    fixed, moving = (sitk.Cast(image, sitk.sitkFloat32) for image in (fixed, moving))
    heads = foreground(fixed), foreground(moving)
    centres = [_centroid(head) for head in heads]
    starts = _starts(*centres)
    level = _level(fixed, heads[0], COARSE_MM), _shrink(moving, COARSE_MM)
    ranked = sorted(starts, key=lambda start: _metric(*level, start))[:TRIED]
    refined = [_optimise(*level, start, share=1.0, step=4.0) for start in ranked]
    best = min(refined, key=lambda start: _metric(*level, start))
    for edge, share in zip(FINE_MM, SAMPLES, strict=True):
        level = _level(fixed, heads[0], edge), _shrink(moving, edge)
        best = _optimise(*level, best, share=share, step=edge)
    level = _level(fixed, heads[0], CHECK_MM), _shrink(moving, CHECK_MM)
    return _checked(best, level, heads, name)


def _starts(fixed_centre, moving_centre):
    """Rigid transforms around the fixed head's centre."""
    shifts = [np.zeros(3), moving_centre - fixed_centre]
    angles = np.radians(START_DEGREES)
    starts = []
    for shift in shifts:
        for x in angles:
            for y in angles:
                for z in angles:
                    start = sitk.Euler3DTransform()
                    start.SetCenter(fixed_centre.tolist())
                    start.SetRotation(float(x), float(y), float(z))
                    start.SetTranslation(shift.tolist())
                    starts.append(start)
    return starts


def _centroid(mask):
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(mask)
    return np.array(statistics.GetCentroid(1))


def _level(image, head, edge):
    """An image on voxels of about `edge` mm in the box around the head, and the head, wider by 5 mm, there."""
    box = sitk.LabelShapeStatisticsImageFilter()
    box.Execute(head)
    first, size = np.split(np.array(box.GetBoundingBox(1)), 2)
    spacing = np.array(image.GetSpacing())
    margin = np.ceil(6 / spacing).astype(int)
    low = np.maximum(first - margin, 0)
    high = np.minimum(first + size + margin, image.GetSize())
    image, head = (one[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] for one in (image, head))
    small = _shrink(image, edge)
    wider = sitk.BinaryDilate(head, [int(n) for n in np.ceil(5 / spacing)])
    return small, sitk.Resample(wider, small, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def _shrink(image, edge):
    """An image smoothed for voxels of about `edge` mm, on a whole fraction of its voxels."""
    factors = [max(round(edge / one), 1) for one in image.GetSpacing()]
    return sitk.Shrink(_smooth(image, edge), factors)


def _smooth(image, edge):
    """Smoothed for voxels of `edge` mm, along the axes that have smaller ones."""
    sigmas = [SMOOTHING * np.sqrt(max(edge**2 - one**2, 0)) for one in image.GetSpacing()]
    if max(sigmas) < 0.05:
        return image
    return sitk.SmoothingRecursiveGaussian(image, [max(sigma, 1e-3) for sigma in sigmas])


def _method(level, share=1.0):
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(level[1])
    method.SetInterpolator(sitk.sitkLinear)
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, SEED)
    return method


def _metric(level, moving, start):
    """Minus the mutual information."""
    method = _method(level)
    method.SetInitialTransform(start)
    try:
        return method.MetricEvaluate(level[0], moving)
    except RuntimeError:  # Nothing of one image lies in the other.
        return 0.0


def _optimise(level, moving, start, *, share, step):
    transform = sitk.Euler3DTransform(start)
    method = _method(level, share)
    method.SetOptimizerAsRegularStepGradientDescent(step, min(0.01, step / 50), 150, 0.6, 1e-7)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, True)
    try:
        method.Execute(level[0], moving)
    except RuntimeError:
        return sitk.Euler3DTransform(start)
    return transform


def _checked(best, level, heads, name):
    (fixed, mask), moving = level
    information = -_metric((fixed, mask), moving, best)
    moved = []
    for axis in range(3):
        for sign in (-1, 1):
            other = sitk.Euler3DTransform(best)
            shift = np.array(best.GetTranslation())
            shift[axis] += sign * MOVED_MM
            other.SetTranslation(shift.tolist())
            moved.append(-_metric((fixed, mask), moving, other))
    overlap = _overlap(best, *heads)
    if overlap < LEAST_OVERLAP or information < LEAST_GAIN * max(moved):
        raise InputError(
            f"{name} could not be registered: the heads overlap by {overlap:.2f} (at least {LEAST_OVERLAP} expected), "
            f"and moved by {MOVED_MM:g} mm the images tell {max(moved) / max(information, 1e-9):.2f} times as much "
            f"about each other (less than {1 / LEAST_GAIN:.2f} expected)"
        )
    matrix = rigid_matrix(best)
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))))
    centre = np.array(best.GetCenter())
    shift = float(np.linalg.norm(np.array(best.TransformPoint(centre.tolist())) - centre))
    return Registration(matrix, float(information), overlap, degrees, shift)


def _overlap(transform, fixed, moving):
    """Dice of two heads, where both images have voxels."""
    arrays = [
        to_array(sitk.Resample(one, fixed, transform, sitk.sitkNearestNeighbor, 0)) > 0
        for one in (moving, empty_image(grid_of(moving)) + 1)
    ]
    first, (second, seen) = to_array(fixed) > 0, arrays
    return float(2 * (first & second & seen).sum() / max((first & seen).sum() + second.sum(), 1))
