import keras
import numpy as np
import pytest
from keras import layers

from brats_tf.models import slices_first


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


def test_repeated_slices_are_those_of_keras_s_layer():
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 2, 5)).astype("float32")
    ours, keras_s = slices_first.RepeatedSlices((3, 1, 1)), layers.UpSampling3D((3, 1, 1))
    np.testing.assert_array_equal(ours(x), keras_s(x))
    assert ours.compute_output_shape(x.shape) == (2, 12, 3, 2, 5)
    for size in (2, (2, 2, 1)):
        with pytest.raises(ValueError, match="Slices alone are repeated"):
            slices_first.RepeatedSlices(size)
    with pytest.raises(ValueError, match="channels_first"):
        slices_first.RepeatedSlices((2, 1, 1), data_format="channels_first")
