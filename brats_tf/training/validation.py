"""Dice of whole cases that training does not see, every so many epochs while it runs."""

import csv

import keras
import numpy as np

from brats_tf.errors import InputError
from brats_tf.evaluation.metrics import dice
from brats_tf.inference.predictor import Member, runner, to_classes
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import REGIONS, classes_to_regions
from brats_tf.runs.history import COLUMNS, VALIDATION_DICE, VALIDATION_FILE
from brats_tf.runtime.console import say, track
from brats_tf.runtime.files import atomic


class Validate(keras.callbacks.Callback):
    """Predicts every validation case after each `validate_every`th epoch and after the last one.

    Writes `validation.csv` (epoch, case, region, Dice between 0 and 1) into the run's folder, complete after each time,
    and puts the means into the logs of the epoch, for the callbacks behind it. Dice is that of the volumes as training
    prepares them: cropped, and resampled where `spacing_mm` asks for it.

    Args:
        config, cases, run: of the training.
        network: what predicts, with the weights that are trained.
        averaged: a context manager in which it has the weights to validate.
        between_cases: called after each case; may raise.
    """

    def __init__(self, config, cases, run, *, network, averaged, between_cases):
        super().__init__()
        self.config, self.cases, self.path, self.rows = config, cases, run / VALIDATION_FILE, []
        self.averaged, self.between_cases = averaged, between_cases
        bare = keras.Model(network.inputs[0], network.outputs[0])
        self.member = Member(config, bare, runner(bare))

    def is_due(self, epoch):
        """Whether cases are scored after epoch number `epoch`, from 0."""
        return (epoch + 1) % self.config.validate_every == 0 or epoch + 1 == self.config.epochs

    def remembered(self):
        """All rows."""
        return {"rows": self.rows}

    def recall(self, memory):
        """The counterpart of `remembered`."""
        self.rows = [tuple(row) for row in memory["rows"]]

    def on_epoch_end(self, epoch, logs=None):
        if not self.is_due(epoch):
            return
        done = epoch + 1
        with self.averaged():
            for case in self.cases:
                self.rows += [(done, case.id, region, score) for region, score in self._scores(case).items()]
                self.between_cases()
        with atomic(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows((*row, f"{score:.6f}") for *row, score in self.rows)
        means = [np.mean([row[3] for row in self.rows if row[0] == done and row[2] == region]) for region in REGIONS]
        logs |= {
            f"{VALIDATION_DICE}_{region.lower()}": float(mean) for region, mean in zip(REGIONS, means, strict=True)
        }
        logs[VALIDATION_DICE] = float(np.mean(means))
        shown = " ".join(f"{region} {mean:.2f}" for region, mean in zip(REGIONS, means, strict=True))
        say(f"{self.config.run_name} epoch {done}/{self.params['epochs']}, {len(self.cases)} validation cases: {shown}")

    def _scores(self, case):
        prepared = prepared_case(self.config, case)
        predicted = to_classes(self.member.predict(prepared.volume), self.member.outputs)
        truth, prediction = classes_to_regions(prepared.classes), classes_to_regions(predicted)
        return {region: dice(truth[..., i], prediction[..., i]) for i, region in enumerate(REGIONS)}


def check_validation(config, cases, training):
    """Reads every validation case once, before the first step.

    Raises:
        InputError: when there is none, one is bad, or a patient of one is among the cases for `training`.
    """
    if not cases:
        raise InputError("Validation needs cases that training does not see: --fold or --validation. Received: none.")
    both = sorted({case.patient for case in cases} & {case.patient for case in training})
    if both:
        raise InputError(f"Patients must not train and validate. Received in both: {', '.join(both[:5])}.")
    for case in track(cases, "Reading validation cases"):
        prepared_case(config, case)


def prepared_case(config, case):
    """A case with its truth, as the network of a config sees it."""
    crop = None if config.patch else config.crop
    return prepare_case(case, modalities=config.modalities, crop=crop, spacing_mm=config.spacing_mm, with_truth=True)
