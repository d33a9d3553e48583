import keras
import numpy as np
import pytest
from keras import layers
from tiny_networks import TINY_CROP

from brats_tf.models import slices_first
from brats_tf.models.embedding import authors_network, embedding_network
from brats_tf.models.precision import dtype_policy


@pytest.mark.parametrize("factor", [1, 3])
def test_a_convolution_of_slices_first_is_that_of_slices_last_with_the_same_weights(factor):
    random = np.random.default_rng(0)
    weights = [random.normal(size=(3, 3, 3, 2, 4)), random.normal(size=4)]
    last = layers.Conv3D(4, 3, strides=(1, 1, factor), padding="same")
    first = slices_first.Conv3D(4, 3, strides=(factor, 1, 1), padding="same")
    volume = random.normal(size=(2, 6, 5, 9, 2)).astype("float32")
    for layer, shape in ((last, volume.shape), (first, (2, 9, 6, 5, 2))):
        layer.build(shape)
        layer.set_weights(weights)
    found = keras.ops.transpose(first(keras.ops.transpose(volume, (0, 3, 1, 2, 4))), (0, 2, 3, 1, 4))
    np.testing.assert_allclose(found, last(volume), atol=1e-5)


def test_slices_go_first_and_back():
    volume = np.random.default_rng(0).normal(size=(1, 4, 5, 6, 2)).astype("float32")
    first = slices_first.slices_first(volume, name="first")
    np.testing.assert_array_equal(first, volume.transpose(0, 3, 1, 2, 4))
    np.testing.assert_array_equal(slices_first.slices_last(first, name="last"), volume)


def test_in_bfloat16_on_a_cpu_slices_stay_last():
    """oneDNN's gradients are wrong there where the first axis is short."""
    with dtype_policy("mixed_bfloat16"):
        network = embedding_network((*TINY_CROP, 1), backbone="tiny")
    assert network.get_layer("squeeze1_pool").pool_size == (1, 1, 2)
    assert network.get_layer("squeeze4_add").output.shape[1:] == (*TINY_CROP[:2], 3, 64)


@pytest.mark.parametrize("build", [embedding_network, authors_network])
def test_either_order_is_the_same_network(build, monkeypatch):
    keras.utils.set_random_seed(0)
    first = build((*TINY_CROP, 1), backbone="tiny")
    monkeypatch.setattr(slices_first, "slices_are_first", lambda: False)
    last = build((*TINY_CROP, 1), backbone="tiny")
    last.set_weights(first.get_weights())
    assert [weight.path for weight in first.weights] == [weight.path for weight in last.weights]
    assert first.get_layer("squeeze4_add").output.shape[1:] == (3, *TINY_CROP[:2], 64)
    assert last.get_layer("squeeze4_add").output.shape[1:] == (*TINY_CROP[:2], 3, 64)
    volume = np.random.default_rng(0).normal(size=(1, *TINY_CROP, 1)).astype("float32")
    found, expected, nudged = (np.array(one) for one in (first(volume), last(volume), last(volume * (1 + 2.0**-22))))
    rounding = np.abs(nudged - expected)  # What a change of two in the last digit of the input makes, on any processor.
    assert np.abs(found - expected).mean() < 3 * rounding.mean() < 1e-5
    assert np.abs(found - expected).max() < 10 * rounding.max() < 1e-3


def test_on_a_gpu_slices_are_first_in_bfloat16_too(monkeypatch):
    monkeypatch.setattr(slices_first, "on_gpu", lambda: True)
    with dtype_policy("mixed_bfloat16"):
        network = authors_network((*TINY_CROP, 1), backbone="tiny")
    assert network.get_layer("squeeze1_stride").strides == (2, 1, 1)
    assert network.output.shape[1:] == (*TINY_CROP, 4)
