"""Networks as a LiteRT file (TensorFlow Lite's), for phones and small machines (extra `runtimes`)."""

import keras
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import ops

from brats_tf.errors import InputError, in_one_line
from brats_tf.exporting.label_map import probabilities_function
from brats_tf.models.forms import one_form

FILE = "model.tflite"
POOLINGS = {keras.layers.MaxPooling3D: ops.max_pool, keras.layers.AveragePooling3D: ops.average_pool}


def write(members, folder, *, weight_type, label_map=None):
    """Writes `model.tflite`: `volume` (B, H, W, D, C) -> probabilities."""
    del label_map  # None: `export` asks a SavedModel alone for one.
    function = probabilities_function([(config, without_pooling_in_3d(network)) for config, network in members])
    with one_form():
        concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], function)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if weight_type == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    try:
        content = converter.convert()
    except Exception as error:  # The converter raises whatever it stumbles over.
        raise InputError(f"LiteRT cannot hold this network: {in_one_line(error)}.") from error
    (folder / FILE).write_bytes(content)


def load(folder):
    """What is in a folder, as functions of arrays."""
    return LoadedLiteRT(folder / FILE)


class LoadedLiteRT:
    """An interpreter of LiteRT on the CPU."""

    def __init__(self, path):
        self.interpreter = Interpreter(model_path=str(path))

    def run(self, volumes):
        """The probabilities of (B, H, W, D, C), float32."""
        (inputs,), (outputs,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if tuple(inputs["shape"]) != volumes.shape:
            self.interpreter.resize_tensor_input(inputs["index"], volumes.shape)
        self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(inputs["index"], volumes)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(outputs["index"])


def without_pooling_in_3d(network):
    """The same network, with the same weights, whose pooling of volumes is one of images; LiteRT has no other.

    Raises:
        InputError: when a layer pools along all three axes.
    """

    def replaced(layer):
        pool = next((pool for kind, pool in POOLINGS.items() if isinstance(layer, kind)), None)
        return PoolingOfImages(pool, layer) if pool else layer

    if not any(isinstance(layer, tuple(POOLINGS)) for layer in network.layers):
        return network
    return keras.models.clone_model(network, clone_function=replaced)


class PoolingOfImages(keras.layers.Layer):
    """What a pooling of volumes does along one or two of their axes: (B, X, Y, Z, C) -> (B, x, y, z, C).

    `pool` is the function of images; `layer` is replaced.
    """

    def __init__(self, pool, layer):
        super().__init__(name=layer.name)
        self.pool_images, self.padding = pool, layer.padding
        sizes = list(zip(layer.pool_size, layer.strides, strict=True))
        if (1, 1) not in sizes:
            raise InputError(f"LiteRT has no pooling along three axes. Received: {layer.name} of {layer.pool_size}.")
        self.untouched = 2 - sizes[::-1].index((1, 1))  # The last axis that is not pooled: images lie along it.
        del sizes[self.untouched]
        self.pool_size, self.strides = zip(*sizes, strict=True)

    def call(self, volumes):
        batch, pooled = ops.shape(volumes)[0], [axis for axis in (1, 2, 3) if axis != self.untouched + 1]
        images = ops.transpose(volumes, (0, self.untouched + 1, *pooled, 4))
        count, *image = images.shape[1:]
        images = self.pool_images(ops.reshape(images, (-1, *image)), self.pool_size, self.strides, self.padding)
        volumes = ops.reshape(images, (batch, count, *images.shape[1:]))
        return ops.moveaxis(volumes, 1, self.untouched + 1)
