"""Which folders are patients, what a list of series says of them, and what becomes of one with a damaged series."""

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from brats_tf.clinical.series import read_series
from brats_tf.data.layouts import is_nifti, is_safe
from brats_tf.errors import InputError, in_one_line
from brats_tf.regions import MODALITIES
from brats_tf.runtime.files import read_csv

log = logging.getLogger(__name__)
COLUMNS = ("patient", "modality", "path")


@contextmanager
def explain_damage(who):
    """Makes one sentence, an `InputError`, of whatever a damaged series leads SimpleITK, pydicom and NumPy to raise."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        log.debug("Where it happened:", exc_info=True)
        raise InputError(f"{who}: its series could not be read: {in_one_line(error)}") from error


@dataclass(frozen=True)
class Patient:
    """A folder with the series of one patient; `named` is {modality: path ending} where a person chose the series."""

    id: str
    folder: Path
    named: dict = field(default_factory=dict)


def find_patients(root, series_list=None):
    """The patients in a folder, sorted by id.

    The folder is one patient where it holds images itself, or one series of one examination in each of its folders;
    else each of its folders is a patient. An id is the folder's name, never one of a DICOM header. Folders of one
    series each that name the same patient, but several examinations, may be either, and are refused.

    Args:
        root: the folder.
        series_list: a .csv with the columns patient, modality, path: the series to take.

    Raises:
        InputError: when there is none, it cannot be told who they are, a name cannot be a case id, or the list is
            wrong.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} must be a folder of patients.")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    folders = [root.resolve()] if not folders or _is_patient(root, folders) else folders
    for folder in folders:
        if not is_safe(folder.name):
            raise InputError(f"{folder}: its name becomes the id of a case, and must be fit for a file's name.")
    named = _read_list(series_list) if series_list else {}
    unknown = sorted(set(named) - {folder.name for folder in folders})
    if unknown:
        raise InputError(f"{series_list}: patient {unknown[0]!r} is no folder of {root}.")
    return [Patient(folder.name, folder, named.get(folder.name, {})) for folder in folders]


def _is_patient(root, folders):
    if any(
        path.is_file() and (is_nifti(path.name) or path.suffix.lower() in (".dcm", ".ima")) for path in root.iterdir()
    ):
        return True
    if any(path.is_dir() for folder in folders for path in folder.iterdir()):
        return False
    examinations, patients = set(), set()
    for folder in folders:
        found, _ = read_series(folder, folder.name)
        if len(found) != 1 or not found[0].is_dicom:
            return False
        examinations.add(found[0].headers[0].get("StudyInstanceUID"))
        patients.add(found[0].patient)
    if len(examinations) == 1:
        return all(examinations)
    # The patient's id alone does not tell: once it is one word for everybody, it tells nobody apart.
    if len(patients) == 1 and all(patients):
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
