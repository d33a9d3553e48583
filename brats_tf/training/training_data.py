"""What one training learns from and is scored on: its cases, its epochs, its batches on one device or several."""

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.splits import split_cases
from brats_tf.errors import InputError
from brats_tf.pipeline.stream import Patches, Share, order_of_epoch, read_ahead, training_stream
from brats_tf.preprocessing.cache import Settings
from brats_tf.preprocessing.fill_cache import prepare_cases
from brats_tf.runs.record import data_hash
from brats_tf.training.validation import check_validation, prepared_case


@dataclass
class Job:
    """One config with what it trains on and what scores it."""

    config: object
    split: object
    stored: list
    validation: list

    @property
    def batch(self):
        """Cases or patches that go through the network at once, over all devices."""
        return self.config.batch_size // self.config.accumulation

    @property
    def steps(self):
        """How often that happens in an epoch."""
        return (self.config.batches or math.ceil(len(self.stored) / self.config.batch_size)) * self.config.accumulation

    @cached_property
    def identity(self):
        """What decides the numbers of the training, as JSON holds it."""
        config = json.loads(json.dumps(dataclasses.asdict(self.config)))  # Lists for tuples.
        return {"config": config, "data": data_hash(self.stored), "validation": [case.id for case in self.validation]}

    def samples(self, devices):
        """Cases or patches of an epoch; None for one of each case, where the last batch may be smaller."""
        config = self.config
        if config.batches or config.accumulation * devices > 1:
            return self.steps * self.batch
        return None

    def names(self, devices):
        """(epoch, step) -> the cases of that batch, for messages."""

        def names(epoch, step):
            count = len(self.stored)
            order = order_of_epoch(count, self.samples(devices) or count, self.config.seed, epoch).numpy()
            return sorted({self.stored[index].id for index in order[step * self.batch : (step + 1) * self.batch]})

        return names

    def watched(self):
        """The case that TensorBoard shows: the first one of validation, or of training."""
        if self.validation:
            prepared = prepared_case(self.config, self.validation[0])
            return self.validation[0].id, prepared.volume, prepared.classes
        case, crop = self.stored[0], self.config.crop
        channels = [np.fromfile(case.volumes[name], "<f4").reshape(crop) for name in self.config.modalities]
        return case.id, np.stack(channels, axis=-1), np.fromfile(case.classes, np.uint8).reshape(crop)

    def batches(self, strategy, place):
        """An iterator over what the devices of this machine take, from a place on."""
        config, devices = self.config, strategy.num_replicas_in_sync
        settings = {
            "modalities": config.modalities,
            "crop": config.crop,
            "batch_size": self.batch // devices,
            "seed": config.seed,
            "samples": self.samples(devices),
            "patches": Patches(config.patch, config.foreground) if config.patch else None,
            "start": (place[0], place[1] * self.batch),
        }
        if devices == 1:
            return iter(read_ahead(training_stream(self.stored, **settings)))

        def of_machine(context):
            count = devices // context.num_input_pipelines
            share = Share(context.input_pipeline_id * count, count, devices)
            return training_stream(self.stored, **settings, share=share)

        return iter(strategy.distribute_datasets_from_function(of_machine))


def make_job(config, cases, validation, *, store, workers, skip_bad):
    """Splits and prepares the cases of a config, and checks those that validate it.

    Args:
        config: a `Config`.
        cases: `Case`s with truth.
        validation: `Case`s to score while training; None for those that are held out.
        store, workers, skip_bad: see `preparing.prepare_cases`.

    Raises:
        InputError: when a case is bad, or nothing is held out that should be scored.
    """
    split = split_cases(cases, seed=config.seed, **config.split_settings())
    unseen = _validation_cases(config, split, cases, validation)
    stored = prepare_cases(
        [case for case in cases if case.id in set(split.training)],
        parts=(*config.modalities, SEGMENTATION),
        settings=Settings(config.crop, config.spacing_mm),
        folder=store,
        workers=workers,
        skip_bad=skip_bad,
    )
    split = dataclasses.replace(split, training=[case.id for case in stored])
    return Job(config, split, stored, unseen)


def _validation_cases(config, split, cases, validation):
    if config.validate_every is None:
        if validation is not None:
            raise InputError("Validation cases need to be told when: --validate-every. Received: none.")
        return []
    chosen = [case for case in cases if case.id in set(split.held_out)] if validation is None else validation
    check_validation(config, chosen, [case for case in cases if case.id in set(split.training)])
    return chosen
