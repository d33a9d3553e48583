"""A folder of predicted label maps: those of `brats-tf predict`, checked against their record, or any others."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brats_tf.data import volumes
from brats_tf.data.layouts import SEGMENTATION, is_nifti, stem
from brats_tf.data.nifti import read_nifti
from brats_tf.errors import InputError
from brats_tf.evaluation.lesionwise import with_margin
from brats_tf.inference.prediction_record import PREDICTION_FILE, hash_of, origin_of, read_prediction_record
from brats_tf.preprocessing.transforms import brain_box
from brats_tf.regions import CONVENTIONS, REGIONS, classes_to_regions
from brats_tf.runtime.files import sha256_of
from brats_tf.runtime.lock import check_unlocked

NAMES = ("{}.nii.gz", "{}.nii", "{}_seg.nii.gz", "{}-seg.nii.gz", "{}_seg.nii", "{}-seg.nii")  # Of a case's label map.


class LabelMaps:
    """The label maps in a folder.

    Args:
        folder: with one of `NAMES` for each case, in the geometry of the case.
        convention: the `regions.Convention` of their labels; None for the recorded one, else that of each case.

    Attributes:
        record: what `prediction_record.read_prediction_record` found; {} for those of other programs.

    Raises:
        InputError: when the folder is missing or being written, or its record is damaged.
    """

    def __init__(self, folder, convention=None):
        self.folder, self.convention = Path(folder), convention
        if not self.folder.is_dir():
            raise InputError(f"The folder of predictions {folder} does not exist or is not a folder.")
        check_unlocked(self.folder)
        self.record = read_prediction_record(self.folder)

    def path(self, case_id):
        """The file of a case. Raises `InputError` when there is none, or more than one."""
        names = NAMES[:1] if self.record else NAMES
        found = [path for name in names if (path := self.folder / name.format(case_id)).is_file()]
        if len(found) != 1:
            received = ", ".join(path.name for path in found) or "none"
            raise InputError(
                f"Case {case_id}: expected its label map {self.folder / names[0].format(case_id)}, received {received}."
            )
        return found[0]

    def read(self, case_id):
        """The label map of a case, a `Volume` of unchecked labels.

        Raises:
            InputError: when the record has no such map, or another one than the file; or the file cannot be read.
        """
        self.check_recorded(case_id)
        file = read_nifti(self.path(case_id), case_id=case_id)
        expected = self.record["cases"][case_id]["sha256"] if self.record else file.sha256
        if file.sha256 != expected:
            raise InputError(
                f"Case {case_id}: {file.path} is not the label map that {PREDICTION_FILE} records: expected the "
                f"SHA-256 {expected[:12]}, received {file.sha256[:12]}. Predict it again."
            )
        return volumes.as_segmentation(file, case_id=case_id)

    def read_classes(self, case):
        """The label map of a case as classes (X, Y, Z), uint8, and its `Geometry`. Raises `InputError` as `read`."""
        labels = self.read(case.id)
        recorded = self.record["cases"][case.id].get("convention") if self.record else None
        convention = self.convention or next((one for one in CONVENTIONS.values() if one.name == recorded), None)
        return volumes.read_label_classes(labels, case.with_convention(convention or case.convention)), labels.geometry

    def check_recorded(self, case_id):
        """Raises `InputError` where there is a record that says nothing good of a case."""
        if self.record and case_id in self.record["pending"]:
            raise InputError(f"Case {case_id}: the prediction stopped before it; predict it again.")
        if not self.record or case_id in self.record["cases"]:
            return
        if case_id in self.record["left_out"]:
            raise InputError(f"Case {case_id}: its prediction was left out: {self.record['left_out'][case_id]}")
        raise InputError(f"Case {case_id}: no prediction by {', '.join(self.record['networks'])}.")

    def origin(self, case_ids):
        """What tells these maps of the cases from others in their place; without a record, by the files' contents."""
        if self.record:
            return origin_of(self.record, case_ids)
        return hash_of({case_id: self._sha256(case_id) for case_id in case_ids})

    def _sha256(self, case_id):
        """That of a case's file; None where it is gone."""
        try:
            return sha256_of(self.path(case_id))
        except InputError:
            return None

    def belongs(self, case_id):
        """Whether these predictions are, or were to be, of a case: what is recorded; without a record, every one."""
        record = self.record
        return not record or case_id in record["cases"] or case_id in record["left_out"] or case_id in record["pending"]

    def is_label_map(self, path):
        """Whether a file is one of these label maps, under this path or another."""
        own = self.folder / Path(path).name
        return own.is_file() and Path(path).exists() and own.samefile(path)

    def without_truth(self, cases):
        """The names of the files that belong to none of the cases, sorted."""
        expected = {name.format(case.id) for case in cases for name in NAMES}
        return sorted(path.name for path in self.folder.iterdir() if is_nifti(path.name) and path.name not in expected)

    def ids(self):
        """The ids of the cases that have a file, as its name tells."""
        names = (stem(path.name) for path in sorted(self.folder.iterdir()) if is_nifti(path.name))
        return [name.removesuffix("_seg").removesuffix("-seg") for name in names]


@dataclass(frozen=True)
class Pair:
    """Truth and prediction of a case in the box around both, with a margin for what lesion-wise scores look at.

    Attributes:
        regions: {region: (truth, prediction)}, masks (X, Y, Z), bool.
        spacing_mm: the edges of a voxel along the file's axes.
        voxels: the size of the whole volume.
        truth_sha256: of the file of the truth.
    """

    regions: dict
    spacing_mm: tuple
    voxels: int
    truth_sha256: str


def read_pair(case, maps):
    """The `Pair` of a case, read and checked."""
    file = read_nifti(case.require(SEGMENTATION), case_id=case.id)
    truth = volumes.as_segmentation(file, case_id=case.id)
    expected = volumes.read_label_classes(truth, case)  # First: its labels tell about other cases, too.
    predicted, geometry = maps.read_classes(case)
    volumes.check_same_geometry(truth.geometry, geometry, case_id=case.id)
    found = brain_box((expected != 0) | (predicted != 0))
    box = with_margin(found or (slice(0, 1),) * expected.ndim, expected.shape)
    pairs = [np.moveaxis(classes_to_regions(np.asarray(one[box])), -1, 0) for one in (expected, predicted)]
    regions = dict(zip(REGIONS, zip(*map(np.ascontiguousarray, pairs), strict=True), strict=True))
    return Pair(regions, volumes.spacing_of(truth.affine), expected.size, file.sha256)
