import numpy as np
import pytest
import tensorflow as tf

from brats_tf.models import convolutions

LAYERS = {
    "Conv2D": (16, 16),
    "Conv3D": (16, 16, 8),
    "SlicesFirstConv3D": (8, 16, 16),
    "Conv2DTranspose": (16, 16),
    "Conv3DTranspose": (16, 16, 8),
}
SETTINGS = {"padding": "same", "bias_initializer": "normal", "activation": "relu"}


def outputs_and_gradients(layer, volume, *, training):
    with tf.GradientTape() as tape:
        tape.watch(volume)
        y = layer(volume, training=training)
        loss = tf.reduce_sum(tf.square(tf.cast(y, "float32")))
    return y, tape.gradient(loss, [volume, *layer.trainable_variables])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_a_training_computes_what_a_prediction_does(name, batch):
    layer = getattr(convolutions, name)(16, 3, **SETTINGS)
    volume = np.random.default_rng(0).normal(size=(batch, *LAYERS[name], 2))
    volume = tf.constant(volume, "float32")
    y, gradients = outputs_and_gradients(layer, volume, training=True)
    expected, plain = outputs_and_gradients(layer, volume, training=False)
    np.testing.assert_array_equal(y, expected)
    assert len(gradients) == 3
    for found, wanted in zip(gradients, plain, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_gradient_of_a_bias_is_the_sum_of_what_comes_from_behind(precision):
    """TensorFlow's own loses four fifths of such a sum in bfloat16 on a CPU."""
    layer = convolutions.Conv3D(16, 1, dtype=precision)
    volume = tf.ones((1, 48, 48, 48, 1))
    upstream = np.random.default_rng(0).normal(0.1, 1, (*volume.shape[:-1], 16))
    upstream = tf.cast(tf.constant(upstream), layer.compute_dtype)
    with tf.GradientTape() as tape:
        y = layer(volume, training=True)
    gradient = tape.gradient(y, layer.bias, output_gradients=upstream)
    exact = tf.reduce_sum(tf.cast(upstream, "float64"), axis=(0, 1, 2, 3))
    np.testing.assert_allclose(gradient, exact, rtol=5e-3 if precision != "float32" else 1e-5)


def test_without_a_bias_nothing_is_added():
    layer = convolutions.Conv3D(4, 1, use_bias=False)
    volume = tf.random.normal((1, 4, 4, 4, 2))
    np.testing.assert_array_equal(layer(volume, training=True), layer(volume, training=False))
