"""Predicts a list of cases and writes label maps in each case's own geometry and label convention."""

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from brats_tf.config.execution import PostProcessing, PredictionOptions
from brats_tf.data.case import Case
from brats_tf.data.nifti import read_header
from brats_tf.data.notes import log_notes
from brats_tf.data.volumes import spacing_of, write_volume
from brats_tf.errors import InputError, MemoryLack, WriteError, enough_memory
from brats_tf.inference.ensemble import predict_case, read_case
from brats_tf.inference.postprocessing import postprocess
from brats_tf.inference.prediction_record import FOLDERS, PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER
from brats_tf.inference.predictor import MIRRORED, Predictor
from brats_tf.inference.recording import PredictionRecord, still_wanted
from brats_tf.models.cost import prediction_bytes
from brats_tf.models.outputs import to_classes
from brats_tf.regions import classes_to_labels
from brats_tf.runtime.console import track
from brats_tf.runtime.files import remove_partial, sha256_of
from brats_tf.runtime.lock import lock
from brats_tf.runtime.tensorflow import device_name

log = logging.getLogger(__name__)
NO_OPTIONS, NO_POSTPROCESSING = PredictionOptions(), PostProcessing()


def predict_cases(
    predictors: Sequence[Predictor],
    cases: Sequence[Case],
    *,
    out: str | Path,
    postprocessing: PostProcessing = NO_POSTPROCESSING,
    options: PredictionOptions = NO_OPTIONS,
    data: str | Path | None = None,
) -> list[tuple[str, str]]:
    """Writes `<out>/<case>.nii.gz` for each case, and `<out>/prediction.json`; a bad case is left out, others go on.

    Args:
        predictors: what `load_ensemble` returned.
        cases: `Case`s; truth is not needed.
        out: the folder for label maps, locked meanwhile. Cases join those that the same networks and steps predicted.
        postprocessing: steps applied to the label maps; none by default, as in both papers.
        options: what else is written, and whether predictions of other networks or steps in `out` give way.
        data: the folder or list of the cases, for the record, so that `evaluate` finds their truth.

    Returns:
        A list of (case id, sentence) of those that failed.

    Raises:
        InputError: when uncertainty is asked of a single network, or `out` is in use or holds other predictions.
        WriteError: when the disk is full or the folder is read-only; what is written by then stays.
    """
    check_possible(predictors, options)
    with lock(out):
        for folder in FOLDERS:
            remove_partial(Path(out) / folder)
        record = PredictionRecord(out, predictors, postprocessing, cases, data=data, options=options)
        cases = still_wanted(cases, record.wanted, out)
        log.info(first_line(predictors, cases))
        save = partial(write_prediction, record=record, postprocessing=postprocessing, options=options)
        failures, notes = _predict_all(predictors, cases, record, save)
    log_notes(notes)
    log.info(f"{len(cases) - len(failures)} of {len(cases)} label maps written to {out}.")
    if failures:
        log.info(f"Left out: {', '.join(case_id for case_id, _ in failures)}.")
    return failures


def _predict_all(predictors, cases, record, save):
    """Predicts the cases one after another; meanwhile the next one is read and the last one written.

    Everything that changes the record or the folder happens in one thread, in order. Returns ([(case id, sentence)] of
    those that failed, {note: case ids}).
    """
    failures, notes = [], {}
    reader, writer = (ThreadPoolExecutor(1) for _ in range(2))
    reading = deque(reader.submit(read_case, predictors, case) for case in cases[:1])
    writing = None
    try:
        for case, following in track(list(zip_longest(cases, cases[1:])), "Predicting"):
            if following:
                reading.append(reader.submit(read_case, predictors, following))
            if writing and writing.done():
                failures += writing.result()  # A full disk shows before the networks run in vain.
                writing = None
            try:
                ready = reading.popleft().result()
                for message in ready.messages:
                    log.info(message)
                for note in ready.prepared.notes:
                    notes.setdefault(note, []).append(case.id)
                job = partial(_saved, save, predict_case(ready), case, record)
                del ready  # While the next case is awaited, its volume is of no use.
            except InputError as error:
                job = partial(_left_out, case, error, record)
            if writing:
                failures += writing.result()
            writing = writer.submit(job)
        if writing:
            failures += writing.result()
    except WriteError:
        done = record.written(case.id for case in cases)
        log.info(f"{done} of {len(cases)} label maps written to {record.out}.")
        raise
    finally:
        for pool in (reader, writer):
            pool.shutdown(cancel_futures=True)
    return failures, notes


