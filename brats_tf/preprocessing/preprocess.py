"""One way in: the same functions prepare a case for training, for prediction and for looking at it."""

import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from brats_tf.data import volumes
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.nifti import by, read_nifti
from brats_tf.errors import InputError
from brats_tf.preprocessing.transforms import LINEAR, NEAREST, Grid, brain_statistics, z_score
from brats_tf.regions import labels_to_classes

ISOTROPIC_MM = 1.0  # What every BraTS file has.
FORMS_TOLERANCE_MM = 1e-2
MOST_VOXELS = 1024**3  # Of a resampled volume; more is a spacing in other units than mm.


@dataclass(frozen=True)
class PreparedCase:
    """A case as networks take it, with what the way back needs."""

    volume: np.ndarray  # (H, W, D, C), float32, one channel per modality
    classes: np.ndarray | None  # (H, W, D), uint8, see regions.CLASSES; None without truth
    reference: volumes.Volume  # the file whose geometry a prediction takes
    grid: Grid

    def to_file_axes(self, cropped):
        """Brings an array of the crop (H, W, D[, C]) back to the file's axes and shape (X, Y, Z[, C])."""
        return self.grid.back(cropped, order=LINEAR if cropped.dtype.kind == "f" else NEAREST)


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
    reference = read.volume(first)
    grid = grid_of(reference, crop, spacing_mm, case_id=case.id)
    channels = []
    for modality in modalities:
        volume = read.volume(modality)
        volumes.check_same_geometry(reference.geometry, volume.geometry, case_id=case.id)
        channels.append(prepare_volume(volume, grid))
    classes = None
    if with_truth:
        segmentation = read.segmentation()
        volumes.check_same_geometry(reference.geometry, segmentation.geometry, case_id=case.id)
        classes = grid.there(read_classes(segmentation, case))
    return PreparedCase(np.stack(channels, axis=-1), classes, reference, grid)


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
    if math.prod(grid.whole_shape) > MOST_VOXELS:
        raise InputError(
            f"Case {case_id}: {volume.path} would have {by(grid.whole_shape)} voxels at {spacing_mm:g} mm; its voxels "
            f"have {by(f'{edge:.3g}' for edge in volumes.spacing_mm(volume.affine))} mm."
        )
    return grid


def prepare_volume(volume, grid):
    """One modality as networks take it: a `Volume` -> (H, W, D), float32."""
    mean, spread = brain_statistics(volume.voxels)
    if grid.spacing_mm is None:
        return z_score(grid.there(volume.voxels), mean, spread)
    # Scored first, so that the brain's rim is blended with a background of 0.
    return grid.there(z_score(volume.voxels, mean, spread), order=LINEAR)


def read_classes(segmentation, case):
    """Translates a label map in its file's axes to classes (X, Y, Z), uint8, naming case and file if it cannot."""
    try:
        return labels_to_classes(segmentation.voxels, case.convention)
    except InputError as error:
        note = f" ({case.layout.note})" if case.layout.note else ""
        raise InputError(f"Case {case.id}: {segmentation.path}: {error}{note}.") from None


def geometry_notes(header, *, spacing_mm=None):
    """What a person should know about a file's geometry before trusting it: a list of clauses, mostly empty."""
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
    affine = header.get_best_affine()
    edges = volumes.spacing_mm(affine)
    if spacing_mm is None and max(abs(edge - ISOTROPIC_MM) for edge in edges) > FORMS_TOLERANCE_MM:
        notes.append(f"voxels of {by(f'{edge:.3g}' for edge in edges)} mm, not resampled to 1 mm")
    tilt = np.rad2deg(nib.affines.obliquity(affine)).max()
    if tilt > 1:
        notes.append(f"axes tilted by up to {tilt:.0f} degrees; they are taken as the nearest straight ones")
    return notes
