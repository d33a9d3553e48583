"""The data of one training run: split, preprocessed cases, batches on one device or several."""

import dataclasses
import logging
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from brats_tf.config.config import Config
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.splits import Split, split_cases, warn_of_shared_patients
from brats_tf.errors import InputError
from brats_tf.pipeline.patches import Patches
from brats_tf.pipeline.stream import Order, Shard, order_of_epoch, read_ahead, training_stream
from brats_tf.preprocessing.cache import CacheSettings, is_complete
from brats_tf.preprocessing.fill_cache import prepare_cases
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.runs.record import data_hash
from brats_tf.training.validation import check_validation

log = logging.getLogger(__name__)


class Length(NamedTuple):
    """How long a training is: epochs, and passes of a part of a batch through the network per epoch."""

    epochs: int
    steps: int


@dataclass
class TrainingData:
    """One config with the cases that train and validate it."""

    config: Config
    split: Split
    stored: list
    validation: list

    @property
    def batch_size(self):
        """Cases or patches that go through the network at once, over all devices."""
        return self.config.training.batch_size // self.config.training.gradient_accumulation_steps

    @property
    def length(self):
        """The `Length` of the training."""
        training = self.config.training
        batches = training.steps_per_epoch or math.ceil(len(self.stored) / training.batch_size)
        return Length(training.epochs, batches * training.gradient_accumulation_steps)

    @cached_property
    def identity(self):
        """What decides the numbers of the training, as JSON can hold it."""
        return {
            "config": self.config.to_dict(),
            "data": data_hash(self.stored, self.validation, self.config.data.modalities),
            "validation": [case.id for case in self.validation],
        }

    def samples(self, devices):
        """Cases or patches per epoch; None for one of each case, where the last batch may be smaller."""
        training = self.config.training
        if training.steps_per_epoch or training.gradient_accumulation_steps * devices > 1:
            return self.length.steps * self.batch_size
        return None

    def names(self, devices):
        """(epoch, step) -> the ids of the cases in that batch, for messages."""

        def names(epoch, step):
            count = len(self.stored)
            order = order_of_epoch(count, self.samples(devices) or count, self.config.seed, epoch).numpy()
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            return sorted({self.stored[index].id for index in batch})

        return names

    def unreadable(self):
        """The first file of the cached cases that is missing, or has not the size of its crop; None where all are."""
        crop = self.config.data.crop
        files = [(path, modality) for case in self.stored for modality, path in case.volumes.items()]
        files += [(case.classes, SEGMENTATION) for case in self.stored]
        return next((path for path, part in files if not is_complete(path, part, crop)), None)

    def displayed_case(self):
        """The case that TensorBoard shows, the first of validation or of training: (id, volume, classes)."""
        if self.validation:
            prepared = prepare_case(self.validation[0], **self.config.preprocessing(), with_truth=True)
            return self.validation[0].id, prepared.volume, prepared.classes
        case, crop = self.stored[0], self.config.data.crop
        channels = [np.fromfile(case.volumes[name], "<f4").reshape(crop) for name in self.config.data.modalities]
        return case.id, np.stack(channels, axis=-1), np.fromfile(case.classes, np.uint8).reshape(crop)

    def batches(self, strategy, start):
        """An iterator over the batches of this machine's devices from `start`, (epochs, steps of the next one)."""
        data, devices = self.config.data, strategy.num_replicas_in_sync
        order = Order(
            seed=self.config.seed,
            batch_size=self.batch_size // devices,
            samples=self.samples(devices),
            start=(start[0], start[1] * self.batch_size),
        )
        settings = {"modalities": data.modalities, "crop": data.crop}
        settings["patches"] = Patches(data.patch_size, data.foreground_fraction) if data.patch_size else None
        if devices == 1:
            return iter(read_ahead(training_stream(self.stored, order, **settings)))

        def of_machine(context):
            count = devices // context.num_input_pipelines
            shard = Shard(context.input_pipeline_id * count, count, devices)
            return training_stream(self.stored, dataclasses.replace(order, shard=shard), **settings)

        return iter(strategy.distribute_datasets_from_function(of_machine))


def prepare_training_data(config, cases, validation, cache_dir, options):
    """Splits and preprocesses the cases of a config, and checks those that validate it.

    Args:
        config: a `Config`.
        cases: `Case`s with truth.
        validation: `Case`s to score while training; None for those that the split keeps from training.
        cache_dir: see `fill_cache.prepare_cases`.
        options: `train.TrainingOptions`.

    Raises:
        InputError: when a case is bad, or there is no case to validate on.
    """
    split = split_cases(cases, config.data)
    unseen = _cases_to_validate(config, split, cases, validation, options.skip_invalid)
    stored = prepare_cases(
        [case for case in cases if case.id in set(split.training)],
        parts=(*config.data.modalities, SEGMENTATION),
        settings=CacheSettings(config.data.crop, config.data.spacing_mm),
        folder=cache_dir,
        workers=options.workers,
        skip_invalid=options.skip_invalid,
    )
    validates = {case.id for case in unseen} if validation is None and unseen else set(split.validation)
    split = dataclasses.replace(
        split,
        training=[case.id for case in stored],
        validation=[case_id for case_id in split.validation if case_id in validates],
    )
    return TrainingData(config, split, stored, unseen)


def _cases_to_validate(config, split, cases, validation, skip_invalid):
    if validation is not None and split.validation:
        raise InputError(
            "--validation-data validates on other cases instead of a split. Received also --validation-split or "
            f"--folds, by which {len(split.validation)} case(s) would neither train nor validate."
        )
    if config.training.validation_frequency is None:
        if validation is not None:
            raise InputError(
                "Validation cases need --validation-frequency, the number of epochs between validations. "
                "Received: none."
            )
        if split.validation:
            log.warning(
                f"{len(split.validation)} case(s) neither train nor validate: `validation_frequency` would say how "
                "often they are scored."
            )
        return []
    chosen = [case for case in cases if case.id in set(split.validation)] if validation is None else validation
    if not chosen:
        raise InputError(
            "--validation-frequency needs cases to validate on: --validation-split, --folds or --validation-data. "
            "Received: none."
        )
    training = [case for case in cases if case.id in set(split.training)]
    if validation is not None:  # Else `split_cases` has looked.
        warn_of_shared_patients([*training, *validation])
    return check_validation(config, chosen, training, skip_invalid=skip_invalid)