def _saved(save, predicted, case, record):
    """Saves a prediction: [], or [(case id, sentence)] where it does not fit into memory."""
    try:
        save(predicted, case)
    except MemoryLack as error:
        return _left_out(case, error, record)
    return []


def _left_out(case, error, record):
    older = " The label map from an earlier prediction was left in place."
    log.info(f"Left out: {error}{older if record.path(case.id).exists() else ''}")
    record.leave_out(case.id, str(error))
    return [(case.id, str(error))]


def final_classes(predicted, postprocessing):
    """The classes of an `EnsemblePrediction` on its file's axes (X, Y, Z), uint8, and how many voxels steps changed."""
    prepared = predicted.prepared
    before = prepared.to_file_axes(to_classes(predicted.average, predicted.outputs))
    if not postprocessing:
        return before, 0
    classes = postprocess(before, spacing_of(prepared.reference.affine), postprocessing)
    return classes, int(np.count_nonzero(before != classes))


def write_prediction(predicted, case, *, record, postprocessing, options):
    """Writes the prediction of a case and what the record says of it. Raises `WriteError`, or `MemoryLack`."""
    with enough_memory(f"Case {case.id}: its label map, and what is saved beside it,"):
        _write_prediction(predicted, case, record, postprocessing, options)


def _write_prediction(predicted, case, record, postprocessing, options):
    started = time.monotonic()
    prepared = predicted.prepared
    facts = {"networks": predicted.networks, "convention": case.convention.name, "files": predicted.files}
    facts["outputs"] = predicted.outputs
    if predicted.trained:
        facts["trained"] = predicted.trained
    reference = prepared.reference
    classes, changed = final_classes(predicted, postprocessing)
    if postprocessing:
        facts["voxels_changed"] = changed
    uncertainty = predicted.mean_uncertainty()
    if uncertainty is not None:
        facts["uncertainty"] = uncertainty
    path = record.path(case.id)
    beside = {}
    if options.save_probabilities:
        beside[PROBABILITIES_FOLDER] = predicted.regions()
    if options.save_uncertainty and uncertainty is not None:
        beside[UNCERTAINTY_FOLDER] = predicted.uncertainty()
    facts["beside"] = {}  # {folder: SHA-256}
    for part in (PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER):
        target = path.parent / part / path.name
        if part in beside:
            write_volume(target, prepared.to_file_axes(beside[part]), like=reference)
            facts["beside"][part] = sha256_of(target)
        else:  # Of an earlier prediction.
            target.unlink(missing_ok=True)

    def record_it(label_map):
        seconds = predicted.seconds + time.monotonic() - started
        record.add(case.id, facts | {"seconds": round(seconds, 2)}, label_map)

    write_volume(path, classes_to_labels(classes, case.convention), like=reference, before_rename=record_it)


def check_possible(predictors, options):
    """Raises `InputError` when `PredictionOptions` ask for what these networks do not have."""
    if options.save_uncertainty and len(predictors) < 2:
        raise InputError("Uncertainty needs at least two networks. Received: 1.")


def _voxels(case):
    """The number of voxels of a case's volumes, by the header of one; 0 where that cannot be read."""
    try:
        shape = read_header(min(case.volumes.values()), case_id=case.id).get_data_shape()
        return math.prod(map(int, shape[:3]))
    except InputError:  # Whoever reads it says so.
        return 0


def first_line(predictors, cases):
    """What is about to be predicted, with what, on what and in how much memory, as far as the headers tell."""
    largest = max((one.network for one in predictors), key=lambda network: network.count_params())
    first, passes = predictors[0], len(MIRRORED[predictors[0].mirror])
    mirrored = f", {passes} passes each, mirrored" if passes > 1 else ""
    voxels = max((_voxels(case) for case in cases), default=0)
    memory = prediction_bytes(largest, networks=len(predictors), case_voxels=voxels) / 1e9
    return (
        f"Predicting {len(cases)} case(s) with {len(predictors)} network(s) of {largest.count_params():,} parameters "
        f"on {device_name()} in {first.precision}{mirrored}, about {memory:.1f} GB of memory."
    )
