from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.ndimage import correlate
from traced_graphs import operations

from brats_tf.models import convolutions, slices_first, winograd
from brats_tf.models.embedding import embedding_network
from brats_tf.models.forms import one_form, plain_convolutions
from brats_tf.models.plus import plus_network
from brats_tf.models.precision import dtype_policy
from brats_tf.models.remat import rematerialised

# (B, A, H, W, C) and filters: one tile of four and of six, chunks of one, of several and a rest, two volumes.
SHAPES = [
    ((1, 4, 5, 6, 16), 32),
    ((1, 6, 5, 6, 16), 32),
    ((1, 12, 7, 6, 32), 32),
    ((1, 44, 5, 4, 32), 48),
    ((1, 42, 5, 4, 32), 48),
    ((2, 16, 6, 5, 48), 16),
]
ROUNDING = {4: 5e-6, 6: 1e-5}  # Of the largest value, by the sections of a tile.


@pytest.fixture
def at_any_size(monkeypatch):
    monkeypatch.setattr(winograd, "LEAST_MULTIPLY_ADDS", 0)


def volume(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def outputs_and_gradients(layer, x, upstream, *, training):
    """Output, and gradients of input, kernel and bias."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
    weights = [weight.value for weight in layer.trainable_variables]
    return [np.array(one) for one in (y, *tape.gradient(y, [x, *weights], output_gradients=tf.constant(upstream)))]


def built(kind, shape, filters, **settings):
    layer = kind(filters, 3, padding="same", bias_initializer="normal", **settings)
    layer.build(shape)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "filters"), SHAPES)
@pytest.mark.parametrize("kind", [convolutions.Conv3D, slices_first.Conv3D])
def test_output_and_gradients_are_those_of_the_plain_convolution(kind, shape, filters, training, monkeypatch):
    layer, x, upstream = built(kind, shape, filters), volume(shape), volume((*shape[:-1], filters), seed=1)
    expected = outputs_and_gradients(layer, x, upstream, training=training)
    monkeypatch.setattr(winograd, "LEAST_MULTIPLY_ADDS", 0)
    assert "Conv3D" not in operations(layer, shape)
    found = outputs_and_gradients(layer, x, upstream, training=training)
    assert len(found) == 4
    for mine, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=0, atol=ROUNDING[winograd._tile(shape[1])] * np.abs(plain).max())


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_may_have_no_bias_and_an_activation(training, monkeypatch):
    shape, upstream = SHAPES[2][0], volume((*SHAPES[2][0][:-1], 32), seed=1)
    layer = built(convolutions.Conv3D, shape, 32, use_bias=False, activation="relu")
    expected = outputs_and_gradients(layer, volume(shape), upstream, training=training)
    monkeypatch.setattr(winograd, "LEAST_MULTIPLY_ADDS", 0)
    found = outputs_and_gradients(layer, volume(shape), upstream, training=training)
    assert len(found) == 3
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=5e-6 * expected[0].max())
    assert (found[0] >= 0).all()
    for mine, plain in zip(found[1:], expected[1:], strict=True):  # Where the ReLU bends, rounding decides.
        assert np.abs(mine - plain).mean() < 1e-4 * np.abs(plain).mean()


def test_it_is_right_to_a_few_units_in_the_last_digit(at_any_size):
    """Against float64, values as after a ReLU, with as many channels as the network has at most at this depth."""
    x = np.maximum(volume((1, 12, 6, 5, 64)), 0)
    kernel, bias = volume((3, 3, 3, 64, 32), seed=1) / np.float32(np.sqrt(27 * 64)), volume(32, seed=2)
    exact = [
        sum(correlate(x[0, ..., c].astype(float), kernel[..., c, f].astype(float), mode="constant") for c in range(64))
        for f in range(32)
    ]
    exact = np.stack(exact, axis=-1)[None] + bias
    found = np.array(winograd.convolve(tf.constant(x), tf.constant(kernel), tf.constant(bias)))
    assert np.abs(found - exact).max() < 4e-6 * np.abs(exact).max()


@pytest.mark.parametrize("tile", [4, 6])
def test_the_factors_are_exact(tile):
    """So many values of a correlation with three, by two products more."""
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=tile + 2), random.normal(size=3)
    factors = winograd._factors(tile)
    products = (factors.kernel @ kernel) * (factors.inputs @ x)
    np.testing.assert_allclose(factors.outputs @ products, np.correlate(x, kernel), atol=1e-13)
    np.testing.assert_array_equal(factors.outputs[:, winograd.ONE], 1)  # Where the bias is added.


def suits(layer=None, shape=(1, 12, 192, 160, 64)):
    return winograd.suits(layer or layers.Conv3D(64, 3, padding="same"), SimpleNamespace(shape=shape))


@pytest.mark.parametrize(
    "shape",
    [
        (None, 12, 192, 160, 64),
        (1, 12, None, 160, 64),
        (0, 12, 192, 160, 64),
        (1, 3, 192, 160, 64),
        (1, 12, 27, 27, 64),  # Too little to compute.
        (1, 12, 192, 160, 7),
    ],
)
def test_other_volumes_are_convolved_plainly(shape):
    assert suits() and suits(shape=(1, 12, 28, 28, 64)) and suits(shape=(1, 12, 192, 160, 8))
    assert not suits(shape=shape)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 1},
        {"kernel_size": (3, 3, 1)},
        {"padding": "valid"},
        {"strides": (2, 1, 1)},
        {"dilation_rate": 2},
        {"groups": 2},
        {"data_format": "channels_first"},
        {"dtype": "mixed_bfloat16"},
        {"dtype": "float64"},
    ],
)
def test_other_convolutions_are_plain(settings):
    assert not suits(layers.Conv3D(64, **{"kernel_size": 3, "padding": "same"} | settings))


def test_a_gpu_and_other_runtimes_convolve_plainly(monkeypatch):
    for form in (one_form, plain_convolutions):
        with form():
            assert not suits()
        assert suits()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not suits()
    monkeypatch.undo()
    monkeypatch.setattr(winograd, "on_gpu", lambda: True)
    assert not suits()


def halved(network):
    """The names of the layers that compute with half of the multiplications on one volume."""
    found = [layer for layer in network.layers if isinstance(layer, convolutions.Conv3D)]
    shapes = {layer.name: SimpleNamespace(shape=(1, *layer.input.shape[1:])) for layer in found}
    return {layer.name for layer in found if winograd.suits(layer, shapes[layer.name])}


def test_which_layers_of_the_networks_it_is_for():
    expected = {f"{block}_conv{step}" for block in ("squeeze2", "squeeze3", "spread3", "spread2") for step in (1, 2)}
    assert halved(embedding_network((192, 160, 108, 1), backbone="tiny")) == expected
    plus = halved(plus_network((192, 160, 144, 4)))
    assert plus >= {
        f"{block}_conv{step}" for block in ("detail", "fuse_detail", "fuse_p2", "fuse_p3") for step in (1, 2)
    }
    with dtype_policy("mixed_bfloat16"):
        assert halved(embedding_network((192, 160, 108, 1), backbone="tiny")) == set()


@pytest.mark.parametrize("sections", [16, 18])  # Tiles of four, and of six.
@pytest.mark.parametrize("keep", ["all", "step", "block"])
def test_a_training_step_has_the_same_gradients(keep, sections, monkeypatch):
    keras.utils.set_random_seed(0)
    x = keras.Input((sections, 16, 16, 32))
    y = slices_first.residual_block(layers.UpSampling3D((1, 1, 1))(x), 32, name="first")
    network = rematerialised(keras.Model(x, slices_first.residual_block(y, 32, name="second")), keep)

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(network(x, training=True) ** 2)
        return tape.gradient(loss, [weight.value for weight in network.trainable_variables])

    x = tf.constant(volume((1, sections, 16, 16, 32)))
    expected = step(x)
    monkeypatch.setattr(winograd, "LEAST_MULTIPLY_ADDS", 0)
    assert "Conv2DBackpropFilter" in operations(step, x.shape)
    for found, plain in zip(step(x), expected, strict=True):
        np.testing.assert_allclose(found, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
