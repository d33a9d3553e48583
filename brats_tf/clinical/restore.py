"""Brings label maps back into the space of the series that their cases were made of."""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from brats_tf.clinical.conform import CONFORM_FILE, read_conform
from brats_tf.clinical.convert import read_image
from brats_tf.clinical.dicom_seg import write_segmentation
from brats_tf.clinical.grids import Grid, grid_of_volume, header_on, matrix_transform, resample, to_array, to_image
from brats_tf.clinical.patients import explain_damage
from brats_tf.clinical.pictures import save_segments
from brats_tf.clinical.predicted_regions import predicted_regions
from brats_tf.clinical.restored_files import RESTORED_FILE, earlier_files, has_pictures, remove_others
from brats_tf.clinical.series import read_series
from brats_tf.config.execution import RestoreOptions
from brats_tf.data.volumes import TOLERANCE_MM, Volume, write_volume
from brats_tf.errors import InputError, WriteError
from brats_tf.inference.prediction_record import (
    PREDICTION_FILE,
    PROBABILITIES_FOLDER,
    finished_cases,
    read_prediction_record,
)
from brats_tf.regions import REGIONS, classes_to_labels, classes_to_regions
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic, sha256_of, write_json

log = logging.getLogger(__name__)
REFERENCE, NATIVE = "reference", "native"


def restore_predictions(predictions, *, out, cases=None, source=None, options=None):
    """Writes each label map in the space of the series, `<out>/<case>/<case>_<modality>_seg.nii.gz`.

    Beside it lie a picture, and for a DICOM series the DICOM SEG.

    Each region is interpolated linearly, from its probability where `predict --save-probabilities` wrote them, and then
    decided as the label map was: cut at 0.5, or for networks of classes the likeliest class. `<out>/restored.json` has
    the volumes in ml, there. What an earlier call made of the same label map stays where this one fails, and where
    nothing that it was made of has changed: series of DICOM SEG would else multiply in an archive.

    Args:
        predictions: the folder that `predict` wrote.
        out: the folder to write to.
        cases: the folder that `conform` wrote; None for the one that the record of `predictions` names.
        source: where the patients' folders are now; None for where they were.
        options: `RestoreOptions`.

    Returns:
        [(case id, sentence)] of those that failed.

    Raises:
        InputError: when nothing was predicted.
        WriteError: when the disk is full or the folder is read-only.
    """
    predictions, out, options = Path(predictions), Path(out), options or RestoreOptions()
    record = read_prediction_record(predictions)
    if not record.get("cases"):
        raise InputError(f"{predictions} must hold label maps that `brats-tf predict` wrote.")
    roots = [Path(cases)] if cases else [Path(path) for path in record["data"]]
    finished = finished_cases(record, predictions)
    stopped = {one: f"Case {one}: its prediction stopped before it; predict it again." for one in record["pending"]}
    failures = [one for one in (record["left_out"] | stopped).items() if one[0] not in record["cases"]]
    earlier, whole = earlier_files(out, record)
    restored, made_of = {}, {}
    for _, sentence in failures:
        log.info(f"Left out: {sentence}")
    for case_id, facts in track(list(record["cases"].items()), "Restoring"):
        try:
            if case_id not in finished:
                raise InputError(
                    f"Case {case_id}: {predictions / f'{case_id}.nii.gz'} must be the label map that {PREDICTION_FILE} "
                    "records; received another, or none: predict it again."
                )
            with explain_damage(f"Case {case_id}"):
                conformed = _conformed(case_id, roots)
                made = _made_of(case_id, predictions, conformed[0], options)
                if whole.get(case_id) == made | {"label_map": facts["sha256"]}:
                    restored[case_id], made_of[case_id] = earlier[case_id], whole[case_id]
                    continue
                maps = predicted_regions(case_id, facts, predictions, after=any(record["postprocessing"].values()))
                restored[case_id], problems = _restore(case_id, maps, conformed, source, out / case_id, options)
                if not problems and has_pictures(restored[case_id]):
                    made_of[case_id] = made
        except WriteError:
            raise
        except InputError as error:
            problems = [str(error)]
            if case_id in earlier and case_id in finished:
                log.info(f"Case {case_id}: what an earlier call restored of it stays.")
                restored[case_id] = earlier[case_id]
        for sentence in problems:
            log.info(f"Left out: {sentence}")
            failures.append((case_id, sentence))
        remove_others(out / case_id, restored.get(case_id, {}))
    out.mkdir(parents=True, exist_ok=True)
    made_of = {one: made_of.get(one, {}) | {"label_map": record["cases"][one]["sha256"]} for one in restored}
    content = {"networks": record["networks"], "cases": restored, "made_of": made_of, "left_out": dict(failures)}
    write_json(out / RESTORED_FILE, content)
    log.info(f"{len(restored)} of {len(record['cases'])} label maps restored into {out}.")
    return failures


def _made_of(case_id, predictions, folder, options):
    """What decides the restored files of a case besides its label map."""
    files = {
        "conform": folder / CONFORM_FILE,
        "probabilities": predictions / PROBABILITIES_FOLDER / f"{case_id}.nii.gz",
    }
    hashes = {name: sha256_of(path) if path.is_file() else "" for name, path in files.items()}
    return hashes | {"options": asdict(options)}


