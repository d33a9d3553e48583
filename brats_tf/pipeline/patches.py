"""Cuts random patches out of cached cases, by graph operations."""

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Patches:
    """Random boxes instead of whole crops."""

    size: tuple  # (H, W, D) in voxels
    foreground_fraction: float = 0.0  # Of patches centred on a tumour voxel; the others lie in the brain's box


def cut_patch(channels, classes, box, *, patches, seed):
    """Cuts one random patch out of a case: a list of (h, w, d) float32, and (h, w, d) uint8.

    Source: AlbuNet paper, Section 2.3, samples patches from the non-zero area; `box`, (2, 3), is what the brain fills.
    """
    size, crop = tf.constant(patches.size), tf.constant(classes.shape.as_list())
    choose, place, pick = tf.unstack(tf.random.split(seed, 3))
    lowest = tf.minimum(box[0], crop - size)
    highest = tf.maximum(box[1] - size, lowest)
    share = tf.random.stateless_uniform((3,), place)
    corner = lowest + tf.cast(share * tf.cast(highest - lowest + 1, tf.float32), tf.int32)
    if patches.foreground_fraction:
        tumour = tf.where(classes > 0)
        centred = tf.logical_and(
            tf.random.stateless_uniform((), choose) < patches.foreground_fraction, tf.shape(tumour)[0] > 0
        )
        corner = tf.cond(centred, lambda: _around(tumour, size, crop, pick), lambda: corner)
    corner = tf.minimum(corner, crop - size)
    return [tf.slice(channel, corner, patches.size) for channel in channels], tf.slice(classes, corner, patches.size)


def _around(tumour, size, crop, seed):
    """The corner of a patch around one of the tumour's voxels (n, 3), as far as it fits into the crop."""
    index = tf.random.stateless_uniform((), seed, 0, tf.shape(tumour)[0], dtype=tf.int32)
    return tf.clip_by_value(tf.cast(tumour[index], tf.int32) - size // 2, 0, crop - size)
