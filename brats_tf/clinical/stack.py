"""The slices of a DICOM series as a stack: in which order they lie, and where."""

import numpy as np
import pydicom

from brats_tf.clinical.grids import Grid
from brats_tf.errors import InputError

LEAST_SLICES = 4  # What the registration's smoothing needs.
PARALLEL = 1e-3  # How far the directions of two slices of a series may differ.
SLANT_DEGREES = 0.2  # How far the stack may lean from the normal of its slices.
GAP_TOLERANCE = 0.02  # How far the distance of two slices may differ from the usual one, as a share of it.


def frames_of(series):
    """Of each slice of a DICOM series: (header, index of the frame or None, orientation, position, pixel spacing).

    Raises:
        InputError: when a slice does not say where it lies.
    """
    frames = []
    for header in series.headers:
        per_frame = header.get("PerFrameFunctionalGroupsSequence")
        if not per_frame:
            frames.append((header, None, *(header.get(name) for name in _PLACE)))
            continue
        shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
        for index, group in enumerate(per_frame):
            values = []
            for name, sequence in zip(_PLACE, _SEQUENCES, strict=True):
                holder = next((one[sequence][0] for one in (group, shared) if sequence in one), pydicom.Dataset())
                values.append(holder.get(name))
            frames.append((header, index, *values))
    for _, _, orientation, position, spacing in frames:
        values = ((orientation, "orientation", 6), (position, "position", 3), (spacing, "pixel spacing", 2))
        for value, name, count in values:
            if value is None or np.shape(value) != (count,) or not np.isfinite(np.array(value, float)).all():
                raise InputError(f"{series.name} has slices without {name} in their headers")
    return frames


_PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
_SEQUENCES = ("PlaneOrientationSequence", "PlanePositionSequence", "PixelMeasuresSequence")


def stack(series):
    """The grid of a DICOM series and the order of its slices along it.

    Returns:
        (`Grid` with i along a row, j along a column, k from slice to slice; frames as `frames_of` has them, by k).

    Raises:
        InputError: when the slices are no stack: too few, of several orientations or sizes, unevenly spaced, shifted
            sideways, one place twice.
    """
    frames = frames_of(series)
    sizes = {(int(header.Columns), int(header.Rows)) for header in series.headers}
    orientations = np.array([frame[2] for frame in frames], float)
    spacings = np.array([frame[4] for frame in frames], float)
    if len(sizes) > 1 or np.ptp(orientations, axis=0).max() > PARALLEL or np.ptp(spacings, axis=0).max() > PARALLEL:
        raise InputError(f"{series.name} has slices of several sizes or orientations, as localisers have")
    if len(frames) < LEAST_SLICES:
        raise InputError(f"{series.name} must have at least {LEAST_SLICES} slices; received {len(frames)}")
    row, column = orientations[0].reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([frame[3] for frame in frames], float)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        raise InputError(
            f"{series.name} has {int((gaps < 1e-3).sum()) + 1} slices or more at one place, as time series have"
        )
    worst = gaps[np.abs(gaps - usual).argmax()]
    if abs(worst - usual) > max(GAP_TOLERANCE * usual, 0.01):
        raise InputError(
            f"{series.name} has slices {usual:.3g} mm apart, but two that are {worst:.3g} mm apart: slices are missing "
            "or unevenly spaced"
        )
    matrix = np.eye(4)
    first, last = positions[order[0]], positions[order[-1]]
    slant = np.degrees(np.arctan2(np.linalg.norm(np.cross(normal, last - first)), normal @ (last - first)))
    if slant > SLANT_DEGREES:
        raise InputError(
            f"{series.name} has slices that are shifted sideways, by {slant:.2g} degrees from their normal, as with a "
            "tilted gantry; a stack must be rectangular"
        )
    matrix[:3, 0], matrix[:3, 1] = row * spacings[0][1], column * spacings[0][0]
    matrix[:3, 2], matrix[:3, 3] = (last - first) / (len(frames) - 1), first
    return Grid((*sizes.pop(), len(frames)), matrix), [frames[index] for index in order]
