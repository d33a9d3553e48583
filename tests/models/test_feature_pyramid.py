"""The rule that finds a classifier's scales, on classifiers small enough to check with a pencil."""

import keras
import pytest
from keras import layers

from brats_tf.models.backbones import build_classifier
from brats_tf.models.feature_pyramid import cut, number_layers


def classifier(build):
    image = keras.Input((64, 96, 3), name="image")
    return keras.Model(image, build(image))


def outputs(pyramid):
    return {scale: tensor._keras_history.operation.name for scale, tensor in pyramid.output.items()}


def chain(image):
    x = image
    for scale in range(1, 6):
        x = layers.Conv2D(2 * scale, 3, strides=2, padding="same", name=f"down{scale}")(x)
        x = layers.Activation("relu", name=f"relu{scale}")(x)
    return x


def test_a_scale_is_the_last_output_of_its_size():
    pyramid = cut(classifier(chain), name="chain")
    assert outputs(pyramid) == {f"P{scale}": f"relu{scale}" for scale in range(1, 6)}
    assert pyramid.output["P2"].shape == (None, 16, 24, 4)


def test_an_output_that_a_skip_goes_around_is_no_scale():
    def build(image):
        x = layers.Conv2D(4, 3, strides=2, padding="same", name="down")(image)
        branch = layers.Conv2D(4, 3, padding="same", name="branch")(x)
        x = layers.Add(name="sum")([x, branch])
        # The next level reads the sum twice: by a strided convolution behind `inner`, and by a shortcut around it.
        inner = layers.Activation("relu", name="inner")(x)
        inner = layers.Conv2D(8, 3, strides=2, padding="same", name="strided")(inner)
        return layers.Add(name="end")([layers.Conv2D(8, 1, strides=2, name="shortcut")(x), inner])

    assert outputs(cut(classifier(build), name="residual")) == {"P1": "sum", "P2": "end"}


def test_a_classifier_that_starts_with_a_quarter_has_no_p1():
    def build(image):
        x = layers.Conv2D(4, 4, strides=4, name="stem")(image)
        return layers.AveragePooling2D(2, name="pool")(x)

    assert outputs(cut(classifier(build), name="patches")) == {"P2": "stem", "P3": "pool"}


def test_a_classifier_without_any_scale_is_refused():
    with pytest.raises(ValueError, match="tokens has no output 2 or 4 or 8 or 16 or 32 times smaller"):
        image = keras.Input((64, 96, 3))
        cut(keras.Model(image, layers.Flatten()(image), name="tokens"), name="tokens")


def test_input_scaling_is_left_out_but_not_a_batch_norm_behind_a_convolution():
    def build(image):
        x = layers.BatchNormalization(name="scaling2")(layers.Rescaling(1 / 255, name="scaling1")(image))
        x = layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(x)
        return layers.BatchNormalization(name="kept")(x)

    pyramid = cut(classifier(build), name="scaled")
    assert [layer.name for layer in pyramid.layers] == ["image", "stem", "kept"]


def test_for_efficientnet_it_finds_the_layers_of_the_authors_code():
    pyramid = cut(build_classifier("efficientnetb0", image_shape=(64, 96, 3)), name="efficientnetb0")
    expands = {f"P{scale}": f"block{block}a_expand_activation" for scale, block in ((1, 2), (2, 3), (3, 4), (4, 6))}
    assert outputs(pyramid) == expands | {"P5": "top_activation"}


@pytest.mark.parametrize("again", [1, 2])
def test_layers_that_keras_named_are_counted_from_zero(again):
    def build(image):
        x = layers.ReLU()(layers.Conv2D(4, 3, padding="same")(image))
        x = layers.Conv2D(4, 3, padding="same", name="conv2d_own")(x)
        return layers.Add()([layers.Conv2D(4, 3, padding="same")(x), x])

    network = classifier(build)
    number_layers(network)
    assert [layer.name for layer in network.layers] == ["image", "conv2d", "re_lu", "conv2d_own", "conv2d_1", "add"]
