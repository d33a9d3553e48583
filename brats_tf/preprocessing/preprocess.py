"""Prepares one case: the same functions for training, prediction and figures."""

import math
from dataclasses import dataclass

import numpy as np

from brats_tf.data import volumes
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.nifti import read_nifti
from brats_tf.errors import InputError, format_shape
from brats_tf.preprocessing.transforms import LINEAR, NEAREST, Grid, brain_statistics, z_score

MAX_OUTSIDE = 0.25  # Share of the brain outside the crop; in BraTS, 192x160x108 leaves out an eighth at most.
MAX_VOXELS = 512**3  # Of a resampled volume; more is a spacing in other units than mm, or too small a one.


@dataclass(frozen=True)
class PreparedCase:
    """A case as networks take it, with what the way back needs."""

    volume: np.ndarray | None  # (H, W, D, C), float32, one channel per modality; None once it is predicted
    classes: np.ndarray | None  # (H, W, D), uint8, see regions.CLASSES; None without truth
    reference: volumes.Volume  # the file whose geometry a prediction takes, without its voxels
    grid: Grid
    notes: tuple = ()  # what a person should know about its files

    def to_file_axes(self, cropped):
        """Brings an array of the crop (H, W, D[, C]) back to the file's axes and shape (X, Y, Z[, C])."""
        return self.grid.to_file(cropped, order=LINEAR if cropped.dtype.kind == "f" else NEAREST)


def prepare_case(case, *, modalities, crop, with_truth, spacing_mm=None):
    """Reads a case's files, checks them, orients, normalises (over the whole brain) and crops them.

    Args:
        case: a `Case`.
        modalities: the channels, in order.
        crop: (H, W, D) in voxels; None takes the whole volume.
        with_truth: whether to read the segmentation too.
        spacing_mm: the edge of the cubic voxels to resample to; None takes the file's voxels as they are.

    Returns:
        A `PreparedCase`; its reference is the case's FLAIR, or its first modality where FLAIR is not asked for.

    Raises:
        InputError: naming the case, the file, what was expected and what was received.
    """
    read = Reader(case)
    first = min(modalities, key=lambda name: name != "flair")
    volume = read.volume(first)
    reference, geometry = volume.without_voxels(), volume.geometry
    grid = grid_of(volume, crop, spacing_mm, case_id=case.id)
    prepared, notes = np.empty((*grid.crop_shape, len(modalities)), np.float32), {}
    for channel, modality in enumerate(modalities):
        volume = read.volume(modality)
        notes |= dict.fromkeys(volumes.notes_of(volume, spacing_mm=spacing_mm))
        volumes.check_same_geometry(geometry, volume.geometry, case_id=case.id)
        prepared[..., channel] = prepare_volume(volume, grid)
        if channel == 0:
            notes |= dict.fromkeys(crop_notes(volume, grid, case_id=case.id))
    classes = None
    if with_truth:
        segmentation = read.segmentation()
        volumes.check_same_geometry(geometry, segmentation.geometry, case_id=case.id)
        classes = grid.to_crop(volumes.read_label_classes(segmentation, case))
    return PreparedCase(prepared, classes, reference, grid, tuple(notes))


class Reader:
    """Reads the files of one case; one that holds several channels is read once if they are asked for in a row."""

    def __init__(self, case):
        self.case, self._last = case, None

    def file(self, part):
        """The `Nifti` of a modality or of "seg"."""
        path = self.case.require(part)
        if self._last is None or self._last.path != path:
            self._last = read_nifti(path, case_id=self.case.id)
        return self._last

    def volume(self, modality):
        """The checked `Volume` of a modality."""
        channel = self.case.channels.get(modality)
        return volumes.as_volume(self.file(modality), case_id=self.case.id, channel=channel)

    def segmentation(self):
        """The `Volume` of labels, unchecked."""
        return volumes.as_segmentation(self.file(SEGMENTATION), case_id=self.case.id)


def grid_of(volume, crop, spacing_mm, *, case_id):
    """The `Grid` of a volume. Raises `InputError` when it would be resampled to an impossible size."""
    grid = Grid(volume.affine, volume.voxels.shape, crop and tuple(crop), spacing_mm)
    if spacing_mm is not None and math.prod(grid.whole_shape) > MAX_VOXELS:
        raise InputError(
            f"Case {case_id}: {volume.path} would have {format_shape(grid.whole_shape)} voxels at {spacing_mm:g} mm, "
            f"more than {MAX_VOXELS / 1e6:.0f} million; its voxels have "
            f"{format_shape(f'{edge:.3g}' for edge in volumes.spacing_of(volume.affine))} mm."
        )
    return grid


def crop_notes(volume, grid, *, case_id):
    """What a person should know about how much of a modality's brain the crop holds, a list of clauses.

    Raises:
        InputError: when it holds none.
    """
    if grid.crop is None:
        return []
    brain = (volume.voxels != 0).view(np.uint8)  # Not what is left after the z-score, which a binary volume loses.
    inside = np.count_nonzero(grid.to_crop(brain)) * math.prod(grid.oriented_shape) / math.prod(grid.whole_shape)
    brain, size = np.count_nonzero(brain), format_shape(grid.crop_shape)
    if not inside and brain:
        raise InputError(
            f"Case {case_id}: the brain must lie in the middle of the volume, where the crop {size} is. Received: "
            f"{volume.path}, which is 0 there. Cut it to the brain first."
        )
    return [f"over a quarter of the brain lies outside the crop {size}"] if inside < (1 - MAX_OUTSIDE) * brain else []


def prepare_volume(volume, grid):
    """One modality as networks take it: a `Volume` -> (H, W, D), float32."""
    mean, spread = brain_statistics(volume.voxels)
    if grid.spacing_mm is None:
        return z_score(grid.to_crop(volume.voxels), mean, spread)
    # Scored first, so that the brain's rim is blended with a background of 0.
    return grid.to_crop(z_score(volume.voxels, mean, spread), order=LINEAR)
