"""From raw intensities to a label map in one TensorFlow graph: what `predict` computes, for programs without it."""

from functools import partial

import numpy as np
import tensorflow as tf

from brats_tf.inference.predictor import MIRRORED
from brats_tf.models.registry import get_network
from brats_tf.regions import CLASSES, ENHANCING, MODALITIES, NECROSIS, REGION_THRESHOLD, REGIONS

VOXEL_ML = 1e-3  # Volumes are taken as of voxels of 1 mm, as BraTS files have.


def channels_of(configs):
    """The channels that the networks take together: one network's own, else all modalities that they see, in order."""
    if len(configs) == 1:
        return tuple(configs[0].data.modalities)
    seen = {modality for config in configs for modality in config.data.modalities}
    return tuple(modality for modality in MODALITIES if modality in seen)


def why_no_label_map(configs, steps):
    """Why what `predict` does with these networks and `PostProcessing` cannot be one graph; None where it can."""
    if any(config.data.patch_size for config in configs):
        return "the networks see patches, and the number of sliding windows depends on the volume"
    if any(config.data.spacing_mm for config in configs):
        return "the networks see resampled volumes (`spacing_mm`)"
    if len({config.data.crop for config in configs}) > 1:
        return "the networks see crops of several sizes"
    if len({outputs_of(config) for config in configs}) > 1:
        return "some of the networks have regions, others classes"
    if steps.remove_below_ml or steps.fill_holes:
        return "--remove-below-ml and --fill-holes look for connected components, which TensorFlow has no operation for"
    return None


def probabilities_function(members):
    """A `tf.function` {"regions" or "classes": probabilities} of a `volume` (B, H, W, D, C), cropped and z-scored.

    Several networks are averaged.
    """
    configs = [config for config, _ in members]
    channels, outputs = channels_of(configs), outputs_of(configs[0])

    def probabilities(volume):
        found = [_forward(config, network, volume, channels) for config, network in members]
        return {outputs: found[0] if len(found) == 1 else tf.add_n(found) / len(found)}

    shape = (None, *configs[0].input_shape[:3], len(channels))
    signature = [tf.TensorSpec(shape, tf.float32, name="volume")]
    return tf.function(probabilities, input_signature=signature, autograph=False)


def label_map_function(members, *, labels, mirror="none", drop_et_below_ml=0.0):
    """A `tf.function` from a whole volume to its label map.

    It takes `volume` (H, W, D, M) float32, raw intensities of any size with a background of 0, growing indices to the
    back, to the patient's left and to the head, channels as `channels_of` orders them. A channel of zeros is a modality
    that is missing: the networks that fit the others are averaged. It returns {"labels": (H, W, D) uint8}.

    Args:
        members: [(config, Keras network)].
        labels: the number of each of `CLASSES`.
        mirror: a key of `MIRRORED`.
        drop_et_below_ml: as in `PostProcessing`; voxels count 1 mm³.
    """
    configs = [config for config, _ in members]
    channels, outputs, size = channels_of(configs), outputs_of(configs[0]), configs[0].data.crop

    def label_map(volume):
        volume = tf.debugging.check_numerics(volume, "volume must hold finite numbers")
        present = tf.reduce_any(tf.not_equal(volume, 0), axis=(0, 1, 2))
        scored = tf.stack([z_score(volume[..., channel]) for channel in range(len(channels))], axis=-1)
        seen = _crop(scored, size)
        classes = _to_classes(_average(members, seen, present, mirror), outputs)
        classes = _drop_small_et(classes, drop_et_below_ml)
        found = tf.gather(tf.constant(labels, tf.uint8), classes)
        return {"labels": _uncrop(found, tf.shape(volume)[:3], size)}

    signature = [tf.TensorSpec((None, None, None, len(channels)), tf.float32, name="volume")]
    return tf.function(label_map, input_signature=signature, autograph=False)


def z_score(voxels):
    """The brain to zero mean and unit variance, statistics in float64; background stays 0: (H, W, D) -> the same."""
    inside = tf.not_equal(voxels, 0)
    brain = tf.cast(tf.boolean_mask(voxels, inside), tf.float64)
    count = tf.maximum(tf.cast(tf.size(brain), tf.float64), 1)
    mean = tf.reduce_sum(brain) / count
    spread = tf.sqrt(tf.reduce_sum(tf.square(brain - mean)) / count)
    spread = tf.where(spread > 0, spread, tf.ones_like(spread))
    scored = (voxels - tf.cast(mean, tf.float32)) / tf.cast(spread, tf.float32)
    return scored * tf.cast(inside, tf.float32)


