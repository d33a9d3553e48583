import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from traced_graphs import operations

from brats_tf.models import blocks, one_pass
from brats_tf.models.forms import one_form
from brats_tf.models.normalisation import GroupNormalization
from brats_tf.models.one_pass import has_one_pass, relu_gradient, sample, scale_and_shift, sums_around
from brats_tf.models.remat import rematerialised

# In one pass, for two volumes as well; sizes that no row divides, or unknown, are summed otherwise.
SHAPES = [(1, 4096, 16), (2, 3000, 32), (1, 600, 3), (1, 4099, 16)]


def drawn(shape, mean, dtype, seed=0):
    return tf.cast(np.random.default_rng(seed).normal(mean, 1, shape), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sums_are_those_of_float64_in_any_precision(shape, dtype):
    g, x = drawn(shape, 0.5, dtype), drawn(shape, 3, dtype, seed=1)
    around, slope = drawn((shape[0], shape[2]), 3, "float32", seed=2), drawn((shape[0], shape[2]), 0, "float32", seed=3)
    assert has_one_pass(x) == (shape != SHAPES[-1])
    found = sums_around(g, x, around, slope)
    assert [one.dtype for one in found] == ["float32", "float32", dtype]
    g, x, around, slope = (tf.cast(one, "float64").numpy() for one in (g, x, around, slope))
    tolerance = 3e-4 if (dtype, shape) == ("bfloat16", SHAPES[-1]) else 3e-6  # Of chunks, each of which is rounded.
    np.testing.assert_allclose(found.means, g.mean(axis=1), rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.products, (g * (x - around[:, None])).mean(axis=1), rtol=0, atol=3e-6)
    scaled = tf.cast(found.scaled, "float64")
    np.testing.assert_allclose(scaled, g * slope[:, None], rtol=2**-8 if dtype == "bfloat16" else 1e-6)


def test_the_sums_of_a_compiled_function_of_any_size_are_the_same():
    g, x = drawn((1, 4096, 16), 0.5, "float32"), drawn((1, 4096, 16), 3, "float32", seed=1)
    around = tf.ones((1, 16))
    specs = [tf.TensorSpec((None, None, 16))] * 2 + [tf.TensorSpec((None, 16))]
    compiled = tf.function(lambda *given: sums_around(*given)[:2], input_signature=specs, autograph=False)
    for found, right in zip(compiled(g, x, around), sums_around(g, x, around), strict=False):
        np.testing.assert_allclose(found, right, rtol=0, atol=3e-6)


def test_other_backends_forms_and_a_gpu_take_other_sums(monkeypatch):
    x = tf.zeros((1, 4096, 16))
    assert has_one_pass(x) and has_one_pass(tf.cast(x, "bfloat16"))
    assert not has_one_pass(tf.cast(x, "float16")) and not has_one_pass(tf.cast(x, "float64"))
    with one_form():
        assert not has_one_pass(x)
    monkeypatch.setattr(one_pass, "on_gpu", lambda: True)
    assert not has_one_pass(x)
    monkeypatch.undo()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not has_one_pass(x)


@pytest.mark.parametrize("size", [5, 4096, 192 * 160 * 12])
def test_a_sample_has_about_the_mean_and_the_deviation(size):
    """Of a ramp, so that a sample of its beginning would be far away."""
    x = tf.cast(np.linspace(0, 1, size), "float32")[None, :, None] * tf.ones(16)
    drawn = sample(x).numpy()
    count = drawn.shape[1]
    assert drawn.shape == (1, count, 16) and min(size, one_pass.SAMPLE // 2) <= count <= 2 * one_pass.SAMPLE
    np.testing.assert_allclose(drawn.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(drawn.std(axis=1), x.numpy().std(axis=1), atol=0.01)


@pytest.mark.parametrize("batch", [1, 2])
def test_without_a_slope_nothing_is_scaled(batch):
    x = drawn((batch, 4096, 16), 0, "float32")
    assert sums_around(x, x, tf.zeros((batch, 16))).scaled is None


@pytest.mark.parametrize("channels", [1, 3, 8, 24])
def test_few_channels_are_scaled_and_shifted_like_others(channels):
    x, slope, offset = (drawn(shape, 0, "float32") for shape in ((1, 480, channels), (1, channels), (1, channels)))
    np.testing.assert_allclose(scale_and_shift(x, slope, offset), x * slope[:, None] + offset[:, None], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_asks_for_the_pass_with_relu(dtype):
    layer, x = GroupNormalization(4, relu=True, dtype=dtype), drawn((1, 8, 8, 16), 1, dtype)
    training = tf.function(lambda x: layer(x, training=True), autograph=False)
    np.testing.assert_array_equal(training(x), layer(x, training=True))
    kinds = operations(lambda x: layer(x, training=True), x.shape)
    assert "_FusedBatchNormEx" in kinds and "Relu" not in kinds
    assert "_FusedBatchNormEx" not in operations(lambda x: layer(x, training=False), x.shape)


# Rows that the operation refuses, sizes that are not known before, a type without oneDNN's kernel.
@pytest.mark.parametrize("spec", [(1, 5, 7, 3, 3), (1, 5, 7, 3, 1), (None, None, None, None, 6), (1, 5, 7, 3, 8)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_traced_training_is_right_for_any_channels_and_sizes(spec, dtype):
    layer = GroupNormalization(-1, relu=True, dtype=dtype)  # One group for each channel.
    x = drawn((1, 5, 7, 3, spec[-1]), 3, dtype)
    layer.build(x.shape)
    traced = tf.function(lambda x: layer(x, training=True), input_signature=[tf.TensorSpec(spec, dtype)])
    right = tf.nn.relu(layers.GroupNormalization(-1, dtype="float64")(tf.cast(x, "float64")))
    tolerance = {"float32": 1e-5, "bfloat16": 2**-6, "float16": 2**-8}[dtype]
    np.testing.assert_allclose(tf.cast(traced(x), "float64"), right, atol=tolerance)


def test_a_volume_whose_batch_is_known_in_the_gradient_alone():
    layer = GroupNormalization(8)
    layer.build((None, 8, 8, 8, 16))

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 8, 16))])
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, x, output_gradients=tf.ones((2, 8, 8, 8, 16)))

    np.testing.assert_allclose(gradient(drawn((2, 8, 8, 8, 16), 0, "float32")), 0, atol=1e-4)


WITHOUT_ONEDNN = """
import numpy as np, tensorflow as tf
from brats_tf.models.convolutions import Conv3D
from brats_tf.models.normalisation import GroupNormalization
from brats_tf.models.onednn import has_onednn

assert not has_onednn("float32") and not has_onednn("bfloat16")
for dtype in ("float32", "bfloat16"):
    layers = [GroupNormalization(4, relu=True, dtype=dtype), Conv3D(16, 3, padding="same", dtype=dtype)]

    @tf.function(autograph=False)
    def gradients(x):
        with tf.GradientTape() as tape:
            y = layers[1](layers[0](x, training=True), training=True)
        return tape.gradient(y, [weight.value for layer in layers for weight in layer.trainable_variables])

    x = tf.cast(np.random.default_rng(0).normal(size=(1, 32, 32, 32, 16)), dtype)
    found = gradients(x)
    assert all(np.isfinite(tf.cast(one, "float32")).all() for one in found)
    np.testing.assert_allclose(tf.cast(found[-1], "float32"), 32**3, rtol=0.01)
"""


@pytest.mark.slow
def test_it_trains_without_onednn_too():
    """Whose kernels are then missing, and whose average pooling would round after each addition."""
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    done = subprocess.run([sys.executable, "-c", WITHOUT_ONEDNN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_gradient_of_a_relu():
    g, y = tf.constant([[1.0, -2.0, 3.0]]), tf.constant([[0.0, 4.0, 5.0]])
    np.testing.assert_array_equal(relu_gradient(g, y), [[0, -2, 3]])


@pytest.mark.parametrize(("keep", "passes"), [("all", 4), ("step", 4), ("block", 6)])
def test_a_training_takes_the_statistics_once_for_each_time_that_it_computes_a_block(keep, passes):
    """Two normalisations forward and backward; with "block", which computes all of it again, twice forward."""
    volume = keras.Input((8, 8, 8, 16))
    x = layers.MaxPooling3D((1, 1, 1))(volume)
    network = rematerialised(keras.Model(volume, blocks.residual_block(x, 16, name="block")), keep)

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(network(x, training=True) ** 2)
        return tape.gradient(loss, [weight.value for weight in network.trainable_variables])

    graph = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((1, 8, 8, 8, 16))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("FusedBatchNormGradV3") == passes
