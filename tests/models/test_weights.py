import json

import keras
import numpy as np
import pytest

from brats_tf.errors import InputError
from brats_tf.models.embedding import embedding_network
from brats_tf.models.weights import fill_backbone

SHAPE = (32, 32, 24, 1)


@pytest.fixture
def network():
    return embedding_network(SHAPE, backbone="tiny")


@pytest.fixture
def weights_file(tmp_path):
    from conftest import tiny_classifier

    path = tmp_path / "tiny.weights.h5"
    tiny_classifier().save_weights(path)
    return path


def fill(network, source):
    return fill_backbone(network, backbone="tiny", source=source)


def topology(network):
    return json.loads(network.to_json())


def test_imagenet_file_and_none_give_the_same_topology(weights_file, monkeypatch):
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(weights_file.parent))
    networks = []
    for source in ("imagenet", str(weights_file), "none"):
        keras.utils.clear_session()
        networks.append(embedding_network(SHAPE, backbone="tiny"))
        fill(networks[-1], source)
    first, *others = (topology(network) for network in networks)
    assert all(other == first for other in others)


def test_real_weights_give_the_same_topology(real_weights, monkeypatch):
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(real_weights))
    networks = []
    for source in ("imagenet", str(real_weights / "efficientnetb0.weights.h5"), "none"):
        keras.utils.clear_session()
        networks.append(embedding_network(SHAPE))
        fill_backbone(networks[-1], backbone="efficientnetb0", source=source)
    first, second, untrained = networks
    assert topology(first) == topology(second) == topology(untrained)
    kernels = [network.get_layer("efficientnetb0").get_layer("stem_conv").kernel.numpy() for network in networks]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_the_weights_are_those_of_the_file(network, weights_file):
    from conftest import tiny_classifier

    assert fill(network, str(weights_file)) == "ImageNet weights from tiny.weights.h5"
    expected = tiny_classifier()
    expected.load_weights(weights_file)
    layers = [layer for layer in network.get_layer("tiny").layers if layer.weights]
    assert len(layers) == 10
    for layer in layers:
        for mine, theirs in zip(layer.get_weights(), expected.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_none_leaves_the_network_as_it_is(network):
    before = network.get_weights()
    assert fill(network, "none") == "random weights"
    for mine, theirs in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_folder_without_the_file_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match=r"must hold tiny.weights.h5 or tiny_notop.h5. Received: neither"):
        fill(network, "imagenet")


def test_without_network_and_cache_one_sentence_says_what_to_do(network, monkeypatch):
    from brats_tf.models import backbones

    def offline(**_):
        raise OSError("URL fetch failure")

    monkeypatch.delenv("BRATS_TF_WEIGHTS", raising=False)
    entry = backbones.BACKBONES["tiny"]
    monkeypatch.setitem(backbones.BACKBONES, "tiny", backbones.Backbone(offline, entry.stem, entry.scales))
    with pytest.raises(InputError, match="could not be downloaded .*BRATS_TF_WEIGHTS.*--weights none") as caught:
        fill(network, "imagenet")
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused_and_nothing_changes(network, tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(path)
    before = network.get_weights()
    with pytest.raises(InputError, match="must hold the weights of tiny without its top. Received"):
        fill(network, str(path))
    for mine, theirs in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.pth", b"x", "must be imagenet, none, or a Keras file"),
        ("a.keras", b"x", "must be imagenet, none, or a Keras file"),
        ("a.weights.h5", b"no HDF5", "must hold the weights of tiny"),
        ("a.weights.h5", None, "does not exist"),
    ],
)
def test_a_file_that_is_no_keras_weights_is_refused(network, tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        fill(network, str(tmp_path / name))
