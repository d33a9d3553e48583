"""Makes BraTS cases of a patient's series: chosen, converted, registered, resampled once, without skull."""

import hashlib
import logging
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from brats_tf import __version__
from brats_tf.clinical.convert import converter_version
from brats_tf.clinical.grids import Grid
from brats_tf.clinical.identify import identify
from brats_tf.clinical.make_case import CHECKS_FOLDER, STEPS, check_template, make_case
from brats_tf.clinical.patients import explain_damage
from brats_tf.clinical.series import CONFORM_FILE, files_under, read_series
from brats_tf.config.execution import ConformOptions
from brats_tf.data.layouts import UNDERSCORED
from brats_tf.errors import InputError, WriteError, reason_of
from brats_tf.regions import MODALITIES
from brats_tf.runtime.console import progress_bar
from brats_tf.runtime.files import atomic, read_json, remove_partial, sha256_of, write_json

log = logging.getLogger(__name__)


def conform_patients(patients, *, out, options=None, template=None, replace=False):
    """Writes `<out>/<id>/<id>_<modality>.nii.gz`, `conform.json` and pictures for each patient.

    A patient whose case is there, of the same files and options, is left as it is. One that fails is left out, with a
    sentence; the others go on.

    Args:
        patients: what `find_patients` returned.
        out: the folder of cases.
        options: `ConformOptions`.
        template: path of an image to register the reference to, such as SRI24; None for the patient's own space.
        replace: whether cases of other files or options give way.

    Returns:
        [(patient id, sentence)] of those that failed.

    Raises:
        InputError: when the template cannot be read.
        WriteError: when the disk is full or the folder is read-only.
    """
    out, options = Path(out), options or ConformOptions()
    if template:
        check_template(template)  # Before any work: it is wrong for all of them.
    out.mkdir(parents=True, exist_ok=True)
    remove_partial(out)
    failures = []
    with progress_bar() as bar:
        task = bar.add_task("Conforming", total=len(patients) * len(STEPS), note="")
        for number, patient in enumerate(patients):

            def tell(step, patient=patient, number=number):
                bar.update(task, completed=number * len(STEPS) + STEPS.index(step), note=f"{patient.id}: {step}")

            try:
                with explain_damage(f"Patient {patient.id}"):
                    _conform(patient, out, options, template, replace, tell)
            except WriteError:
                raise
            except InputError as error:
                log.info(f"Left out: {error}")
                failures.append((patient.id, str(error)))
        bar.update(task, completed=len(patients) * len(STEPS), note="")
    log.info(f"{len(patients) - len(failures)} of {len(patients)} cases are in {out}.")
    return failures


_PARTS = "series grid reference brain_mask template seconds missing left_out fingerprint source".split()


def read_conform(folder):
    """What `conform.json` in a case's folder says. Raises `InputError`."""
    path = Path(folder) / CONFORM_FILE
    try:
        record = read_json(path)
        missing = [name for name in _PARTS if not isinstance(record, dict) or name not in record]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        _check_parts(record)
        return record
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} must hold what `brats-tf conform` writes: {reason_of(error)}.") from None


def _check_parts(record):
    """Raises unless the parts of a record are what `make_case` returns, as far as pages and `restore` read them."""
    float(record["brain_mask"]["ml"])
    sum(map(float, record["seconds"].values()))
    Grid.from_dict(record["grid"])
    for one in record["series"].values():
        Grid.from_dict(one["grid"])
        np.array(one["case_to_series"], float).reshape(4, 4)
        if not {"number", "reason", "is_dicom", "sha256"} <= one.keys():
            raise ValueError("a series lacks a part")
        if isinstance(one["registration"], dict):
            for name in ("rotation_degrees", "shift_mm", "overlap", "mutual_information_nats"):
                float(one["registration"][name])
    whole = all({"number", "reason"} <= one.keys() for one in record["left_out"])
    if record["reference"] not in record["series"] or not whole:
        raise ValueError("its reference, or what was left out, is not there")