def restore_regions(regions, case_grid, series_grid, matrix):
    """Regions, or their probabilities, on the slices of a series.

    Args:
        regions: (X, Y, Z, 3) on the case's grid, bool or probabilities.
        case_grid, series_grid: `Grid`.
        matrix: (4, 4), points of the case to points of the series.

    Returns:
        (X', Y', Z', 3) float32 on `series_grid`, from 0 to 1.
    """
    back = matrix_transform(np.linalg.inv(matrix))
    parts = [
        to_array(
            resample(
                to_image(np.asarray(regions[..., number], np.float32), case_grid), series_grid, back, kind="linear"
            )
        )
        for number in range(regions.shape[-1])
    ]
    return np.stack(parts, axis=-1)


def _conformed(case_id, roots):
    """(folder of a case, what `conform` recorded of it)."""
    folder = next((root / case_id for root in roots if (root / case_id / CONFORM_FILE).is_file()), None)
    if folder is None:
        where = ", ".join(str(root / case_id / CONFORM_FILE) for root in roots) or "its data folder, which nobody named"
        raise InputError(f"Case {case_id}: no {where}; only cases of `brats-tf conform` can be restored.")
    return folder, read_conform(folder)


def _restore(case_id, maps, conformed, source, out, options):
    """Restores one case. Returns ({modality: {"WT_ml", "TC_ml", "ET_ml", "files"}}, sentences about lacking files)."""
    (labels, regions, decide, convention), (folder, record) = maps, conformed
    grid, there = Grid.from_dict(record["grid"]), grid_of_volume(labels)
    if there.size != grid.size or np.abs(there.corners() - grid.corners()).max() > TOLERANCE_MM:
        raise InputError(
            f"Case {case_id}: {labels.path} must lie on the grid of {folder / CONFORM_FILE}; received another: predict "
            "again, if the case was conformed again."
        )
    names = {REFERENCE: [record["reference"]], NATIVE: list(record["series"])}.get(options.to, [options.to])
    missing = [name for name in names if name not in record["series"]]
    if missing:
        raise InputError(f"Case {case_id}: no {missing[0]} in {folder}; received {', '.join(record['series'])}.")
    sources = _find_sources(case_id, names, record, source, must=options.dicom_seg)
    done, problems = {}, []
    for name in names:
        native, matrix = Grid.from_dict(record["series"][name]["grid"]), record["series"][name]["case_to_series"]
        classes = decide(restore_regions(regions, grid, native, np.array(matrix)))
        path = out / f"{case_id}_{name}_seg.nii.gz"
        write_volume(path, classes_to_labels(classes, convention), like=Volume(np.empty(0), header_on(native), path))
        nested = classes_to_regions(classes)
        ml = nested.sum(axis=(0, 1, 2)) * float(np.prod(native.spacing)) / 1000
        done[name] = {f"{region}_ml": round(float(one), 3) for region, one in zip(REGIONS, ml, strict=True)}
        done[name]["files"] = [path.name]
        if name in sources:
            beside, problem = _beside(
                path, sources[name], nested, native, f"{case_id}: regions on {name}", dicom_seg=options.dicom_seg
            )
            done[name]["files"] += beside
            problems += [problem] if problem else []
    return done, problems


def _find_sources(case_id, names, record, source, *, must):
    """{modality: `Series`} of the files that the case was made of.

    Raises:
        InputError: when a DICOM series is not there, unchanged, and `must` be.
    """
    patient = Path(record["source"])
    if source and (Path(source) / case_id).is_dir():
        patient = Path(source) / case_id
    elif source and (Path(source).resolve().name == case_id or not patient.is_dir()):
        patient = Path(source)
    found, sources = read_series(patient, case_id)[0], {}
    for name in names:
        series = record["series"][name]
        fitting = [
            one
            for one in found
            if one.is_dicom == series["is_dicom"] and one.tags.get("SeriesNumber") == series["number"]
        ]
        match = next((one for one in fitting if one.sha256 == series["sha256"]), None)
        if match is not None:
            sources[name] = match
        elif must and series["is_dicom"]:
            raise InputError(
                f"Case {case_id}: the files of series {series['number']} ({name}) are not in {patient} as `conform` "
                "read them: say with --source where the patients' folders are, or leave the DICOM SEG out with "
                "--no-dicom-seg."
            )
        else:
            log.info(f"Case {case_id}: the files of {name} are not in {patient} as `conform` read them: no picture.")
    return sources


def _beside(path, series, regions, grid, title, *, dicom_seg):
    """Writes what lies beside a NIfTI file: a picture, and the DICOM SEG. Returns (their names, why one is missing)."""
    stem, case_id = path.name.removesuffix(".nii.gz"), path.parent.name
    image, _ = read_image(series, patient=case_id)
    voxels = to_array(resample(image, grid, matrix_transform(np.eye(4)), kind="linear"))
    picture, target = path.with_name(f"{stem}.png"), path.with_name(f"{stem}.dcm")
    save_segments(picture, voxels, regions, grid=grid, title=title)
    if not (dicom_seg and series.is_dicom):
        return [picture.name], ""
    if not regions.any():
        log.info(f"Case {case_id}: no tumour on {series.name}, so there is no DICOM SEG.")
        return [picture.name], ""
    try:
        with atomic(target) as temporary:
            write_segmentation(temporary, regions, series)
    except WriteError:
        raise
    except InputError as error:
        return [picture.name], (
            f"Case {case_id}: {str(error).rstrip('.')}; the label map and the volumes are there. Leave the DICOM SEG "
            "out with --no-dicom-seg."
        )
    return [picture.name, target.name], ""
