"""A folder of predictions as the BraTS platform takes it: checked file by file, then zipped."""

import logging
import re
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np

from brats_tf.data import volumes
from brats_tf.data.layouts import is_nifti
from brats_tf.errors import InputError, format_shape
from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.regions import BRATS_2017, BRATS_2023
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic

log = logging.getLogger(__name__)

SHAPE = (240, 240, 155)
# What files of each year are called, and their labels.
NAMES = (
    (re.compile(r"BraTS(17|18|19|20|2021)_([A-Za-z0-9]+_)*\d+\.nii\.gz", re.IGNORECASE), BRATS_2017),
    (re.compile(r"BraTS-[A-Za-z]+-\d{5}(-\d{3})?\.nii\.gz"), BRATS_2023),
)
EARLIEST = (1980, 1, 1, 0, 0, 0)  # A zip of the same files is the same zip.


def package_submission(predictions, archive, *, cases=None, skipped=()):
    """Checks `<predictions>/*.nii.gz` and writes them into a zip.

    Args:
        predictions: the folder of label maps.
        archive: the zip to write; it is complete or absent.
        cases: `Case`s that must all be there, and whose affines the predictions must have; None checks files alone.
        skipped: (path, reason) of what could not be read as a case: an objection each.

    Returns:
        A list of (file name, sentence), one for each objection; the zip is written only when there is none.

    Raises:
        InputError: when the folder holds no label map.
    """
    maps = LabelMaps(predictions)
    paths = sorted(path for path in maps.folder.glob("*.nii.gz") if is_nifti(path.name))
    if not paths:
        raise InputError(f"{predictions} must hold label maps <case>.nii.gz. Received: none.")
    by_name = {f"{case.id}.nii.gz": case for case in cases or ()}
    objections = [
        (name, "is missing: every case needs a prediction.")
        for name in by_name
        if name not in {path.name for path in paths}
    ]
    unfinished = [*maps.record.get("left_out", {}), *maps.record.get("pending", [])]
    known = {f"{case_id}.nii.gz" for case_id in unfinished}
    objections = [(name, sentence) for name, sentence in objections if name not in known]  # Which say why.
    objections += [(f"{case_id}.nii.gz", _complaint(maps, case_id)) for case_id in unfinished]
    objections += [
        (str(path), f"was skipped, so its prediction may be missing: {reason}.")
        for path, reason in skipped
        if not Path(path).resolve().is_relative_to(maps.folder.resolve())  # The predictions may lie among the cases.
    ]
    for path in track(paths, "Checking"):
        if cases is not None and path.name not in by_name:
            objections.append((path.name, "belongs to none of the cases."))
            continue
        try:
            _check(path, maps, by_name.get(path.name))
        except InputError as error:
            objections.append((path.name, str(error)))
    for name, sentence in objections:
        log.info(f"{name}: {sentence}")
    if objections:
        earlier = f"; {archive} is from an earlier call" if Path(archive).exists() else ""
        log.info(f"{len(objections)} objections; no archive was written{earlier}.")
        return objections
    with atomic(Path(archive)) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for path in paths:
            file.writestr(zipfile.ZipInfo(path.name, EARLIEST), path.read_bytes())
    log.info(f"{len(paths)} label maps checked and written to {archive}.")
    return []


def _complaint(maps, case_id):
    """Why a case has no prediction."""
    try:
        maps.check_recorded(case_id)
    except InputError as error:
        return str(error)
    return ""


def _check(path, maps, case):
    """Raises `InputError` unless a label map has the platform's name, shape and labels, and its case's affine."""
    case_id = path.name.removesuffix(".nii.gz")
    convention = next((labels for name, labels in NAMES if name.fullmatch(path.name)), None)
    if convention is None:
        raise InputError(
            "must be named as its case: BraTS20_Validation_001.nii.gz, BraTS-GLI-00001-000.nii.gz or alike."
        )
    convention = case.convention if case else convention
    labels = maps.read(case_id)
    if labels.voxels.shape != SHAPE:
        raise InputError(f"must have the shape {format_shape(SHAPE)}. Received: {format_shape(labels.voxels.shape)}.")
    unknown = np.setdiff1d(np.unique(labels.voxels), convention.labels)
    if unknown.size:
        known = ", ".join(str(label) for label in convention.labels)
        raise InputError(f"must hold the labels {known} ({convention.name}). Received also: {unknown[0]:g}.")
    if not np.allclose(np.abs(nib.affines.voxel_sizes(labels.affine)), 1, atol=1e-3):
        raise InputError("must have voxels of 1 mm.")
    if case:
        name, image = next(iter(case.volumes.items()))
        reference = volumes.read_volume(image, case_id=case_id, channel=case.channels.get(name))
        volumes.check_same_geometry(reference.geometry, labels.geometry, case_id=case_id)
