"""The contract of every backbone, and the traps of what lies hidden in a classifier."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from tiny_networks import REGISTERED

from brats_tf.cli.backbones_table import BACKBONES_FILE
from brats_tf.errors import InputError
from brats_tf.models import backbones
from brats_tf.models import feature_pyramid as pyramid
from brats_tf.models.backbones import BACKBONES, build_classifier, feature_pyramid, scale_input
from brats_tf.models.cost import all_layers
from brats_tf.models.embedding import authors_network, embedding_network
from brats_tf.models.feature_pyramid import _behind_scaling

ROWS = json.loads(BACKBONES_FILE.read_text())["backbones"]
# Those that build within seconds, one of most families; the others are marked slow.
QUICK = ("efficientnetb0", "resnet18", "mobilenetv3small")
SIZE, DEPTH, FACTORS = 64, 12, (1, 2, 2)


def size_for(name):
    return 96 if "ception" in name else SIZE  # Inception and Xception take no smaller images.


def build(name, **switches):
    size = size_for(name)
    return embedding_network((size, size, DEPTH, 1), depth_factors=FACTORS, backbone=name, **switches)


def test_every_backbone_has_a_row_that_says_what_the_registry_says():
    assert tuple(ROWS) == REGISTERED
    for name in REGISTERED:
        backbone = BACKBONES[name]
        expected = [backbone.source, list(backbone.weights), backbone.scaling, backbone.note]
        assert [ROWS[name][key] for key in ("source", "weights", "scaling", "note")] == expected


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.large) for name in REGISTERED]
)
@pytest.mark.slow
def test_every_backbone_keeps_the_contract(name, tmp_path):
    """Scales and channels as listed; a gradient comes through; saved weights give the same outputs."""
    import tensorflow as tf

    network, size = build(name), size_for(name)
    classifier = network.get_layer(name)
    assert {scale: tuple(tensor.shape[1:]) for scale, tensor in classifier.output.items()} == {
        scale: (size // 2 ** int(scale[1]), size // 2 ** int(scale[1]), channels)
        for scale, channels in ROWS[name]["channels"].items()
    }
    assert classifier.count_params() == ROWS[name]["parameters"]
    first = next(layer for layer in all_layers(classifier) if layer.weights)
    assert isinstance(first, layers.Conv2D)  # No scaling and no batch norm comes before it.

    # The planes that come back depend on the volume through the classifier alone; the 3D skips join later.
    decoded = keras.Model(network.input, network.get_layer("decoded_planes").output)
    volume = np.random.default_rng(0).normal(size=(1, size, size, DEPTH, 1)).astype("float32")
    with tf.GradientTape() as tape:
        power = tf.reduce_mean(tf.square(decoded(volume, training=True)))
    gradient = tape.gradient(power, network.get_layer("stem_conv").kernel.value).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0

    for variable in network.variables:
        if variable.name.startswith("moving_"):  # A fresh network has 0 and 1; these must come from the file.
            variable.assign(np.random.default_rng(1).uniform(0.5, 1.5, variable.shape))
    network.save_weights(tmp_path / "network.weights.h5")
    again = build(name)
    again.load_weights(tmp_path / "network.weights.h5")
    np.testing.assert_allclose(network(volume), again(volume), atol=1e-6)


def test_everything_that_segmentation_models_offers_is_registered():
    build("resnet18")  # Imports the package as the registry does.
    from segmentation_models import get_available_backbone_names

    assert set(get_available_backbone_names()) <= set(REGISTERED)


@pytest.mark.parametrize("name", ["efficientnetb0", "vgg16", "vgg19", "mobilenet", "mobilenetv2"])
def test_where_kerass_classifier_is_taken_segmentation_models_has_the_same(name):
    assert BACKBONES[name].source == backbones.KERAS
    size = size_for(name)
    theirs = backbones._build_segmentation_models(name, input_shape=(size, size, 3), weights=None)
    theirs = pyramid.cut(theirs, name=name)
    assert theirs.count_params() == ROWS[name]["parameters"]
    assert {scale: tensor.shape[-1] for scale, tensor in theirs.output.items()} == ROWS[name]["channels"]


@pytest.mark.parametrize("name", ["densenet121", "densenet169", "densenet201"])
def test_the_reason_for_densenet_from_keras_still_holds(name):
    with pytest.raises(ValueError, match="cannot contain character `/`"):
        backbones._build_segmentation_models(name, input_shape=(SIZE, SIZE, 3), weights=None)
    assert BACKBONES[name].source == backbones.KERAS


def test_pn_is_two_to_the_n_times_smaller_with_the_authors_channels():
    classifier = feature_pyramid("efficientnetb0", image_shape=(64, 96, 3))
    assert {scale: tuple(tensor.shape[1:]) for scale, tensor in classifier.output.items()} == {
        "P1": (32, 48, 96),
        "P2": (16, 24, 144),
        "P3": (8, 12, 240),
        "P4": (4, 6, 672),
        "P5": (2, 3, 1280),
    }


@pytest.mark.parametrize("builder", [embedding_network, authors_network])
def test_the_decoder_works_with_the_scales_that_exist(builder):
    size = size_for("xception")
    network = builder((size, size, 24, 1), backbone="xception")
    names = {layer.name for layer in network.layers}
    assert {"plane_p4_skip", "plane_p3_skip"} <= names
    assert not {"plane_p2_skip", "plane_p1_skip"} & names
    assert network.get_layer("decoded_planes").output.shape == (None, size, size, 3)


def test_the_switch_of_the_input_scaling_is_one_visible_layer():
    unscaled = embedding_network((32, 32, 24, 1), backbone="tiny", input_scaling="none")
    scaled = embedding_network((32, 32, 24, 1), backbone="tiny", input_scaling="imagenet")
    assert [layer.name for layer in all_layers(unscaled) if isinstance(layer, layers.Rescaling)] == []
    assert [layer.name for layer in all_layers(scaled) if isinstance(layer, layers.Rescaling)] == ["planes_scaling"]


def image():
    return np.random.default_rng(0).uniform(0, 255, size=(1, SIZE, SIZE, 3)).astype("float32")


@pytest.mark.parametrize(
    "name", ["efficientnetv2b0", "efficientnetv2s", "convnext_tiny", "mobilenetv3small", "mobilenetv3large"]
)
@pytest.mark.slow
def test_the_scaling_equals_the_one_hidden_in_kerass_classifier(name):
    classifier = build_classifier(name, image_shape=(size_for(name), size_for(name), 3))
    hidden = keras.Model(classifier.input, _behind_scaling(classifier))
    np.testing.assert_allclose(scale_input(image(), scaling="imagenet", backbone=name), hidden(image()), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("densenet121", "densenet"),
        ("resnet50v2", "resnet_v2"),
        ("xception", "xception"),
        ("mobilenet", "mobilenet"),
        ("mobilenetv2", "mobilenet_v2"),
        ("vgg16", "vgg16"),
    ],
)
def test_the_scaling_equals_kerass_function_for_the_family(name, module):
    expected = getattr(keras.applications, module).preprocess_input(image())
    # The weights of "caffe" see blue first, and Keras's function turns red, green, blue around.
    given = image()[..., ::-1] if BACKBONES[name].scaling == "caffe" else image()
    np.testing.assert_allclose(scale_input(given, scaling="imagenet", backbone=name), expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in REGISTERED if BACKBONES[name].source == "segmentation-models"])
@pytest.mark.slow
def test_the_scaling_equals_the_function_of_segmentation_models(name):
    build("resnet18")
    from segmentation_models import get_preprocessing

    expected = get_preprocessing(name)(image())
    if BACKBONES[name].scaling == "learned":  # Its classifier normalises by itself, see test_weights.
        np.testing.assert_array_equal(expected, image())
    else:
        np.testing.assert_allclose(scale_input(image(), scaling="imagenet", backbone=name), expected, atol=1e-4)


@pytest.mark.parametrize("name", REGISTERED)
def test_standardised_planes_have_the_range_of_imagenets_images(name):
    """An image with ImageNet's statistics becomes the same by either scaling, up to the offset of single pixels."""
    caffe = BACKBONES[name].scaling == "caffe"
    mean, std = (np.array(values[:: -1 if caffe else 1]) for values in (backbones.MEAN, backbones.STD))
    noise = np.random.default_rng(0).standard_normal((1, 32, 32, 3))
    noise = (noise - noise.mean(axis=(1, 2))) / noise.std(axis=(1, 2))
    standardised = np.array(scale_input(noise.astype("float32"), scaling="standardise", backbone=name))
    if BACKBONES[name].scaling == "learned":  # Normalised by the weights' own statistics.
        np.testing.assert_allclose(standardised, noise, atol=1e-3)
        return
    given = (255 * (noise * std + mean)).astype("float32")
    np.testing.assert_allclose(
        standardised, scale_input(given, scaling="imagenet", backbone=name), rtol=1e-3, atol=1e-3
    )