def _conform(patient, out, options, template, replace, tell):
    tell("series")
    if patient.problem:
        raise InputError(patient.problem)
    folder = out / patient.id
    template_sha256 = sha256_of(template) if template else None
    made_of = {"options": asdict(options), "fingerprint": _fingerprint(patient), "template_sha256": template_sha256}
    if folder.exists():
        before = read_conform(folder)
        if all(before.get(name) == value for name, value in made_of.items()):
            log.info(f"Patient {patient.id}: {folder} is there already.")
            return
        if not replace:
            raise InputError(
                f"Patient {patient.id}: {folder} was made of other files or with other options: name another folder "
                "with --out, or replace it with --replace."
            )
        _refuse_other_files(folder, patient, before)
    found, notes = read_series(patient.folder, patient.id)
    chosen, left_out = identify(found, patient=patient.id, named=patient.named)
    missing = [modality for modality in MODALITIES if modality not in chosen]
    for line in (*notes, *(f"Patient {patient.id}: {one.series.name} was left out: {one.reason}." for one in left_out)):
        log.info(line)
    if not chosen:
        raise InputError(f"Patient {patient.id}: no series of {', '.join(MODALITIES)} was found in {patient.folder}.")
    if len(_examinations(chosen)) > 1:
        log.info(f"Patient {patient.id}: its series are of {len(_examinations(chosen))} examinations.")
    if missing:
        log.info(f"Patient {patient.id}: no series shows {', '.join(missing)}; the networks go on without.")
    for one in chosen.values():
        if one.series.damaged:
            raise InputError(
                f"Patient {patient.id}: {one.series.name} must be whole, but {one.series.damaged}: copy it from its "
                "source again, or move what is no slice elsewhere."
            )
    with atomic(folder, replace=True) as temporary:
        temporary.mkdir()
        with explain_damage(f"Patient {patient.id}"):  # Else what cannot be read would be what cannot be written.
            record = make_case(patient, chosen, temporary, options, template, tell)
        source = os.path.abspath(patient.folder)  # Not where a link leads to, which may be called after a person.
        content = {"brats_tf": __version__, "versions": _versions(), **made_of, "source": source}
        others = [{"number": one.series.tags.get("SeriesNumber"), "reason": one.reason} for one in left_out]
        content |= {"missing": missing, "left_out": others, "examinations": max(1, len(_examinations(chosen)))}
        write_json(temporary / CONFORM_FILE, content | record)


def _examinations(chosen):
    """The examinations of the chosen series, those without a header aside."""
    headers = [one.series.headers[0] for one in chosen.values() if one.series.is_dicom]
    return {header.StudyInstanceUID for header in headers if header.get("StudyInstanceUID")}


def _fingerprint(patient):
    """Tells whether files of a patient changed: a hash of the series list and of the files' names, sizes and times."""
    digest = hashlib.sha256(repr(sorted(patient.named.items())).encode())
    for path in files_under(patient.folder):
        facts = path.stat()
        digest.update(os.fsencode(path.relative_to(patient.folder)))
        digest.update(f" {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _versions():
    return {"dcm2niix": converter_version(), "SimpleITK": version("SimpleITK"), "pydicom": version("pydicom")}


def _refuse_other_files(folder, patient, record):
    """Raises `InputError` when the folder of a case holds what `conform` did not write, hidden files aside."""
    written = {folder / UNDERSCORED.file_name(patient.id, modality) for modality in record["series"]}
    written |= {folder / CONFORM_FILE, *folder.glob(f"{CHECKS_FOLDER}/*.png")}
    files = {path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}
    if others := sorted(files - written):
        raise InputError(
            f"Patient {patient.id}: {others[0]} was not written by `brats-tf conform`, and --replace would delete it: "
            "move it elsewhere."
        )
