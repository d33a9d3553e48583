import keras
import numpy as np
import pytest
import tensorflow as tf

from brats_tf.models.activations import silu
from brats_tf.models.backbones import feature_pyramid


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_keras_silu_with_its_gradient(dtype):
    x = tf.cast(np.random.default_rng(0).normal(0, 4, (2, 5, 7)), dtype)
    found = []
    for function in (silu, keras.ops.silu):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            total = tf.reduce_sum(y * x)
        found.append((y, tape.gradient(total, x)))
    for received, expected in zip(*found, strict=True):
        assert received.dtype == dtype
        tolerance = 1e-5 if dtype == "float32" else 4e-2
        np.testing.assert_allclose(tf.cast(received, "float32"), tf.cast(expected, "float32"), tolerance, tolerance)


def kept_for(function):
    """What the backward pass of sum(function(x)) takes from the forward pass: operations, by their type.

    TensorFlow takes an operation with the inputs of another, and without control dependencies, for the same one.
    """

    @tf.function(autograph=False)
    def traced(x):
        y = tf.reduce_sum(function(x))
        forward.extend(y.graph.get_operations())
        return tf.gradients(y, x)[0]

    forward = []
    graph = traced.get_concrete_function(tf.TensorSpec((4, 4))).graph
    known = {_signature(operation) for operation in forward}
    behind = graph.get_operations()[len(forward) :]
    taken = {tensor.op.type for operation in behind for tensor in operation.inputs if tensor.op in forward}
    merged = {one.type for one in behind if not one.control_inputs and _signature(one) in known}
    return (taken | merged) - {"Const", "Shape", "Identity", "IdentityN", "Fill"}


def _signature(operation):
    return (operation.type, *(_source(tensor) for tensor in operation.inputs))


def _source(tensor):
    """What a tensor is a copy of; a constant by its value."""
    while tensor.op.type in ("Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index]
    return str(tf.get_static_value(tensor)) if tensor.op.type == "Const" else tensor.name


def test_the_backward_pass_takes_the_input_alone():
    assert kept_for(silu) == {"Placeholder"}
    assert kept_for(keras.ops.silu) == {"Placeholder", "Mul"}  # Else this module is of no use any more.


@pytest.mark.parametrize("backbone", ["efficientnetb0", "efficientnetv2b0"])
def test_a_classifier_has_no_other_silu(backbone):
    activations = [
        layer.activation
        for layer in feature_pyramid(backbone, (64, 64, 3)).layers
        if isinstance(layer, keras.layers.Activation)
    ]
    assert activations.count(silu) > 20
    assert keras.activations.silu not in activations
