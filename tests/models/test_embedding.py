"""The embedding network: pinned sizes, shapes of Table 1, and a forward pass that notices what sizes miss."""

import keras
import numpy as np
import pytest
from keras import layers
from tiny_networks import TINY_CROP

from brats_tf.errors import InputError
from brats_tf.models import normalisation
from brats_tf.models.convolutions import Conv2DTranspose
from brats_tf.models.cost import all_layers, multiply_adds
from brats_tf.models.dropout import SpatialDropout2D, SpatialDropout3D
from brats_tf.models.embedding import authors_network, embedding_network
from brats_tf.models.precision import dtype_policy
from brats_tf.models.registry import get_network

PAPER_SHAPE = (192, 160, 108, 1)

# Every network of the embedding paper has a row: its shape, parameters and the GFLOP of its convolutions.
GOLDEN_SIZES = {
    "embedding": (PAPER_SHAPE, 16_576_706, 752),
    "embedding_authors": ((192, 160, 144, 4), 14_422_036, 1140),
}
# Outputs at (5, 7, 3), (16, 16, 12) and (31, 0, 23) for formula weights and a formula volume.
GOLDEN_OUTPUTS = {
    "embedding": [
        [0.505427, 0.502822, 0.498889],
        [0.524272, 0.515815, 0.499909],
        [0.478177, 0.534429, 0.574037],
    ],
    "embedding_authors": [
        [0.243661, 0.259947, 0.257797, 0.238595],
        [0.269355, 0.261657, 0.243781, 0.225206],
        [0.272531, 0.264126, 0.242888, 0.220455],
    ],
}


# Of the same networks, planes from the 3D encoder and into the 3D decoder at the first and the third place: with these
# weights the outputs above hardly depend on them.
GOLDEN_PLANES = {
    "embedding": [[3.5176, 8.1652, -7.2978], [1.6924, 6.42, -0.617]],
    "embedding_authors": [[0.0, 7.7925, 28.2540], [0.0, 1.7270, 4.9621]],
}


@pytest.fixture(scope="module")
def paper_network():
    keras.utils.set_random_seed(0)
    return embedding_network(PAPER_SHAPE)


@pytest.mark.parametrize("name", GOLDEN_SIZES)
def test_golden_sizes(name):
    shape, parameters, gflop = GOLDEN_SIZES[name]
    network = get_network(name).build(shape)
    assert network.count_params() == parameters
    assert round(2 * multiply_adds(network) / 1e9) == gflop


def test_table_1_reads_off_the_layers(paper_network):
    """The embedding paper, Table 1: W x H x D x C is squeezed to W x H x 3 by factors 3, 3 and 4. Slices first."""
    assert {
        name: paper_network.get_layer(name).output.shape[1:]
        for name in (
            "volume",
            "squeeze1_pool",
            "squeeze2_pool",
            "squeeze3_pool",
            "squeeze4_add",
            "planes_add",
            "planes",
        )
    } == {
        "volume": (192, 160, 108, 1),
        "squeeze1_pool": (36, 192, 160, 16),
        "squeeze2_pool": (12, 192, 160, 32),
        "squeeze3_pool": (3, 192, 160, 64),
        "squeeze4_add": (3, 192, 160, 64),
        "planes_add": (3, 192, 160, 1),
        "planes": (192, 160, 3),
    }


def test_the_decoder_mirrors_the_encoder(paper_network):
    assert {
        name: paper_network.get_layer(name).output.shape[1:]
        for name in (
            "plane_p4_add",
            "plane_p1_add",
            "decoded_planes",
            "spread3_up",
            "spread2_up",
            "spread1_up",
            "regions",
        )
    } == {
        "plane_p4_add": (12, 10, 512),
        "plane_p1_add": (96, 80, 64),
        "decoded_planes": (192, 160, 3),
        "spread3_up": (12, 192, 160, 64),
        "spread2_up": (36, 192, 160, 32),
        "spread1_up": (108, 192, 160, 16),
        "regions": (192, 160, 108, 3),
    }


def test_every_layer_has_an_address_that_means_something(paper_network):
    words = ("volume", "stem", "squeeze", "planes", "plane_p", "spread", "decoded_planes", "regions", "efficientnetb0")
    assert [layer.name for layer in paper_network.layers if not layer.name.startswith(words)] == []


def test_probabilities_are_float32_whatever_the_policy():
    with dtype_policy("mixed_bfloat16"):
        network = embedding_network((*TINY_CROP, 1), backbone="tiny")
    assert network.get_layer("squeeze1_conv1").compute_dtype == "bfloat16"
    assert network.output.dtype == "float32"


@pytest.mark.parametrize(
    ("shape", "factors"),
    [((32, 32, 24, 1), None), ((64, 32, 36, 2), None), ((32, 32, 12, 1), (1, 2, 2)), ((32, 96, 144, 1), None)],
)
def test_any_volume_that_squeezes_to_three_planes_builds(shape, factors):
    network = embedding_network(shape, depth_factors=factors, backbone="tiny")
    assert network.output.shape == (None, *shape[:3], 3)


