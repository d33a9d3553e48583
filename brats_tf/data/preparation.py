"""One way in: the same function prepares a case for training, for prediction and for looking at it."""

from dataclasses import dataclass

import numpy as np

from brats_tf.data import transforms, volumes
from brats_tf.data.cases import SEGMENTATION
from brats_tf.errors import InputError
from brats_tf.regions import labels_to_classes


@dataclass(frozen=True)
class PreparedCase:
    """A case as networks take it, with what the way back needs."""

    volume: np.ndarray  # (H, W, D, C), float32, one channel per modality
    classes: np.ndarray | None  # (H, W, D), uint8, see regions.CLASSES; None without truth
    reference: volumes.Volume  # the file whose geometry a prediction takes

    def to_file_axes(self, cropped):
        """Brings an array of the crop (H, W, D[, C]) back to the file's axes and shape (X, Y, Z[, C])."""
        shape = transforms.orient(self.reference.voxels, self.reference.affine).shape
        return transforms.unorient(transforms.uncrop(cropped, shape), self.reference.affine)


def prepare_case(case, *, modalities, crop, with_truth):
    """Reads a case's files, checks them, orients, normalises (over the whole brain) and crops them.

    Args:
        case: a `Case`.
        modalities: the channels, in order.
        crop: (H, W, D) in voxels.
        with_truth: whether to read the segmentation too.

    Returns:
        A `PreparedCase`; its reference is the case's FLAIR, or its first modality where FLAIR is not asked for.

    Raises:
        InputError: naming the case, the file, what was expected and what was received.
    """
    reference, channels = None, {}
    for modality in sorted(modalities, key=lambda name: name != "flair"):
        volume = volumes.read_volume(case.require(modality), case_id=case.id)
        reference = reference or volume
        volumes.check_same_geometry(reference, volume, case_id=case.id)
        oriented = transforms.orient(volume.voxels, volume.affine)
        channels[modality] = transforms.crop(transforms.z_score(oriented), crop)
    classes = prepare_truth(case, reference=reference, crop=crop) if with_truth else None
    return PreparedCase(np.stack([channels[name] for name in modalities], axis=-1), classes, reference)


def prepare_truth(case, *, reference, crop):
    """Reads a case's segmentation as classes (H, W, D) of the crop, uint8; `reference` is a `Volume` of the case.

    Raises:
        InputError: when it is missing, of another geometry, or holds labels that its layout does not know.
    """
    segmentation = volumes.read_segmentation(case.require(SEGMENTATION), case_id=case.id)
    volumes.check_same_geometry(reference, segmentation, case_id=case.id)
    classes = read_classes(segmentation, case)
    return transforms.crop(transforms.orient(classes, segmentation.affine), crop)


def read_classes(segmentation, case):
    """Translates a label map in its file's axes to classes (X, Y, Z), uint8, naming case and file if it cannot."""
    try:
        return labels_to_classes(segmentation.voxels, case.convention)
    except InputError as error:
        raise InputError(f"Case {case.id}: {segmentation.path}: {error}.") from None
