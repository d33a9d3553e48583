"""What a network costs: multiply-adds, and estimates of memory."""

import math

from keras import layers

from brats_tf.models.remat import classifiers, repeats_itself
from brats_tf.models.slabs import BatchToSlabs

# Peak memory: what TensorFlow itself takes; the weights, with gradients and two moments of the optimiser when they are
# trained; and the layers' outputs: a training step keeps about this many times all of them, a prediction this many
# times the largest, and, for each network, this many times its input: cases before, after and beside it. Fitted to
# `python -m bench`, which prints estimate and measurement side by side, but for bfloat16 with rematerialisation: what
# that keeps has become less since.
PREDICTION_BYTES, TRAINING_BYTES = 0.69e9, 1.18e9
TRAINED_COPIES = 5
# By rematerialisation: of a classifier's layers, float32 on a CPU.
KEPT_BY_CLASSIFIER = {False: 0.92, True: 0.61}
# By (half precision, rematerialisation): of all other layers.
KEPT_ACTIVATIONS = {(False, False): 0.55, (False, True): 0.461, (True, False): 0.4556, (True, True): 0.402}
LIVE_ACTIVATIONS = 5.7
CASE_COPIES = 4
VOXEL_BYTES = 30  # Of a case's file, while it is read and its label map is written.
IMAGE_RANK = 4  # (B, H, W, C).


def all_layers(model):
    """The layers of a model, with those of nested models in their place."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from all_layers(layer)
        else:
            yield layer


def _layers_and_passes(model):
    """(layer, how often it runs for one volume, whether it is a classifier's) of all layers of a network.

    Where there is an image for each slab of slices, the classifier and all other layers of images run as often.
    """
    images = max((layer.count for layer in model.layers if isinstance(layer, BatchToSlabs)), default=1)
    for layer in model.layers:
        nested = hasattr(layer, "layers")
        for one in all_layers(layer) if nested else (layer,):
            yield one, images if nested or len(_outputs(one)[0].shape) == IMAGE_RANK else 1, nested


def multiply_adds(model):
    """Multiply-adds of all convolutions and dense layers in one pass over one volume; a FLOP count is twice this.

    As of plain convolutions: those of `winograd` multiply half as often.
    """
    return sum(passes * _multiply_adds(layer) for layer, passes, _ in _layers_and_passes(model))


def _multiply_adds(layer):
    if isinstance(layer, (layers.Conv2D, layers.Conv3D, layers.DepthwiseConv2D, layers.Dense)):
        return _positions(layer.output) * math.prod(layer.kernel.shape)
    if isinstance(layer, layers.SeparableConv2D):
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return _positions(layer.output) * kernels
    if isinstance(layer, (layers.Conv2DTranspose, layers.Conv3DTranspose)):
        return _positions(layer.input) * math.prod(layer.kernel.shape)
    return 0


def training_bytes(model, *, batch_size, precision="float32", rematerialise=False):
    """Estimates the peak memory of a training step of `model` on a CPU."""
    of_classifier = KEPT_BY_CLASSIFIER[rematerialise and all(map(repeats_itself, classifiers(model)))]
    of_others = KEPT_ACTIVATIONS[precision != "float32", rematerialise]
    kept = sum(size * (of_classifier if nested else of_others) for size, nested in _output_bytes(model))
    return TRAINING_BYTES + TRAINED_COPIES * _weight_bytes(model) + batch_size * kept


def prediction_bytes(model, *, networks, case_voxels=0):
    """Estimates the peak memory of predicting cases of so many voxels with `networks` sets of weights, in float32."""
    largest = max(size for size, _ in _output_bytes(model))
    cases = CASE_COPIES * networks * 4 * math.prod(model.input.shape[1:]) + VOXEL_BYTES * case_voxels
    return PREDICTION_BYTES + _weight_bytes(model) + LIVE_ACTIVATIONS * largest + cases


def _weight_bytes(model):
    return 4 * model.count_params()


def _output_bytes(model):
    """(bytes, whether it is a classifier's) of every layer's output for one volume, float32."""
    for layer, passes, nested in _layers_and_passes(model):
        for output in _outputs(layer):
            yield 4 * passes * _positions(output) * output.shape[-1], nested


def _outputs(layer):
    outputs = layer.output
    return outputs if isinstance(outputs, list) else [outputs]


def _positions(tensor):
    return math.prod(tensor.shape[1:-1])