@pytest.mark.parametrize(
    ("shape", "factors", "sentence"),
    [
        ((192, 160, 100, 1), None, "Received: depth=100"),
        ((192, 160, 39, 1), None, "Received: depth=39"),
        ((192, 160, 100, 1), (3, 3, 4), r"Received: depth_factors=\(3, 3, 4\), for 108 slices"),
        ((192, 160, 108, 1), (3, 12), r"Received: depth_factors=\(3, 12\)"),
        ((190, 160, 108, 1), None, "multiples of 32. Received: 190x160x108"),
        ((192, 16, 108, 1), None, "multiples of 32. Received: 192x16x108"),
    ],
)
@pytest.mark.parametrize("build", [embedding_network, authors_network])
def test_other_volumes_are_refused_in_a_sentence(build, shape, factors, sentence):
    with pytest.raises(InputError, match=sentence):
        build(shape, depth_factors=factors)


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(InputError, match="embedding, embedding_authors, embedding_plus, albunet. Received: 'unet'"):
        get_network("unet")


def test_presets_differ_where_the_tables_say(paper_network):
    authors = authors_network((64, 64, 36, 4), backbone="tiny")
    kinds = {type(layer) for layer in all_layers(authors)} - {type(layer) for layer in all_layers(paper_network)}
    assert kinds >= {SpatialDropout3D, SpatialDropout2D, Conv2DTranspose}
    assert layers.MaxPooling3D not in {type(layer) for layer in all_layers(authors)}
    assert authors.get_layer("squeeze1_stride").strides == (2, 1, 1)
    assert authors.output.shape == (None, 64, 64, 36, 4)
    assert authors.get_layer("stem_dropout").rate == 0.2
    assert authors.get_layer("plane_p4_dropout").rate == 0.5


@pytest.mark.parametrize(("build", "expected"), [(embedding_network, {0.0}), (authors_network, {0.025, 0.175})])
def test_only_the_authors_preset_drops_branches_of_the_classifier(build, expected):
    classifier = build((32, 32, 24, 1)).get_layer("efficientnetb0")
    rates = [layer.rate for layer in classifier.layers if isinstance(layer, layers.Dropout)]
    assert len(rates) == 9
    assert {round(min(rates), 4), round(max(rates), 4)} == expected


def fill_by_formula(network):
    """Well-scaled weights without randomness: a sine over the index, over the square root of the fan-in."""
    for layer in all_layers(network):
        for variable in layer.weights:
            index = np.arange(np.prod(variable.shape), dtype=np.float64).reshape(variable.shape)
            wave = np.sin(1 + index * 0.7 + len(variable.shape))
            if variable.name in ("gamma", "moving_variance"):
                variable.assign(1 + 0.1 * wave)
            elif variable.name in ("beta", "bias", "moving_mean"):
                variable.assign(0.1 * wave)
            elif "kernel" in variable.name:
                fan_in = np.prod(variable.shape[:-2]) * (1 if "depthwise" in variable.name else variable.shape[-2])
                variable.assign(wave * np.sqrt(2 / fan_in))


@pytest.mark.parametrize("name", GOLDEN_SIZES)  # AlbuNet has its own in test_albunet.
@pytest.mark.slow
def test_golden_forward_pass(name):
    channels = 1 if name == "embedding" else 4
    network = get_network(name).build((*TINY_CROP, channels))
    fill_by_formula(network)
    index = np.arange(np.prod(TINY_CROP) * channels, dtype=np.float64).reshape(1, *TINY_CROP, channels)
    volume = np.sin(index * 0.013).astype("float32")
    planes = keras.Model(network.input, network.get_layer("planes").output).predict(volume, verbose=0)[0]
    np.testing.assert_allclose([planes[5, 7], planes[31, 0]], GOLDEN_PLANES[name], rtol=1e-3, err_msg=repr(planes))
    output = network.predict(volume, verbose=0)[0]
    received = [output[at].tolist() for at in ((5, 7, 3), (16, 16, 12), (31, 0, 23))]
    np.testing.assert_allclose(received, GOLDEN_OUTPUTS[name], atol=2e-4, err_msg=repr(received))


@pytest.mark.slow
def test_frozen_batch_norm_makes_training_and_prediction_one_function(monkeypatch):
    # Of a large volume a training subtracts before it squares. So do both here, because that is another rounding.
    monkeypatch.setattr(normalisation, "MOST_DISTANCES", -1.0)
    volume = np.random.default_rng(0).normal(size=(1, *TINY_CROP, 1)).astype("float32")
    frozen = embedding_network((*TINY_CROP, 1), batch_norm="frozen")
    difference = np.abs(np.array(frozen(volume, training=True)) - np.array(frozen(volume, training=False))).max()
    assert difference < 1e-6
    batch = embedding_network((*TINY_CROP, 1), batch_norm="batch")
    assert np.abs(np.array(batch(volume, training=True)) - np.array(batch(volume, training=False))).max() > 1e-3


def test_a_gradient_reaches_the_first_convolution():
    import tensorflow as tf

    network = embedding_network((*TINY_CROP, 1), backbone="tiny")
    volume = np.random.default_rng(0).normal(size=(1, *TINY_CROP, 1)).astype("float32")
    with tf.GradientTape() as tape:
        decoded = tf.reduce_mean(tf.square(network(volume, training=True)))
    gradient = tape.gradient(decoded, network.get_layer("stem_conv").kernel.value)
    assert np.abs(gradient.numpy()).max() > 0


def test_a_full_size_pass(paper_network):
    volume = np.random.default_rng(0).normal(size=(1, *PAPER_SHAPE)).astype("float32")
    regions = paper_network.predict(volume, verbose=0)
    assert regions.shape == (1, 192, 160, 108, 3)
    # A sigmoid in float32 is exactly 1 from about 17 on; NaN would fail every comparison.
    assert 0 <= regions.min() < 0.5 < regions.max() <= 1
