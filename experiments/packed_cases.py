"""Cases as arrays for machines without their files, and label maps of those arrays scored against the files.

`pack` needs the files and `CaseScorer` too; what is trained between them needs neither.
"""

import json
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from brats_tf.data.case import patient_of
from brats_tf.data.notes import log_skipped, name_some
from brats_tf.errors import InputError, reason_of
from brats_tf.regions import MODALITIES, REGIONS
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic

PARTS = ("training", "validation")
LEVELS = 12  # Of a z-score's unit: a step is 1/12 of the brain's standard deviation, and 8 bits reach to 10.6 of it.


def pack(folders, folder, *, crop, spacing_mm):
    """Prepares the cases of {part: folder} and writes `<folder>/<part>.npz`; z-scores become 8-bit numbers."""
    from brats_tf.data.discovery import find_cases
    from brats_tf.preprocessing.preprocess import prepare_case

    found = {}
    for part, source in folders.items():
        found[part], skipped = find_cases(source)
        log_skipped(skipped)
    _check_apart(found)
    folder.mkdir(parents=True, exist_ok=True)
    for part, cases in found.items():
        settings = {"modalities": MODALITIES, "crop": crop, "spacing_mm": spacing_mm, "with_truth": True}
        prepared = [prepare_case(case, **settings) for case in track(cases, "Preparing")]
        volumes = np.stack([quantised(one.volume) for one in prepared])
        classes = np.stack([one.classes for one in prepared])
        arrays = {"volumes": volumes, "classes": classes, "ids": [case.id for case in cases]}
        with atomic(folder / f"{part}.npz") as temporary:
            np.savez_compressed(temporary, **arrays, files=_files(cases), crop=crop, spacing_mm=spacing_mm)


def _check_apart(found):
    """Raises `InputError` where a patient of one part is in another too, who would be scored by what he has trained."""
    twice = sorted(set.intersection(*({case.patient for case in cases} for cases in found.values())))
    if twice:
        raise InputError(f"TRAINING and VALIDATION must hold different patients. Received in both: {name_some(twice)}.")


def _files(cases):
    """Names, sizes and times of the files of some cases, as one text."""
    from brats_tf.data.case import size_and_time, source_files

    truth = [size_and_time(case.segmentation, case_id=case.id) if case.segmentation else None for case in cases]
    return json.dumps([[source_files(case), its] for case, its in zip(cases, truth, strict=True)])


def check(folders, folder, *, crop, spacing_mm):
    """Raises `InputError` unless `folder` holds what `pack` would write of the cases of {part: folder}."""
    from brats_tf.data.discovery import find_cases
    from brats_tf.runs.folder import describe_differences

    found = {part: find_cases(source)[0] for part, source in folders.items()}
    _check_apart(found)
    expected = {"crop": list(crop), "spacing_mm": spacing_mm}
    expected |= {part: [case.id for case in cases] for part, cases in found.items()}
    received, changed = cropped(folder), []
    for part, cases in found.items():
        now = _files(cases)
        with opened(folder / f"{part}.npz") as file:
            received[part] = file["ids"].tolist()
            changed += [part] if "files" in file.files and str(file["files"]) != now else []
    if differences := describe_differences(received, expected):
        raise InputError(f"{folder} holds cases packed with {differences}: name another folder with --out.")
    if changed:
        raise InputError(
            f"{folder} holds cases whose files have changed since, of {' and '.join(changed)}: name another folder "
            "with --out."
        )


@contextmanager
def opened(path):
    """The arrays of a file that `pack` wrote. Raises `InputError` where it is damaged."""
    try:
        with open(path, "rb") as content, np.load(content) as file:
            yield file
    except (InputError, FileNotFoundError, PermissionError):
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} must be what `pack` wrote: {reason_of(error)}. Remove it, to pack it again."
        ) from error


def quantised(volume):
    """z-scores as int8, 0 only where they are 0: any shape -> the same shape."""
    levels = np.clip(np.round(volume * LEVELS), -127, 127)
    return np.where((volume != 0) & (levels == 0), np.sign(volume), levels).astype(np.int8)


def unpack(folder, part):
    """What `pack` wrote: volumes (N, H, W, D, 4) float16, classes (N, H, W, D) uint8, ids."""
    with opened(folder / f"{part}.npz") as file:
        return (file["volumes"] / np.float16(LEVELS)).astype(np.float16), file["classes"], file["ids"].tolist()


