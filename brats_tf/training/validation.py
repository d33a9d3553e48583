"""Dice of whole cases that training does not see, every few epochs."""

import csv
import logging

import keras
import numpy as np

from brats_tf.data.notes import leave_out_misread
from brats_tf.data.volumes import read_label_classes
from brats_tf.errors import InputError
from brats_tf.evaluation.metrics import dice
from brats_tf.models.outputs import to_classes
from brats_tf.preprocessing.preprocess import Reader, prepare_case
from brats_tf.regions import REGIONS, classes_to_regions
from brats_tf.runs.files import VALIDATION_FILE
from brats_tf.runs.history import VALIDATION_COLUMNS, VALIDATION_DICE
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic

log = logging.getLogger(__name__)


class Validate(keras.callbacks.Callback):
    """Predicts all validation cases every `validation_frequency` epochs and after the last one.

    Writes `validation.csv` (epoch, case, region, Dice between 0 and 1) into the run's folder, complete after each time,
    and adds the means to the logs of the epoch, for the callbacks after it. Dice is that of the whole file, as
    `brats-tf evaluate` gives it: tumour outside the crop counts as missed.

    Args:
        data: the `TrainingData`.
        run: the run's folder.
        predictor: a `Predictor` with the weights in training.
        averaged: a context manager in which it has the weights to validate.
        between_cases: called after each case; may raise.
        writes: whether this process writes; of several machines only one does.
    """

    name = "validation"

    def __init__(self, data, run, predictor, *, averaged, between_cases, writes=True):
        super().__init__()
        self.config, self.cases, self.path, self.rows = data.config, data.validation, run / VALIDATION_FILE, []
        self.averaged, self.between_cases = averaged, between_cases
        self.predictor, self.writes = predictor, writes

    def is_due(self, epoch):
        """Whether the cases are scored after epoch number `epoch`, from 0."""
        training = self.config.training
        return (epoch + 1) % training.validation_frequency == 0 or epoch + 1 == training.epochs

    def state(self):
        """All rows."""
        return {"rows": self.rows}

    def restore(self, state):
        """The counterpart of `state`."""
        self.rows = [tuple(row) for row in state["rows"]]

    def on_epoch_end(self, epoch, logs=None):
        if not self.is_due(epoch):
            return
        done = epoch + 1
        with self.averaged():
            for case in self.cases:
                self.rows += [(done, case.id, region, score) for region, score in self._scores(case).items()]
                self.between_cases()
        if self.writes:
            self._write()
        means = {
            region: float(np.mean([score for when, _, name, score in self.rows if (when, name) == (done, region)]))
            for region in REGIONS
        }
        logs |= {f"{VALIDATION_DICE}_{region.lower()}": mean for region, mean in means.items()}
        logs[VALIDATION_DICE] = float(np.mean(list(means.values())))
        scores = " ".join(f"{region} {mean:.2f}" for region, mean in means.items())
        run, epochs = self.path.parent.name, self.params["epochs"]
        log.info(f"{run} epoch {done}/{epochs}, {len(self.cases)} validation case(s): {scores}")

    def _write(self):
        with atomic(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(VALIDATION_COLUMNS)
            writer.writerows((*row, f"{score:.6f}") for *row, score in self.rows)

    def _scores(self, case):
        prepared = prepare_case(case, **self.config.preprocessing(), with_truth=False)
        predicted = to_classes(self.predictor.predict(prepared.volume), self.predictor.outputs)
        labels = read_label_classes(Reader(case).segmentation(), case)
        truth, prediction = classes_to_regions(labels), classes_to_regions(prepared.to_file_axes(predicted))
        return {region: dice(truth[..., i], prediction[..., i]) for i, region in enumerate(REGIONS)}


def check_validation(config, cases, training, *, skip_invalid=False):
    """Reads every validation case once, before the first step. Returns those that can be read.

    Raises:
        InputError: when one is bad and `skip_invalid` is off, when all are, or when a patient of one is among the cases
            for `training`.
    """
    shared = sorted({case.patient for case in cases} & {case.patient for case in training})
    if shared:
        raise InputError(f"Patients must not train and validate. Received in both: {', '.join(shared[:5])}.")
    good, failures = {}, []
    for case in track(cases, "Reading validation cases"):
        try:
            prepare_case(case, **config.preprocessing(), with_truth=True)
        except InputError as error:
            if not skip_invalid:
                raise
            log.info(f"Left out: {error}")
            failures.append((case.id, str(error)))
            continue
        good[case.id] = case
    leave_out_misread(cases, good, failures)
    if not good:
        raise InputError(f"No validation case can be used. Received: {len(cases)}, each of them invalid.")
    return list(good.values())
