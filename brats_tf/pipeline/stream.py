"""Streams of batches in tf.data. No Python runs while a stream flows, only graph operations.

The seed, the number of the epoch and the place in it alone decide which case, patch and augmentation comes next. So a
stream that begins later continues the one that came that far, and devices that share a batch get what one would: only a
last batch that is smaller than the others is filled up for them, with cases of the epoch taken again.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf

from brats_tf.errors import InputError
from brats_tf.pipeline.augment import augment, drop_modalities
from brats_tf.pipeline.patches import Patches, cut_patch
from brats_tf.regions import CLASSES, MEMBERSHIP
from brats_tf.runtime.system import available_cores

READ_AHEAD = 2  # Whole crops read in parallel, and batches held ready; a bound on memory.
MOST_READ = 8  # Cases that patches are cut from at once.
FOREVER = 2**31
_ORDER, _PATCH, _AUGMENTATION = range(3)  # What a seed is for.


@dataclass(frozen=True)
class Shard:
    """The batches that one machine reads: `count` of every `total`, starting with `first`."""

    first: int = 0
    count: int = 1
    total: int = 1


@dataclass(frozen=True)
class Order:
    """Which samples a stream yields, in which batches, and where it begins.

    Attributes:
        seed: the same seed gives the same batches. batch_size: cases or patches per batch; the last one of an epoch may
        be smaller. samples: cases or patches per epoch; None for as many as there are cases. Every case comes equally
        often, to one. start: where to begin, as (epochs, samples of the next one) already taken; the stream is then
        what one from
            (0, 0) yields after them.
        epochs: how many; None for an endless stream. One that has begun counts.
        shard: the batches to read of those.
    """

    seed: int = 0
    batch_size: int = 1
    samples: int | None = None
    start: tuple = (0, 0)
    epochs: int | None = None
    shard: Shard = Shard()


def training_stream(
    stored: Sequence[Any],
    order: Order,
    *,
    modalities: Sequence[str],
    crop: tuple[int, int, int],
    patches: Patches | None = None,
) -> tf.data.Dataset:
    """Streams cached cases, shuffled anew each epoch: (B, H, W, D, C) float32, classes (B, H, W, D) uint8, seeds.

    Args:
        stored: `CachedCase`s with classes.
        order: an `Order`.
        modalities: the channels, in order.
        crop: (H, W, D) of what is cached.
        patches: `Patches`; None for whole crops.

    Returns:
        A `tf.data.Dataset`; its seeds, int64 (B, 2), are for `augment`.

    Raises:
        InputError: when a patch is larger than the crop, or there are no cases with these modalities and classes.
    """
    _check_cases(stored, modalities)
    if patches and any(part > whole for part, whole in zip(patches.size, crop, strict=True)):
        raise InputError(f"A patch must fit into the crop {crop}. Received: {patches.size}.")
    read = _reader(stored, order.seed, modalities=modalities, crop=crop, patches=patches)
    total, (first_epoch, taken) = order.samples or len(stored), order.start
    # A patch is small, and takes a whole case, up to 116 MB, while it is cut.
    calls = min(max(READ_AHEAD, available_cores()), MOST_READ) if patches else READ_AHEAD

    @tf.autograph.experimental.do_not_convert  # Graph operations alone; AutoGraph would take 0.7 s to find that out.
    def read_sample(epoch, number, index):
        sample = read(epoch, number, index)
        return tuple(part[None] for part in sample) if order.batch_size == 1 else sample  # Free; batching would copy.

    @tf.autograph.experimental.do_not_convert
    def one_epoch(epoch):
        indices, numbers = order_of_epoch(len(stored), total, order.seed, epoch), tf.range(total, dtype=tf.int64)
        numbered = tf.data.Dataset.from_tensor_slices((tf.repeat(epoch, total), numbers, indices))
        if order.shard.total > 1:
            numbered = numbered.filter(partial(_is_in_shard, order.shard, order.batch_size))
        if taken:
            numbered = numbered.filter(lambda epoch, number, _: (epoch > first_epoch) | (number >= taken))
        samples = numbered.map(read_sample, num_parallel_calls=calls, deterministic=True)
        return samples if order.batch_size == 1 else samples.batch(order.batch_size)

    last = FOREVER if order.epochs is None else first_epoch + order.epochs
    return _without_autotuning(tf.data.Dataset.range(first_epoch, last).flat_map(one_epoch))


def _check_cases(stored, modalities):
    if not stored:
        raise InputError("A stream needs cases. Received: none.")
    for case in stored:
        if missing := [name for name in modalities if name not in case.volumes]:
            raise InputError(
                f"Case {case.id}: {', '.join(missing)} must be cached. Received: {', '.join(case.volumes)}."
            )
        if case.classes is None:
            raise InputError(f"Case {case.id}: its truth must be cached, `parts` with seg. Received: images alone.")


def _reader(stored, seed, *, modalities, crop, patches):
    """A function of graph operations (epoch, number in it, index of the case) -> volume, classes, seeds."""
    files = tf.constant([[os.fsencode(case.volumes[name]) for name in modalities] for case in stored])
    class_files = tf.constant([os.fsencode(case.classes) for case in stored])
    boxes = tf.constant([case.box for case in stored], tf.int32)

    def read(epoch, number, index):
        channels = read_channels(files[index], crop, len(modalities))
        classes = read_classes(class_files[index], crop)
        if patches:
            place = _seed(seed, epoch, number, _PATCH)
            channels, classes = cut_patch(channels, classes, boxes[index], patches=patches, seed=place)
        return _stacked(channels), classes, _seed(seed, epoch, number, _AUGMENTATION)

    return read


def order_of_epoch(count, samples, seed, epoch):
    """Which of `count` cases each sample of an epoch is from: int32 (samples,)."""
    order, again = _shuffled(count, _seed(seed, epoch, 0, _ORDER)), _seed(seed, epoch, 1, _ORDER)
    if count < samples < 2 * count:  # Several devices fill the last batch: what comes before it stays as it is.
        return tf.concat([order, _shuffled(count, again)[: samples - count]], axis=0)
    if samples != count:
        order = tf.gather(order, _shuffled(samples, again) % count)
    return order


def training_dataset(stream: tf.data.Dataset, *, outputs: str, augmentation: str = "none") -> tf.data.Dataset:
    """Batches that a network learns from: (B, H, W, D, C) float32, target float32, augmented and read ahead.

    Args:
        stream: what `training_stream` returned.
        outputs: "regions" for targets (B, H, W, D, 3) WT, TC, ET; "classes" for one-hot (B, H, W, D, 4).
        augmentation: a key of `augment.PRESETS`.
    """
    finished = stream.map(lambda *batch: augment_and_encode(*batch, outputs=outputs, augmentation=augmentation))
    return read_ahead(finished)


def read_ahead(dataset):
    """Holds some batches ready, on the GPU where there is one."""
    if tf.config.list_physical_devices("GPU"):
        return dataset.apply(tf.data.experimental.prefetch_to_device("/gpu:0", buffer_size=READ_AHEAD))
    return dataset.prefetch(READ_AHEAD)


def _without_autotuning(dataset):
    """A dataset whose iterators end at once, within the grace that a scheduler gives a training.

    Nothing here is left to tf.data's autotuning, and its thread, which sleeps for up to a minute, would keep whoever
    drops an iterator waiting.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def augment_and_encode(volumes, classes, seeds, *, outputs, augmentation, modality_dropout=0.0):
    """Augments a batch of a stream and makes its target; on the device where it is called."""
    volumes, classes = augment(volumes, classes, seeds=seeds, preset=augmentation)
    if modality_dropout:
        volumes = drop_modalities(volumes, seeds=seeds, probability=modality_dropout)
    return volumes, to_target(classes, outputs)


