from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from traced_graphs import operations

from brats_tf.config.config import Config
from brats_tf.models import convolutions, kernel_gradients, slices_first, winograd
from brats_tf.models.build import build_network
from brats_tf.models.forms import one_form, plain_convolutions

SETTINGS = [
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 1, "padding": "same"},
    {"kernel_size": (1, 3, 3), "padding": "valid"},
    {"kernel_size": (5, 3, 1), "padding": "same"},
    {"kernel_size": 3, "padding": "same", "strides": (3, 1, 1)},
    {"kernel_size": 4, "padding": "same", "strides": (2, 2, 1)},
    {"kernel_size": (2, 3, 3), "padding": "valid", "strides": (3, 2, 2)},
]


def gradients(layer, x, upstream):
    """Those of the input and of the weights, in a training."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    weights = [weight.value for weight in layer.trainable_variables]
    return y, tape.gradient(y, [x, *weights], output_gradients=tf.cast(upstream, y.dtype))


def pair(settings, dtype, shape, kind=convolutions.Conv3D):
    """Our layer with bfloat16 weights, and Keras's with the same in `dtype`."""
    ours = kind(6, use_bias=False, dtype="mixed_bfloat16", **settings)
    exact = layers.Conv3D(6, use_bias=False, dtype=dtype, **settings)
    for layer in (ours, exact):
        layer.build(shape)
    kernel = np.random.default_rng(0).normal(size=ours.kernel.shape)
    ours.set_weights([kernel])
    exact.set_weights([np.array(tf.cast(tf.cast(kernel, "bfloat16"), dtype))])
    return ours, exact


# With the short first axes of which oneDNN's own gradient is wrong.
@pytest.mark.parametrize("shape", [(1, 2, 5, 6, 4), (2, 7, 40, 9, 4), (1, 3, 33, 8, 4), (1, 12, 10, 10, 4)])
@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_in_bfloat16_are_those_of_float64(settings, shape):
    ours, exact = pair(settings, "float64", shape)
    x = tf.cast(np.random.default_rng(1).normal(size=shape), "bfloat16")
    upstream = np.random.default_rng(2).normal(size=ours.compute_output_shape(shape))
    upstream = tf.cast(tf.cast(upstream, "bfloat16"), "float64")
    y, found = gradients(ours, x, upstream)
    wanted_y, wanted = gradients(exact, tf.cast(x, "float64"), upstream)
    assert [one.dtype for one in (y, *found)] == ["bfloat16", "bfloat16", "float32"]
    for mine, right in zip((y, *found), (wanted_y, *wanted), strict=True):
        np.testing.assert_allclose(tf.cast(mine, "float64"), right, rtol=0, atol=2**-8 * np.abs(right).max())


@pytest.mark.parametrize("spec", [(1, None, 8, 8, 4), (1, 6, None, 8, 4), (None, None, None, None, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_sizes_may_be_known_later(spec, bias):
    layer = convolutions.Conv3D(6, 3, strides=(2, 1, 1), padding="same", dtype="mixed_bfloat16", use_bias=bias)
    layer.build((1, 6, 8, 8, 4))
    x = tf.cast(np.random.default_rng(0).normal(size=(1, 6, 8, 8, 4)), "bfloat16")

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, [weight.value for weight in layer.trainable_variables])

    traced = tf.function(step, input_signature=[tf.TensorSpec(spec, "bfloat16")], autograph=False)
    for found, right in zip(traced(x), step(x), strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=2**-7 * np.abs(right).max())


@pytest.mark.parametrize("kind", [convolutions.Conv3D, slices_first.Conv3D])
@pytest.mark.parametrize("sections", [12, 16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sums_of_sections_give_the_same_gradient(dtype, sections, kind, monkeypatch):
    shape = (1, sections, 12, 10, 16)
    layer = kind(16, 3, padding="same", dtype=dtype)
    layer.build(shape)
    x = tf.cast(np.maximum(np.random.default_rng(1).normal(size=shape), 0), dtype)
    upstream = np.random.default_rng(2).normal(0.1, 1, size=shape)
    _, (_, plain, _) = gradients(layer, x, upstream)
    monkeypatch.setattr(winograd, "LEAST_MULTIPLY_ADDS", 0)
    kinds = operations(lambda x: gradients(layer, tf.cast(x, dtype), upstream)[1], shape)
    assert {"Conv3D", "Conv2DBackpropFilter", "MatMul"} <= kinds and "Conv3DBackpropFilterV2" not in kinds
    _, (_, found, _) = gradients(layer, x, upstream)
    error = np.linalg.norm(tf.cast(found - plain, "float64")) / np.linalg.norm(tf.cast(plain, "float64"))
    assert error < {"float32": 1e-5, "bfloat16": 2**-6}[dtype]


def test_a_training_in_bfloat16_takes_no_gradient_of_short_volumes_from_tensorflow():
    config = Config.from_preset("embedding-plus", modalities=("flair", "t2"), crop=(32, 32, 8), weights="none")
    network = build_network(config.replace(backbone="tiny"), precision="bfloat16")
    half = [one for one in network.layers if isinstance(one, layers.Conv3D) and one.compute_dtype == "bfloat16"]
    half = [one for one in half if one.input.shape[1] <= 12]
    assert len(half) > 5
    for layer in half:
        weights = [weight.value for weight in layer.trainable_variables]

        def step(x, layer=layer, weights=weights):
            with tf.GradientTape() as tape:
                y = layer(x, training=True)
            return tape.gradient(y, weights)

        assert "Conv3DBackpropFilterV2" not in operations(step, (1, *layer.input.shape[1:]))


def suits(shape=(1, 12, 192, 160, 16), **settings):
    layer = layers.Conv3D(16, **{"kernel_size": 3, "padding": "same"} | settings)
    return kernel_gradients.suits(layer, SimpleNamespace(shape=shape))


def test_what_is_left_to_tensorflow(monkeypatch):
    assert suits() and suits(shape=(1, 18, 192, 160, 16), dtype="mixed_bfloat16")
    for short in (2, 12, None):
        assert suits(shape=(1, short, 192, 160, 16), kernel_size=1, dtype="mixed_bfloat16")
    assert not suits(shape=(1, 17, 192, 160, 16), dtype="mixed_bfloat16")
    assert not suits(kernel_size=1) and not suits(shape=(1, 12, 8, 8, 16)) and not suits(dtype="float64")
    for settings in ({"dilation_rate": 2}, {"groups": 2}, {"data_format": "channels_first"}):
        assert not suits(**settings) and not suits(dtype="mixed_bfloat16", **settings)
    for form in (one_form, plain_convolutions):
        with form():
            assert not suits()
    monkeypatch.setattr(winograd, "on_gpu", lambda: True)
    assert not suits()
    monkeypatch.undo()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not suits()
