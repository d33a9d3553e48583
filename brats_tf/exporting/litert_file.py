"""Networks as a LiteRT file (TensorFlow Lite's), for phones and small machines (extra `runtimes`)."""

import keras
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import ops

from brats_tf.errors import InputError, in_one_line
from brats_tf.exporting.label_map import probabilities_function
from brats_tf.models.normalisation import one_form

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
    """What a pooling of volumes does along the depth alone, or within slices: (B, H, W, D, C) -> (B, h, w, d, C).

    `pool` is the function of images; `layer` is replaced.
    """

    def __init__(self, pool, layer):
        super().__init__(name=layer.name)
        self.pool_images, self.padding = pool, layer.padding
        self.pool_size, self.strides = tuple(layer.pool_size), tuple(layer.strides)
        self.along_depth = self.pool_size[:2] == self.strides[:2] == (1, 1)
        if not self.along_depth and (self.pool_size[2], self.strides[2]) != (1, 1):
            raise InputError(f"LiteRT has no pooling along three axes. Received: {layer.name} of {self.pool_size}.")

    def call(self, volumes):
        batch, (height, width, depth, channels) = ops.shape(volumes)[0], volumes.shape[1:]
        if self.along_depth:
            images = ops.reshape(volumes, (-1, height * width, depth, channels))
            images = self.pool_images(images, (1, self.pool_size[2]), (1, self.strides[2]), self.padding)
            return ops.reshape(images, (batch, height, width, images.shape[2], channels))
        images = ops.reshape(ops.transpose(volumes, (0, 3, 1, 2, 4)), (-1, height, width, channels))
        images = self.pool_images(images, self.pool_size[:2], self.strides[:2], self.padding)
        shape = (batch, depth, *images.shape[1:3], channels)
        return ops.transpose(ops.reshape(images, shape), (0, 2, 3, 1, 4))