@dataclass(frozen=True)
class Cases:
    """All cases of a packed folder, and which of them train.

    Attributes:
        volumes: (N, H, W, D, C) float16.
        classes: (N, H, W, D) uint8.
        ids: N case ids.
        training: indices of the cases that train.
        validation: indices of those that are predicted.
        steps: of an epoch.
        fold: (number from 0, count), or () without folds.
    """

    volumes: np.ndarray
    classes: np.ndarray
    ids: list
    training: np.ndarray
    validation: np.ndarray
    steps: int
    fold: tuple = ()

    def ids_of(self, part):
        """The ids of the cases of "training" or "validation"."""
        return [self.ids[index] for index in getattr(self, part)]


def ids_in(folder):
    """{part: case ids} of what `pack` wrote, without its arrays."""
    found = {}
    for part in PARTS:
        with opened(folder / f"{part}.npz") as file:
            found[part] = file["ids"].tolist()
    return found


def steps_of_epoch(ids, folds):
    """The steps of an epoch, one for each case that trains: as many in every fold as in the one with the fewest.

    `ids` are the cases of each part.
    """
    if not folds:
        return len(ids["training"])
    together = [case_id for its in ids.values() for case_id in its]
    return len(together) - int(np.bincount(_fold_of(together, folds), minlength=folds).max())


def _fold_of(ids, folds):
    """The fold, from 0, of each case: the patients in turn."""
    patients = list(dict.fromkeys(map(patient_of, ids)))
    return np.array([patients.index(patient_of(case_id)) % folds for case_id in ids])


def of_folds(folder, folds, numbers=None):
    """The `Cases` of some folds, by their numbers from 1, or of all; of 0 folds, those of the two sources as one.

    Every fold has cases of both sources, all of a patient's, and takes as many steps an epoch as the one with the
    fewest cases.
    """
    if folds == 1 or not set(numbers or ()) <= set(range(1, folds + 1)):
        raise InputError(f"--folds must be 2 or more, --fold among them. Received: {folds} and {numbers}.")
    parts = [unpack(folder, part) for part in PARTS]
    volumes, classes = (np.concatenate([one[index] for one in parts]) for index in (0, 1))
    ids = [case_id for one in parts for case_id in one[2]]
    steps = steps_of_epoch({part: one[2] for part, one in zip(PARTS, parts, strict=True)}, folds)
    if not folds:
        return [Cases(volumes, classes, ids, np.arange(steps), np.arange(steps, len(ids)), steps)]
    place, found = _fold_of(ids, folds), []
    for fold in (number - 1 for number in numbers or range(1, folds + 1)):
        indices = np.flatnonzero(place != fold), np.flatnonzero(place == fold)
        found.append(Cases(volumes, classes, ids, *indices, steps, (fold, folds)))
    return found


def cropped(folder):
    """{"crop", "spacing_mm"} of what `pack` wrote."""
    with opened(folder / f"{PARTS[0]}.npz") as file:
        return {"crop": file["crop"].tolist(), "spacing_mm": float(file["spacing_mm"])}


class CaseScorer:
    """Compares label maps of packed cases with the whole files."""

    def __init__(self, cases, *, crop, spacing_mm):
        from brats_tf.data import volumes
        from brats_tf.data.layouts import SEGMENTATION
        from brats_tf.preprocessing.preprocess import prepare_case
        from brats_tf.regions import classes_to_regions

        self.ids, self.prepared, self.truths = [case.id for case in cases], [], []
        settings = {"modalities": ("flair",), "crop": crop, "spacing_mm": spacing_mm, "with_truth": True}
        for case in track(cases, "Reading truth"):
            self.prepared.append(prepare_case(case, **settings))
            labels = volumes.read_segmentation(case.require(SEGMENTATION), case_id=case.id)
            self.truths.append(classes_to_regions(volumes.read_label_classes(labels, case)))

    def scores(self, maps, *, distances=False):
        """{"dice": {region: one of each case}} and "hd95_mm" likewise, of label maps (cases, H, W, D) of classes."""
        from brats_tf.data.volumes import spacing_of
        from brats_tf.evaluation.metrics import dice, hausdorff95
        from brats_tf.regions import classes_to_regions

        found = {name: {region: [] for region in REGIONS} for name in ("dice", *(("hd95_mm",) if distances else ()))}
        for one, prepared, truth in zip(maps, self.prepared, self.truths, strict=True):
            predicted = classes_to_regions(prepared.to_file_axes(one))
            spacing_mm = spacing_of(prepared.reference.affine)
            for channel, region in enumerate(REGIONS):
                pair = (truth[..., channel], predicted[..., channel])
                found["dice"][region].append(dice(*pair))
                if distances:
                    found["hd95_mm"][region].append(hausdorff95(*pair, spacing_mm=spacing_mm))
        return found

    def ceiling(self):
        """The scores of the truth itself, there and back: what no network at this spacing can exceed by much."""
        return self.scores([prepared.classes for prepared in self.prepared])
