"""Augmentation as TensorFlow graph operations, for batches of volumes with their classes.

`augment` draws what a preset does to each case and how strongly; `operations` has the operations. Classes follow every
spatial step as whole numbers, so that the regions made of them afterwards stay nested and binary. The same seed gives
the same result.
"""

import functools
from dataclasses import dataclass

import tensorflow as tf

from brats_tf.pipeline import augment_ops as operations


@dataclass(frozen=True)
class AugmentationSetting:
    """How often an operation is applied, and the range that its strength is drawn from."""

    probability: float
    low: float
    high: float


# Each of the three axes is mirrored with this probability.
MIRROR = {"mirror": AugmentationSetting(0.5, 0, 0)}
# Strengths: elastic: width of the displacement's bumps as a share of the volume, their height is an eighth to a half
# of it; rotation: degrees about each axis; scale: of the coordinates, so that things become smaller above 1; noise:
# standard deviation, which is how batchgenerators, whose words the authors' code uses, takes its `noise_variance`;
# blur: sigma in voxels; brightness, contrast: factor; gamma: exponent; low_resolution: factor of the resolution;
# bias_field: coefficients of a cubic polynomial. Departs from batchgenerators: gamma keeps mean and deviation, and a
# blurred case is blurred in every channel.
PRESETS = {
    "none": {},  # embedding paper names none.
    # AlbuNet paper, Section 2.4, names these four; the figures are those of the authors' code.
    "albunet": MIRROR
    | {
        "elastic": AugmentationSetting(0.1, 0, 0.25),
        "noise": AugmentationSetting(0.15, 0, 0.05),
        "blur": AugmentationSetting(0.15, 0.5, 1.5),
    },
    # The list of the authors' code.
    "albunet-authors": MIRROR
    | {
        "elastic": AugmentationSetting(0.1, 0, 0.25),
        "rotation": AugmentationSetting(0.1, -15, 15),
        "scale": AugmentationSetting(0.1, 0.75, 1.25),
        "noise": AugmentationSetting(0.15, 0, 0.05),
        "blur": AugmentationSetting(0.15, 0.5, 1.5),
        "brightness": AugmentationSetting(0.15, 0.7, 1.5),
        "gamma": AugmentationSetting(0.15, 0.5, 2),
        "inverted_gamma": AugmentationSetting(0.15, 0.5, 2),
    },
    # After nnU-Net, with a bias field instead of elastic deformation; the background stays 0.
    "nnunet-like": MIRROR
    | {
        "rotation": AugmentationSetting(0.2, -30, 30),
        "scale": AugmentationSetting(0.2, 0.7, 1.4),
        "noise": AugmentationSetting(0.1, 0, 0.1),
        "blur": AugmentationSetting(0.2, 0.5, 1),
        "brightness": AugmentationSetting(0.15, 0.75, 1.25),
        "contrast": AugmentationSetting(0.15, 0.75, 1.25),
        "low_resolution": AugmentationSetting(0.25, 0.5, 1),
        "gamma": AugmentationSetting(0.3, 0.7, 1.5),
        "inverted_gamma": AugmentationSetting(0.1, 0.7, 1.5),
        "bias_field": AugmentationSetting(0.15, -0.3, 0.3),
    },
}
KEEP_BACKGROUND = (
    "nnunet-like",
)  # Presets in which voxels of 0, outside the brain, are 0 again after intensity operations.
INTENSITY = ("noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma", "bias_field")
DRAWS = ("mirror", "elastic", "rotation", "scale", *INTENSITY)  # Their order decides which random numbers each draws.


def augment(volumes, classes, *, seeds, preset):
    """Augments a batch: (B, H, W, D, C) float32 and (B, H, W, D) uint8 -> the same shapes and types.

    Every case draws its own operations and strengths.

    Args:
        volumes: z-scored modalities, background 0.
        classes: see `regions.CLASSES`.
        seeds: two integers for each case, an int64 tensor (B, 2).
        preset: a key of `PRESETS`.
    """
    if not PRESETS[preset]:
        return volumes, classes
    shape = volumes.shape[1:]
    cases = tf.range(tf.shape(volumes)[0])

    def one(case):
        return augment_case(tf.ensure_shape(volumes[case], shape), classes[case], seed=seeds[case], preset=preset)

    types = (tf.TensorSpec(shape, tf.float32), tf.TensorSpec(shape[:3], tf.uint8))
    return tf.map_fn(one, cases, fn_output_signature=types)


