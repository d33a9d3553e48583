"""Any 2D classifier as a feature pyramid, by one rule and without the name of any of its layers.

`Pn` is the last output 2**n times smaller than the image through which everything after it passes. For EfficientNet
these are the outputs that the authors' code names one by one (the expansions before each strided convolution); a
classifier without such an output at some scale (ConvNeXt starts with 1/4) has no such scale.
"""

import re

import keras
from keras import layers

from brats_tf.errors import InputError

SCALES = ("P1", "P2", "P3", "P4", "P5")
COARSEST = 2 ** len(SCALES)  # How many times smaller the last features are.
# What classifiers do to an image before their first convolution: here the planes are the image, see `backbones`.
INPUT_SCALING = (layers.Rescaling, layers.Normalization, layers.BatchNormalization)


def check_height_and_width(shape, what="volume"):
    """Raises `InputError` when H or W of (H, W, D, C) is no multiple of 32, as the scales must be."""
    height, width, depth, _ = shape
    if min(height, width) < COARSEST or height % COARSEST or width % COARSEST:
        raise InputError(
            f"Height and width of a {what} must be multiples of {COARSEST}. Received: {height}x{width}x{depth} "
            "(H x W x D)."
        )


def cut(classifier, *, name):
    """Cuts a classifier without top into a model image (B, H, W, C) -> {"P1": (B, H/2, W/2, C1), ..., "P5": ...}.

    Its own input scaling is left out. `name` becomes the model's; the classifier's layers are used, not copied.
    """
    pyramid = keras.Model(_behind_scaling(classifier), _scales(classifier), name=name)
    pyramid.layers[0].name = "image"  # Keras calls the input of a cut model keras_tensor_409CLONE.
    return pyramid


def stages(pyramid):
    """What `cut` returned as a chain: {scale: the network to it, from the scale before or from the image}."""
    found, before = {}, pyramid.inputs[0]
    for scale, features in pyramid.output.items():
        found[scale], before = keras.Model(before, features), features
    return found


def number_layers(classifier):
    """Counts the layers that Keras named by itself from zero, so that two builds of a classifier have equal names."""
    counts = {}
    for operation in classifier.operations:
        base = re.sub(r"_\d+$", "", operation.name)
        if base.replace("_", "") == type(operation).__name__.lower():
            number = counts[base] = counts.get(base, -1) + 1
            operation.name = f"{base}_{number}" if number else base


def _behind_scaling(classifier):
    """The tensor that enters the first layer that is no input scaling."""
    scaled = classifier.inputs[0]
    for layer in classifier.layers[1:]:
        if not isinstance(layer, INPUT_SCALING):
            return scaled
        scaled = layer.output


def _scales(classifier):
    """{"Pn": the last output of that size that no path from the image to the end goes around}."""
    height, width = classifier.input.shape[1:3]
    found = {}
    for tensor in _bottlenecks(classifier):
        for exponent, scale in enumerate(SCALES, start=1):
            if len(tensor.shape) == 4 and tensor.shape[1:3] == (height // 2**exponent, width // 2**exponent):
                found[scale] = tensor
    if not found:
        raise ValueError(f"{classifier.name} has no output {' or '.join(str(2**n) for n in range(1, 6))} times smaller")
    return dict(sorted(found.items()))


def _bottlenecks(classifier):
    """The outputs that everything after them passes through, in order.

    In an order where every operation follows its inputs, an output is a bottleneck if and only if nothing before it is
    read by anything after it.
    """
    operations = classifier.operations
    place = {id(operation): index for index, operation in enumerate(operations)}
    last_reader = list(range(len(operations)))
    for index, operation in enumerate(operations):
        # Keras's public `input` is another tensor for a nested model: its own, not the one that enters here.
        for node in operation._inbound_nodes[0].parent_nodes:
            writer = place[id(node.operation)]
            last_reader[writer] = max(last_reader[writer], index)
    read_until = 0
    for index, operation in enumerate(operations):
        if read_until <= index:
            yield operation._inbound_nodes[0].output_tensors[0]
        read_until = max(read_until, last_reader[index])
