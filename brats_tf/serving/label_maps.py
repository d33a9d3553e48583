"""From the files of one case to its label map, without a folder of predictions."""

import math
from dataclasses import dataclass

import numpy as np

from brats_tf.data.case import Case
from brats_tf.data.layouts import UNDERSCORED
from brats_tf.data.nifti import read_header
from brats_tf.data.volumes import write_volume
from brats_tf.errors import InputError, enough_memory, format_shape
from brats_tf.inference.ensemble import predict_case, read_case
from brats_tf.inference.predict import final_classes
from brats_tf.regions import classes_to_labels

UPLOAD = "upload"  # The id of every case: names from outside are not used.
MOST_VOXELS = 4 * 256**3  # Of all files of a case; a BraTS case has 4 x 240x240x155.


@dataclass(frozen=True)
class Answer:
    """A label map, as the bytes of a gzipped NIfTI file, and what a person should know about it."""

    content: bytes
    messages: tuple


class LabelMapper:
    """Networks that are loaded once and label case after case, in one thread.

    Args:
        predictors: what `load_ensemble` returned.
        postprocessing: `PostProcessing`.
        convention: the `regions.Convention` of the labels.
    """

    def __init__(self, predictors, postprocessing, convention):
        self.predictors, self.postprocessing, self.convention = predictors, postprocessing, convention

    @property
    def networks(self):
        """{name: SHA-256 of the weights}."""
        return {one.name: one.weights_sha256 for one in self.predictors}

    def warm_up(self):
        """Compiles the networks, so that the first case takes no longer than the others."""
        for predictor in self.predictors:
            predictor.predict(np.ones(predictor.config.input_shape, np.float32))

    def label_map(self, folder, volumes):
        """The label map of {modality: path}, all in one folder: an `Answer`. Raises `InputError` on bad files."""
        voxels = 0
        for path in volumes.values():
            shape = read_header(path, case_id=UPLOAD).get_data_shape()
            voxels += math.prod(int(size) for size in shape)
            if voxels > MOST_VOXELS:
                raise InputError(f"Case {UPLOAD}: too many voxels, with {format_shape(shape)} in {path}.")
        case = Case(UPLOAD, volumes, None, UNDERSCORED, folder).with_convention(self.convention)
        ready = read_case(self.predictors, case)
        path = folder / "label_map.nii.gz"
        with enough_memory(f"Case {UPLOAD}: its label map"):
            classes, _ = final_classes(predict_case(ready), self.postprocessing)
            write_volume(path, classes_to_labels(classes, self.convention), like=ready.prepared.reference)
        notes = (f"Note: {note}." for note in ready.prepared.notes)
        return Answer(path.read_bytes(), (*ready.messages, *notes))
