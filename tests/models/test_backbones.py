"""The contract of a backbone, and the trap of the scaling hidden inside Keras's EfficientNet."""

import keras
import numpy as np
import pytest
from keras import layers

from brats_tf.errors import InputError
from brats_tf.models.backbones import feature_pyramid, scale_input
from brats_tf.models.costs import all_layers
from brats_tf.models.embedding import embedding_network
from brats_tf.models.weights import fill_backbone


def test_pn_is_two_to_the_n_times_smaller_with_the_authors_channels():
    pyramid = feature_pyramid("efficientnetb0", image_shape=(64, 96, 3))
    assert {scale: tuple(tensor.shape[1:]) for scale, tensor in pyramid.output.items()} == {
        "P1": (32, 48, 96),
        "P2": (16, 24, 144),
        "P3": (8, 12, 240),
        "P4": (4, 6, 672),
        "P5": (2, 3, 1280),
    }


def test_no_scaling_hides_in_the_backbone():
    pyramid = feature_pyramid("efficientnetb0", image_shape=(32, 32, 3))
    kinds = {type(layer) for layer in pyramid.layers}
    assert not kinds & {layers.Rescaling, layers.Normalization}


def test_the_switch_of_the_input_scaling_is_one_visible_layer():
    unscaled = embedding_network((32, 32, 24, 1), backbone="tiny", input_scaling="none")
    scaled = embedding_network((32, 32, 24, 1), backbone="tiny", input_scaling="imagenet")
    assert [layer.name for layer in all_layers(unscaled) if isinstance(layer, layers.Rescaling)] == []
    assert [layer.name for layer in all_layers(scaled) if isinstance(layer, layers.Rescaling)] == ["planes_scaling"]


def test_the_scaling_of_imagenet_equals_kerass_own(real_weights):
    """With weights, Keras's chain is Rescaling(1/255), Normalization, Rescaling(1/sqrt(std)) on an image of 0..255."""
    image = np.random.default_rng(0).uniform(0, 255, size=(1, 32, 32, 3)).astype("float32")
    whole = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    whole.load_weights(real_weights / "efficientnetb0.weights.h5")
    expected = keras.Model(whole.input, whole.get_layer("top_activation").output)(image)
    volume = keras.Input((32, 32, 3))
    pyramid = feature_pyramid("efficientnetb0", image_shape=(32, 32, 3))
    network = keras.Model(volume, pyramid(scale_input(volume, scaling="imagenet")))
    fill_backbone(network, backbone="efficientnetb0", source=str(real_weights / "efficientnetb0.weights.h5"))
    np.testing.assert_allclose(network(image)["P5"], expected, atol=2e-4)


def test_planes_divided_by_255_are_nearly_constant_for_the_features(real_weights):
    """The trap itself: the variance of the stem's output over planes of order 1, with and without the scaling."""
    planes = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    classifier = keras.applications.EfficientNetB0(include_top=False, weights=None)
    classifier.load_weights(real_weights / "efficientnetb0.weights.h5")
    kernel = classifier.get_layer("stem_conv").kernel

    def variance(image):
        return float(np.var(keras.ops.conv(image, kernel, strides=2), axis=(1, 2)).mean())

    scaled = np.array(scale_input(planes, scaling="imagenet"))
    assert variance(planes) > 1000 * variance(scaled)


def test_only_batch_norm_is_frozen():
    pyramid = feature_pyramid("efficientnetb0", image_shape=(32, 32, 3), batch_norm="frozen")
    trainable = {type(layer).__name__ for layer in pyramid.layers if layer.trainable_weights}
    assert trainable == {"Conv2D", "DepthwiseConv2D"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backbone": "resnet"}, "`backbone` must be one of efficientnetb0.*Received: 'resnet'"),
        ({"batch_norm": "off"}, "`batch_norm` must be one of frozen, batch. Received: 'off'"),
        ({"input_scaling": "z"}, "`input_scaling` must be one of none, imagenet. Received: 'z'"),
    ],
)
def test_unknown_values_list_the_known_ones(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        embedding_network((32, 32, 24, 1), **settings)
