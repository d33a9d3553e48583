"""Streams of (volume, target) in tf.data. No Python runs while a stream flows, only graph operations."""

import tensorflow as tf

from brats_tf.regions import CLASSES, MEMBERSHIP

READ_AHEAD = 2  # Cases read in parallel, and batches held ready; a bound on memory.


def training_dataset(stored, *, shape, outputs, batch_size, seed):
    """Streams prepared cases, shuffled anew each epoch: (B, H, W, D, C) float32, target float32.

    Args:
        stored: `StoredCase`s.
        shape: (H, W, D, C) of the stored volumes.
        outputs: "regions" for targets (B, H, W, D, 3) WT, TC, ET; "classes" for one-hot (B, H, W, D, 4).
        batch_size: cases a batch; the last one may be smaller.
        seed: the same seed gives the same order in every epoch.

    Returns:
        A `tf.data.Dataset` of one epoch, prefetched on to the GPU where there is one.
    """
    paths = tf.data.Dataset.from_tensor_slices(
        ([str(case.volume) for case in stored], [str(case.classes) for case in stored])
    )
    # Paths are shuffled, not volumes: the whole set at once, and it costs nothing.
    paths = paths.shuffle(len(stored), seed=seed, reshuffle_each_iteration=True)
    cases = paths.map(
        lambda volume, classes: (read_volume(volume, shape), read_target(classes, shape[:3], outputs)),
        num_parallel_calls=READ_AHEAD,
        deterministic=True,
    )
    batches = cases.batch(batch_size)
    if tf.config.list_physical_devices("GPU"):
        return batches.apply(tf.data.experimental.prefetch_to_device("/gpu:0", buffer_size=READ_AHEAD))
    return batches.prefetch(READ_AHEAD)


def read_volume(path, shape):
    """Reads a stored volume (H, W, D, C), float32."""
    return tf.reshape(tf.io.decode_raw(tf.io.read_file(path), tf.float32, little_endian=True), shape)


def read_target(path, shape, outputs):
    """Reads stored classes (H, W, D) as regions (H, W, D, 3) or as one-hot classes (H, W, D, 4), float32."""
    classes = tf.cast(tf.reshape(tf.io.decode_raw(tf.io.read_file(path), tf.uint8), shape), tf.int32)
    if outputs == "classes":
        return tf.one_hot(classes, len(CLASSES))
    return tf.gather(tf.constant(MEMBERSHIP, tf.float32), classes)
