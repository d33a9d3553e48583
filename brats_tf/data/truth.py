"""Finds truth to score against: BraTS cases, or a folder or list of segmentations alone."""

import logging
from pathlib import Path

import numpy as np

from brats_tf.data.case import Case
from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.volumes import read_segmentation
from brats_tf.errors import InputError
from brats_tf.regions import BRATS_2017, BRATS_2023, CONVENTIONS, Convention

log = logging.getLogger(__name__)


def find_truth(root: str | Path, labels: str | None = None) -> tuple[list[Case], list[tuple[Path, str]]]:
    """Finds the cases with a segmentation below a folder or in a list; images are not needed.

    Args:
        root: what `find_cases` takes. Where it holds no case of a BraTS layout, each NIfTI file in the folder itself
            counts: `<case>.nii.gz` is the truth of `<case>`.
        labels: the convention of the labels, a key of `regions.CONVENTIONS`; None for what names tell, and where they
            tell nothing, what the labels tell.

    Returns:
        (cases, skipped) as `find_cases` does.

    Raises:
        InputError: when there is no truth, or nothing tells what its labels mean.
    """
    found, skipped = find_cases(root, images=False)
    cases = [case for case in found if case.segmentation]
    if not cases:
        raise InputError(f"{root} must hold truth: a segmentation for each case. Received {len(found)} cases, none.")
    if labels:
        return [case.with_convention(CONVENTIONS[labels]) for case in cases], skipped
    unknown = [case for case in cases if case.convention is None]
    if unknown:
        convention = convention_of(unknown, root)
        cases = [case.with_convention(convention) if case.convention is None else case for case in cases]
    return cases, skipped


def convention_of(cases: list[Case], root: str | Path) -> Convention:
    """What the labels of segmentations tell about their convention. Raises `InputError` where they leave it open.

    4 without 3 is BraTS 2017-2021. 3 without 4 is BraTS 2023 or the Medical Segmentation Decathlon, which number the
    parts otherwise; both together are the years after.
    """
    received: set[float] = set()
    damage = None
    for case in cases:
        try:
            voxels = read_segmentation(case.require(SEGMENTATION), case_id=case.id).voxels
        except InputError as error:
            damage = damage or error  # Scoring it says so, and the others go on.
            continue
        received |= set(np.unique(voxels).tolist())
    if damage and not received:
        raise damage
    if 4 in received and received <= set(BRATS_2017.labels):
        log.info(f"Labels in {root}: 1, 2, 4 as in BraTS 2017-2021; --labels says otherwise.")
        return BRATS_2017
    possible = "brats2023 or msd" if 3 in received and received <= set(BRATS_2023.labels) else ", ".join(CONVENTIONS)
    listed = ", ".join(f"{label:g}" for label in sorted(received)[:10])
    raise InputError(f"What the labels in {root} mean is open: say it with --labels ({possible}). Received: {listed}.")