def drop_modalities(volumes, *, seeds, probability):
    """Sets one modality of some cases to 0: (B, H, W, D, C) float32 -> the same shape.

    Args:
        volumes: z-scored modalities.
        seeds: as of `augment`, whose draws stay what they are.
        probability: that a case lacks one; each is as likely as the others.
    """
    count = volumes.shape[-1]

    def kept(seed):
        chance, choice = tf.unstack(tf.random.split(tf.random.fold_in(seed, len(DRAWS)), 2))
        missing = tf.random.stateless_uniform((), choice, maxval=count, dtype=tf.int32)
        happens = tf.random.stateless_uniform((), chance) < probability
        return tf.where(happens, 1 - tf.one_hot(missing, count), tf.ones(count))

    mask = tf.map_fn(kept, seeds, fn_output_signature=tf.TensorSpec((count,), tf.float32))
    return volumes * mask[:, None, None, None]


def augment_case(volume, classes, *, seed, preset):
    """Augments one case: (H, W, D, C) float32 and (H, W, D) uint8 -> the same shapes and types."""
    chances = PRESETS[preset]
    draws = {name: RandomDraw(chances[name], tf.random.fold_in(seed, DRAWS.index(name))) for name in chances}
    # One channel after another is several times faster than a last axis of two to four.
    channels = tf.unstack(volume, axis=-1) if volume.shape[-1] > 1 else [tf.reshape(volume, volume.shape[:3])]
    channels, classes = _spatial(channels, classes, draws)
    background = [channel == 0 for channel in channels]
    for name in INTENSITY:
        if name in draws:
            changed = functools.partial(_change, channels, name, draws[name])
            channels = tf.cond(draws[name].happens, changed, functools.partial(list, channels))
    if preset in KEEP_BACKGROUND:
        channels = [tf.where(where, 0.0, channel) for where, channel in zip(background, channels, strict=True)]
    return tf.reshape(channels[0], volume.shape) if len(channels) == 1 else tf.stack(channels, axis=-1), classes


class RandomDraw:
    """The random numbers of one operation on one case."""

    def __init__(self, chance, seed):
        self.chance = chance
        self.seeds = tf.unstack(tf.random.split(seed, 3))
        self.happens = tf.random.stateless_uniform((), self.seeds[0]) < chance.probability

    def strength(self, shape=()):
        """Uniform between the chance's low and high."""
        return tf.random.stateless_uniform(shape, self.seeds[1], self.chance.low, self.chance.high)

    def factor(self, shape=()):
        """Around 1: below it as often as above, uniform on either side."""
        part = tf.random.stateless_uniform(shape, self.seeds[1])
        above = tf.random.stateless_uniform(shape, self.seeds[2]) < 0.5
        return tf.where(above, 1 + part * (self.chance.high - 1), 1 - part * (1 - self.chance.low))


def _spatial(channels, classes, draws):
    """Rotation, scale and elastic deformation in one interpolation, then mirroring."""
    turned = [draws[name].happens for name in ("rotation", "scale", "elastic") if name in draws]
    if turned:
        channels, classes = tf.cond(
            tf.reduce_any(turned), lambda: _deform(channels, classes, draws), lambda: (channels, classes)
        )
    if "mirror" in draws:
        flips = tf.random.stateless_uniform((3,), draws["mirror"].seeds[1]) < draws["mirror"].chance.probability
        channels, classes = operations.mirror(channels, classes, flips)
    return channels, classes


def _deform(channels, classes, draws):
    matrix = tf.eye(3)
    # A single slice turns about D alone and is not shifted along it: there is nothing beside it.
    axes = (0.0, 0.0, 1.0) if classes.shape[2] == 1 else (1.0, 1.0, 1.0)
    free = (1.0, 1.0, 0.0) if classes.shape[2] == 1 else (1.0, 1.0, 1.0)
    if "rotation" in draws:
        draw = draws["rotation"]
        matrix = tf.where(draw.happens, operations.rotation_matrix(draw.strength((3,)) * axes), matrix)
    if "scale" in draws:
        draw = draws["scale"]
        matrix *= tf.where(draw.happens, draw.factor(), 1.0)
    if "elastic" not in draws:
        return operations.warp(channels, classes, matrix)
    draw = draws["elastic"]

    def elastic():
        shifts = operations.displacement(classes.shape, draw.strength(), draw.seeds[2])
        return operations.warp(channels, classes, matrix, shifts * tf.reshape(free, (3, 1, 1, 1)))

    return tf.cond(draw.happens, elastic, lambda: operations.warp(channels, classes, matrix))


def _change(channels, name, draw):
    """One intensity operation; each channel has its own strength."""
    count, operation = len(channels), getattr(operations, name)
    if name == "noise":
        return [
            operation(channel, deviation, tf.random.fold_in(draw.seeds[2], number))
            for number, (channel, deviation) in enumerate(
                zip(channels, tf.unstack(draw.strength((count,))), strict=True)
            )
        ]
    if name == "bias_field":
        strengths = draw.strength((count, *(operations.BIAS_DEGREE + 1,) * 3))
    elif name in ("blur", "low_resolution"):
        strengths = draw.strength((count,))
    else:
        strengths = draw.factor((count,))
    return [operation(channel, one) for channel, one in zip(channels, tf.unstack(strengths), strict=True)]
