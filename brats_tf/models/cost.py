"""What a network costs: multiply-adds, and estimates of memory."""

import math

from keras import layers

# Peak memory: what TensorFlow itself takes; the weights, with gradients and two moments of the optimiser when they are
# trained; and the layers' outputs: a training step keeps about this many times all of them, a prediction this many
# times the largest. Fitted to `python -m bench`, which prints estimate and measurement side by side.
PREDICTION_BYTES, TRAINING_BYTES = 0.9e9, 1.4e9
TRAINED_COPIES = 5
# By (half precision, rematerialisation).
KEPT_ACTIVATIONS = {(False, False): 0.553, (False, True): 0.461, (True, False): 0.4556, (True, True): 0.402}
LIVE_ACTIVATIONS = 5.5


def all_layers(model):
    """The layers of a model, with those of nested models in their place."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from all_layers(layer)
        else:
            yield layer


def multiply_adds(model):
    """Multiply-adds of all convolutions and dense layers in one pass over one volume; a FLOP count is twice this."""
    total = 0
    for layer in all_layers(model):
        if isinstance(layer, (layers.Conv2D, layers.Conv3D, layers.DepthwiseConv2D, layers.Dense)):
            total += _positions(layer.output) * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.SeparableConv2D):
            kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
            total += _positions(layer.output) * kernels
        elif isinstance(layer, (layers.Conv2DTranspose, layers.Conv3DTranspose)):
            total += _positions(layer.input) * math.prod(layer.kernel.shape)
    return total


def training_bytes(model, *, batch_size, precision="float32", rematerialise=False):
    """Estimates the peak memory of a training step of `model`."""
    activations = batch_size * sum(_output_bytes(model))
    kept = KEPT_ACTIVATIONS[precision != "float32", rematerialise]
    return TRAINING_BYTES + TRAINED_COPIES * _weight_bytes(model) + kept * activations


def prediction_bytes(model, *, networks):
    """Estimates the peak memory of predicting one volume with `networks` sets of weights for `model`."""
    return PREDICTION_BYTES + (1 + networks) * _weight_bytes(model) + LIVE_ACTIVATIONS * max(_output_bytes(model))


def _weight_bytes(model):
    return 4 * model.count_params()


def _output_bytes(model):
    """Bytes of every layer's output for one volume, float32."""
    return [4 * _positions(output) * output.shape[-1] for layer in all_layers(model) for output in _outputs(layer)]


def _outputs(layer):
    outputs = layer.output
    return outputs if isinstance(outputs, list) else [outputs]


def _positions(tensor):
    return math.prod(tensor.shape[1:-1])