def test_more_planes_repeat_the_scaling_of_the_three_channels():
    planes = np.full((1, 2, 2, 7), 100.0, "float32")
    scaled = np.array(scale_input(planes, scaling="imagenet", backbone="efficientnetb0"))
    np.testing.assert_array_equal(scaled[..., 3:6], scaled[..., :3])
    np.testing.assert_array_equal(scaled[..., 6], scaled[..., 0])
    assert len(np.unique(scaled)) == 3


def test_only_batch_norm_is_frozen():
    classifier = feature_pyramid("efficientnetb0", image_shape=(32, 32, 3), batch_norm="frozen")
    trainable = {type(layer).__name__ for layer in classifier.layers if layer.trainable_weights}
    assert trainable == {"Conv2D", "DepthwiseConv2D"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backbone": "resnet"}, "`backbone` must be one of efficientnetb0.*Received: 'resnet'"),
        ({"batch_norm": "off"}, "`batch_norm` must be one of frozen, batch. Received: 'off'"),
        ({"input_scaling": "z"}, "`input_scaling` must be one of standardise, none, imagenet. Received: 'z'"),
        ({"backbone": "inceptionv3"}, "inceptionv3 could not be built for planes of 32x32 voxels: .*at least 75x75"),
    ],
)
def test_unknown_values_list_the_known_ones(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        embedding_network((32, 32, 24, 1), **settings)


@pytest.mark.parametrize("builder", [embedding_network, authors_network])
@pytest.mark.parametrize("planes", [1, 6, 9])
def test_other_numbers_of_planes_build(planes, builder):
    network = builder((32, 32, 72, 1), planes=planes, backbone="tiny")
    assert network.get_layer("planes").output.shape == (None, 32, 32, planes)
    assert network.get_layer("decoded_planes").output.shape == (None, 32, 32, planes)
    assert network.output.shape[:-1] == (None, 32, 32, 72)