def read_channels(paths, crop, count):
    """Reads stored modalities (C,) as a list of (H, W, D), float32."""
    return [
        tf.reshape(tf.io.decode_raw(tf.io.read_file(path), tf.float32, little_endian=True), crop)
        for path in tf.unstack(paths, num=count)
    ]


def read_classes(path, shape):
    """Reads stored classes (H, W, D), uint8."""
    return tf.reshape(tf.io.decode_raw(tf.io.read_file(path), tf.uint8), shape)


def to_target(classes, outputs):
    """Classes (..., H, W, D) as regions (..., H, W, D, 3) or one-hot (..., H, W, D, 4), float32."""
    if outputs == "classes":
        return tf.one_hot(classes, len(CLASSES))
    return tf.gather(tf.constant(MEMBERSHIP, tf.float32), tf.cast(classes, tf.int32))


def _stacked(channels):
    return channels[0][..., None] if len(channels) == 1 else tf.stack(channels, axis=-1)


def _is_in_shard(shard, batch_size, epoch, number, index):
    """Whether a sample belongs to the batches of a shard."""
    turn = number // batch_size % shard.total
    return (turn >= shard.first) & (turn < shard.first + shard.count)


def _shuffled(count, seed):
    return tf.random.experimental.stateless_shuffle(tf.range(count), seed)


def _seed(seed, epoch, number, purpose):
    """Two integers that no other epoch, place in it or purpose shares."""
    return tf.stack([tf.cast(epoch, tf.int64) * 2**32 + seed, tf.cast(number, tf.int64) * 4 + purpose])
