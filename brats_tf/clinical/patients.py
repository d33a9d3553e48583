"""Which folders are patients, what a list of series says of them, and what becomes of one with a damaged series."""

import errno
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from brats_tf.clinical.series import CONFORM_FILE, OF_THE_SYSTEM, of_one_person, read_series
from brats_tf.data.layouts import is_nifti, is_safe
from brats_tf.errors import InputError, reason_of
from brats_tf.regions import MODALITIES
from brats_tf.runtime.files import read_csv

log = logging.getLogger(__name__)
COLUMNS = ("patient", "modality", "path")


@contextmanager
def explain_damage(who):
    """Makes one sentence, an `InputError`, of whatever a damaged series leads SimpleITK, pydicom and NumPy to raise.

    An `OSError` of a disk that is full or cannot be written to stays what it is: it is one for all patients.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        log.debug("Where it happened:", exc_info=True)
        raise InputError(f"{who}: its series could not be read: {reason_of(error).rstrip('.')}.") from error


@dataclass(frozen=True)
class Patient:
    """A folder with the series of one patient.

    Attributes:
        id: the folder's name, which becomes the id of the case.
        folder: where the series are.
        named: {modality: path ending, or number} of series that a person chose.
        problem: why no case can be made of it, in a sentence; "" for none.
    """

    id: str
    folder: Path
    named: dict = field(default_factory=dict)
    problem: str = ""


def find_patients(root, series_list=None):
    """The patients in a folder, sorted by id.

    The folder is one patient where it holds images itself, or one series of one examination in each of its folders;
    else each of its folders is a patient. An id is the folder's name, never one of a DICOM header. Folders of one
    series each that name the same patient, but several examinations, may be either, and are refused. Folders of the
    operating system are skipped, and those of cases that `conform` made, with a line.

    Args:
        root: the folder.
        series_list: a .csv with the columns patient, modality, path: the series to take.

    Raises:
        InputError: when there is none, it cannot be told who they are, or the list is wrong.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} must be a folder of patients.")
    folders = [path for path in _entries(root) if path.is_dir() and not _of_the_system(path)]
    made = [path for path in folders if _holds_cases(path)]
    for path in made:
        log.info(f"Skipped {path}: it holds cases that `brats-tf conform` made.")
    folders = [path for path in folders if path not in made]
    if made and not folders and not _holds_images(root):
        raise InputError(f"{root} must hold patients. Received cases that `brats-tf conform` made, and no others.")
    if not folders or _is_patient(root, folders):
        folders = [Path(os.path.abspath(root))]  # Not where a link leads to, which may be called after a person.
    named = _read_list(series_list) if series_list else {}
    unknown = sorted(set(named) - {folder.name for folder in folders})
    if unknown:
        raise InputError(f"{series_list}: patient {unknown[0]!r} is no folder of {root}.")
    return [Patient(folder.name, folder, named.get(folder.name, {}), _problem(folder)) for folder in folders]


def _problem(folder):
    if not is_safe(folder.name):
        return f"{folder}: its name becomes the id of a case, and must be fit for a file's name."
    try:
        os.scandir(folder).close()
    except OSError as error:
        return f"Patient {folder.name}: {folder} could not be read: {error.strerror}."
    return ""


def _entries(folder):
    """What lies in a folder, sorted; nothing where it cannot be read."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError:
        return []


def _holds_cases(folder):
    """Whether a folder is a case that `conform` made, or holds nothing but some, or is what `segment` wrote."""

    def are_cases(folder):
        folders = [path for path in _entries(folder) if path.is_dir() and not _of_the_system(path)]
        return bool(folders) and all((path / CONFORM_FILE).is_file() for path in folders) and not _holds_images(folder)

    by_segment = (folder / "predictions").is_dir() and are_cases(folder / "cases")
    return (folder / CONFORM_FILE).is_file() or are_cases(folder) or by_segment


def _holds_images(folder):
    """Whether images lie in a folder itself, as their names tell."""
    names = [path for path in _entries(folder) if path.is_file()]
    return any(is_nifti(path.name) or path.suffix.lower() in (".dcm", ".ima") for path in names)


def _of_the_system(folder):
    return folder.name.startswith(".") or folder.name in OF_THE_SYSTEM


def _is_patient(root, folders):
    if _holds_images(root):
        return True
    if any(path.is_dir() and not _of_the_system(path) for folder in folders for path in _entries(folder)):
        return False
    examinations, series = set(), []
    for folder in folders:
        found, _ = read_series(folder, folder.name)
        if len(found) != 1 or not found[0].is_dicom:
            return False
        examinations.add(found[0].headers[0].get("StudyInstanceUID"))
        series.append(found[0])
    if len(examinations) == 1:
        return all(examinations)
    # The patient's id alone does not tell: once it is one word for everybody, it tells nobody apart.
    known = all(one.person[0] for one in series)
    if known and all(of_one_person(series[0], one) for one in series[1:]):
        raise InputError(
            f"{root} must be one patient, or hold a folder for each patient. Received {len(folders)} folders of one "
            f"series each, which name the same patient but {len(examinations)} examinations: put the series of each "
            "patient, or of each examination, into a folder of its own."
        )
    return False


def _read_list(path):
    try:
        rows = read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a table with the columns {', '.join(COLUMNS)}: {error}.") from None
    named: dict = {}
    for number, row in enumerate(rows, start=2):
        values = [(row.get(column) or "").strip() for column in COLUMNS]
        if not all(values) or values[1] not in MODALITIES:
            raise InputError(
                f"{path}: line {number} must have a patient, a modality ({', '.join(MODALITIES)}) and a path; received "
                f"{', '.join(map(repr, values))}."
            )
        if named.setdefault(values[0], {}).setdefault(values[1], values[2]) != values[2]:
            raise InputError(f"{path}: line {number} names a second series for {values[1]} of {values[0]}.")
    return named