def _average(members, seen, present, mirror):
    """The mean over the networks that fit the modalities that are there, (H, W, D, K)."""
    channels = channels_of([config for config, _ in members])
    used = networks_used([config for config, _ in members], present, channels)
    count = tf.reduce_sum(tf.cast(tf.stack(used), tf.float32))
    message = f"no network fits the modalities that are not 0; the channels are {', '.join(channels)}"
    with tf.control_dependencies([tf.debugging.assert_positive(count, message=message)]):
        total = tf.zeros((*seen.shape[:3], members[0][1].output.shape[-1]))
    for (config, network), use in zip(members, used, strict=True):

        def added(total=total, config=config, network=network):
            return total + _mirrored(partial(_forward, config, network, channels=channels), seen, mirror)

        total = tf.cond(use, added, lambda total=total: tf.identity(total))
    return total / count


def networks_used(configs, present, channels):
    """Which networks predict, as `ensemble.read_case` chooses them: a boolean tensor for each."""
    there = [tf.gather(present, _places(config, channels)) for config in configs]
    lacking = [tf.reduce_sum(1 - tf.cast(one, tf.int32)) for one in there]
    fits = [one == 0 for one in lacking]
    none_fits = tf.logical_not(tf.reduce_any(tf.stack(fits)))
    can_do_without = [config.data.modality_dropout > 0 for config in configs]
    return [fit | (none_fits & (one == 1) & can) for fit, one, can in zip(fits, lacking, can_do_without, strict=True)]


def _forward(config, network, volume, channels):
    """What one network makes of its channels of (B, H, W, D, C)."""
    return network(tf.gather(volume, _places(config, channels), axis=-1), training=False)


def _mirrored(forward, volume, mirror):
    """The mean over a volume (H, W, D, C) and its mirror images, each mirrored back; see `MIRRORED`."""
    images = MIRRORED[mirror]
    if len(images) == 1:
        return forward(volume=volume[None])[0]
    back = [tf.reverse(forward(volume=tf.reverse(volume, axes)[None])[0], axes) for axes in images]
    return tf.add_n(back) / len(images)


def _places(config, channels):
    return [channels.index(modality) for modality in config.data.modalities]


def outputs_of(config):
    """What the network of a config has: "regions" or "classes"."""
    return get_network(config.network.name).outputs


def _to_classes(average, outputs):
    """As `models.outputs.to_classes`, (H, W, D) int32."""
    if outputs == "classes":
        return tf.argmax(average, axis=-1, output_type=tf.int32)
    classes = tf.zeros(average.shape[:3], tf.int32)
    for region, name in zip(range(len(REGIONS)), ("edema", "necrosis", "enhancing"), strict=True):
        classes = tf.where(average[..., region] > REGION_THRESHOLD, CLASSES.index(name), classes)
    return classes


def _drop_small_et(classes, least_ml):
    if not least_ml:
        return classes
    enhancing = tf.equal(classes, ENHANCING)
    small = tf.cast(tf.math.count_nonzero(enhancing), tf.float64) * VOXEL_ML < least_ml
    return tf.where(enhancing & small, NECROSIS, classes)


def _crop(scored, size):
    """The image-centred box, padded with zeros where the volume is smaller, as `transforms.crop`."""
    start = (tf.shape(scored)[:3] - size) // 2
    first, length = tf.maximum(start, 0), tf.minimum(tf.shape(scored)[:3], size)
    inside = tf.slice(scored, [*tf.unstack(first), 0], [*tf.unstack(length), scored.shape[-1]])
    before = tf.maximum(-start, 0)
    padding = tf.concat([tf.stack([before, size - length - before], axis=1), np.zeros((1, 2), np.int32)], axis=0)
    return tf.ensure_shape(tf.pad(inside, padding), (*size, scored.shape[-1]))


def _uncrop(found, shape, size):
    """The inverse of `_crop` for labels, 0 outside the box."""
    start = (shape - size) // 2
    first, length = tf.maximum(-start, 0), tf.minimum(shape, size)
    inside = tf.slice(found, first, length)
    before = tf.maximum(start, 0)
    return tf.pad(inside, tf.stack([before, shape - length - before], axis=1))
