"""Compare an export with the networks that it was made of, on volumes of random numbers."""

import numpy as np

from brats_tf.errors import InputError
from brats_tf.exporting.label_map import channels_of
from brats_tf.inference.ensemble import ReadyCase, predict_case
from brats_tf.inference.postprocessing import postprocess
from brats_tf.inference.predictor import compiled_forward
from brats_tf.models.outputs import to_classes
from brats_tf.preprocessing.preprocess import PreparedCase
from brats_tf.preprocessing.transforms import brain_statistics, crop, uncrop, z_score
from brats_tf.regions import classes_to_labels

# Of probabilities: TensorFlow's own operations, another runtime's, and weights in float16.
TOLERANCE = {"savedmodel": 1e-5, "onnx": 1e-4, "litert": 1e-4}
TOLERANCE_OF_FLOAT16 = 0.05
SHARE_OF_VOXELS = 1e-4  # Of label maps: voxels whose probability lies on the threshold.


def compare_probabilities(run, predictors, options):
    """The largest difference from the networks on a random crop: {"largest_difference"}. Raises `InputError`."""
    configs = [one.config for one in predictors]
    channels = channels_of(configs)
    random = np.random.default_rng(configs[0].seed)
    volume = random.standard_normal((1, *configs[0].input_shape[:3], len(channels))).astype(np.float32)
    expected = np.float32(0)
    for predictor in predictors:
        places = [channels.index(modality) for modality in predictor.config.data.modalities]
        # Of any number of volumes, as the export: a single one is summed, and in bfloat16 rounded, in another order.
        run_network = compiled_forward(predictor.network, any_batch=True)
        expected = expected + run_network(None, volume[..., places]) / len(predictors)
    difference = float(np.abs(run(volume) - expected).max())
    allowed = TOLERANCE_OF_FLOAT16 if options.weight_type == "float16" else TOLERANCE[options.format]
    if not difference <= allowed:
        raise InputError(f"The export must equal its networks to {allowed}. Received: {difference}.")
    return {"largest_difference": difference}


def compare_label_maps(label_map, predictors, steps, convention):
    """Whether it finds the labels that `predict` finds: {"voxels_different", "voxels"}. Raises `InputError`."""
    raw = _head([one.config for one in predictors])
    expected = classes_to_labels(_predicted(raw, predictors, steps), convention)
    found = label_map(raw)
    if found.shape != expected.shape:
        raise InputError(f"The label map must have the shape {expected.shape}. Received: {found.shape}.")
    different = int(np.count_nonzero(found != expected))
    if different > SHARE_OF_VOXELS * found.size:
        raise InputError(
            f"The label map must be that of the networks. Received: {different} of {found.size} voxels differ."
        )
    return {"voxels_different": different, "voxels": found.size}


def _head(configs):
    """Random intensities in an ellipsoid, larger than the crop along two axes and smaller along the third."""
    shape = np.add(configs[0].data.crop, (5, -3, 4))
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    random = np.random.default_rng(configs[0].seed)
    voxels = random.integers(1, 1000, (*shape, len(channels_of(configs)))).astype(np.float32)
    return voxels * inside[..., None]


def _predicted(raw, predictors, steps):
    """The classes that `predict` finds in a volume (H, W, D, C) that is oriented already, voxels of 1 mm."""
    configs = [one.config for one in predictors]
    scored = [z_score(raw[..., i], *brain_statistics(raw[..., i])) for i in range(raw.shape[-1])]
    prepared = PreparedCase(crop(np.stack(scored, axis=-1), configs[0].data.crop), None, None, None)
    predicted = predict_case(ReadyCase("random", prepared, predictors, list(channels_of(configs)), [], 0.0))
    classes = uncrop(to_classes(predicted.average, predicted.outputs), raw.shape[:3])
    return postprocess(classes, (1.0, 1.0, 1.0), steps)
