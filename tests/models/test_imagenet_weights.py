"""Weights come after the network: from which file, checked how, and copied where."""

import hashlib
import json

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from brats_tf.errors import InputError
from brats_tf.models import backbones
from brats_tf.models import imagenet_weights as weights
from brats_tf.models.backbones import scale_input
from brats_tf.models.embedding import embedding_network
from brats_tf.models.imagenet_weights import fill_backbone, inflate

SHAPE = (32, 32, 24, 1)


@pytest.fixture
def network():
    return embedding_network(SHAPE, backbone="tiny")


@pytest.fixture
def weights_file(tmp_path):
    from tiny_networks import tiny_classifier

    path = tmp_path / "tiny.weights.h5"
    tiny_classifier().save_weights(path)
    return path


def fill(network, source):
    return fill_backbone(network, backbone="tiny", source=source)


def topology(network):
    return json.loads(network.to_json())


@pytest.mark.slow
def test_imagenet_file_and_none_give_the_same_topology(weights_file, monkeypatch):
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(weights_file.parent))
    networks = []
    for source in ("imagenet", str(weights_file), "none"):
        keras.utils.clear_session()
        networks.append(embedding_network(SHAPE, backbone="tiny"))
        fill(networks[-1], source)
    first, *others = (topology(network) for network in networks)
    assert all(other == first for other in others)


@pytest.mark.large
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
    from tiny_networks import tiny_classifier

    assert fill(network, str(weights_file)) == "ImageNet weights from tiny.weights.h5"
    expected = tiny_classifier()
    expected.load_weights(weights_file)
    layers = [layer for layer in network.get_layer("tiny").layers if layer.weights]
    assert len(layers) == 10
    for layer in layers:
        for mine, theirs in zip(layer.get_weights(), expected.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("batch_norm", ["frozen", "batch"])
def test_none_changes_frozen_statistics_alone(batch_norm):
    network = embedding_network(SHAPE, backbone="tiny", batch_norm=batch_norm)
    before = network.get_weights()
    estimated = {"frozen": ", batch norm statistics of random images", "batch": ""}[batch_norm]
    assert fill(network, "none") == "random weights" + estimated
    for variable, mine, theirs in zip(network.weights, network.get_weights(), before, strict=True):
        changes = batch_norm == "frozen" and "moving_" in variable.path
        assert np.array_equal(mine, theirs) != changes, variable.path


@pytest.mark.slow
def test_random_weights_pass_an_image_on_through_frozen_statistics():
    """Frozen at mean 0 and variance 1 they shrank it to 3e-5; with those of one image they blew another one up."""
    keras.utils.set_random_seed(0)
    network = embedding_network((64, 64, 12, 1), depth_factors=(1, 2, 2))
    fill_backbone(network, backbone="efficientnetb0", source="none")
    across = np.linspace(-1.7, 1.7, 64, dtype=np.float32)
    smooth = np.broadcast_to(across[:, None], (1, 64, 64))[..., None].repeat(3, axis=-1)
    for image in (smooth, np.random.default_rng(0).normal(size=smooth.shape).astype(np.float32)):
        features = network.get_layer("efficientnetb0")(image, training=False)
        assert {scale: 0.05 < np.std(values) < 5 for scale, values in features.items()} == dict.fromkeys(features, True)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["standardise", "imagenet"])
def test_statistics_are_of_images_as_the_classifier_sees_them(scaling):
    keras.utils.set_random_seed(0)
    network = embedding_network((64, 64, 12, 1), depth_factors=(1, 2, 2), input_scaling=scaling)
    fill_backbone(network, backbone="efficientnetb0", source="none")
    planes = keras.Input((64, 64, 3))
    scaled = keras.Model(planes, scale_input(planes, scaling=scaling, backbone="efficientnetb0"))
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    features = network.get_layer("efficientnetb0")(scaled(image), training=False)
    assert {scale: 0.05 < np.std(values) < 5 for scale, values in features.items()} == dict.fromkeys(features, True)


def test_a_folder_without_the_file_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match=r"must hold tiny.weights.h5 or tiny_notop.h5. Received: none of them"):
        fill(network, "imagenet")


def test_without_network_and_cache_one_sentence_says_what_to_do(network, monkeypatch):
    def offline(**_):
        raise OSError("URL fetch failure")

    monkeypatch.delenv("BRATS_TF_WEIGHTS", raising=False)
    monkeypatch.setitem(backbones.BACKBONES, "tiny", backbones.Backbone("tests", offline, "torch"))
    with pytest.raises(InputError, match="could not be downloaded .*BRATS_TF_WEIGHTS.*--weights none") as caught:
        fill(network, "imagenet")
    assert "\n" not in str(caught.value)


def filled_if_imagenet(weights=None, input_shape=(None, None, 3)):
    """A builder with "published" weights: all 0.25."""
    from tiny_networks import tiny_classifier

    classifier = tiny_classifier(input_shape=input_shape)
    if weights == "imagenet":
        for variable in classifier.variables:
            variable.assign(np.full(variable.shape, 0.25))
    return classifier


def test_without_a_folder_the_published_weights_are_taken_from_their_source(network, monkeypatch):
    monkeypatch.delenv("BRATS_TF_WEIGHTS", raising=False)
    monkeypatch.setitem(backbones.BACKBONES, "tiny", backbones.Backbone("tests", filled_if_imagenet, "torch"))
    assert fill(network, "imagenet") == "ImageNet weights from Keras's cache"
    assert all((array == 0.25).all() for array in network.get_layer("tiny").get_weights())


@pytest.mark.parametrize(
    ("name", "getter"),
    [
        ("mobilenetv3small", "keras.src.utils.file_utils.get_file"),
        ("resnet18", "keras._tf_keras.keras.utils.get_file"),
    ],
)
@pytest.mark.slow
def test_each_sources_published_file_is_loaded(name, getter, tmp_path, monkeypatch):
    keras.utils.set_random_seed(7)
    published = backbones.build_classifier(name, image_shape=(96, 96, 3))
    path, asked = tmp_path / "published.h5", []
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, published)

    def get_file(*names, **_):
        asked.append(names)
        return str(path)

    monkeypatch.setattr(getter, get_file)
    monkeypatch.delenv("BRATS_TF_WEIGHTS", raising=False)
    network = embedding_network((96, 96, 24, 1), backbone=name)
    assert fill_backbone(network, backbone=name, source="imagenet") == "ImageNet weights from Keras's cache"
    assert len(asked) == 1
    for layer in network.get_layer(name).layers:
        theirs = published.get_layer(layer.name).get_weights() if layer.weights else []
        for received, expected in zip(layer.get_weights(), theirs, strict=True):
            np.testing.assert_array_equal(received, expected)


def test_weights_of_another_network_are_refused_and_nothing_changes(network, tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(path)
    before = network.get_weights()
    with pytest.raises(InputError, match="must hold the weights of tiny without its top. Received: .*Conv2D"):
        fill(network, str(path))
    for mine, theirs in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.pth", b"x", "a.pth is a PyTorch file, which is a pickle .* Convert it"),
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


def test_a_file_is_compared_with_its_published_hash(network, weights_file):
    right = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    sums = weights_file.parent / "SHA256SUMS"
    sums.write_text(f"{'0' * 64}  another.h5\n{right}  ./{weights_file.name}\n")
    fill(network, str(weights_file))
    sums.write_text(f"{'0' * 64} *{weights_file.name}\n")
    with pytest.raises(InputError, match=f"must have the SHA256 {'0' * 64}. Received: {right}"):
        fill(network, str(weights_file))
    sums.write_text(f"{right}  another.h5\n")
    with pytest.raises(InputError, match="must have a line for tiny.weights.h5. Received: another.h5"):
        fill(network, str(weights_file))


def test_a_truncated_file_is_refused(network, weights_file):
    weights_file.write_bytes(weights_file.read_bytes()[:-1000])
    with pytest.raises(InputError, match="must hold the weights of tiny without its top. Received"):
        fill(network, str(weights_file))


def test_only_efficientnet_has_noisy_student_weights(network):
    with pytest.raises(InputError, match="The weights of tiny are imagenet, or a file. Received: noisy-student"):
        fill(network, "noisy-student")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A noisy-student file as the package efficientnet publishes it, with random weights, and its layers."""
    keras.utils.set_random_seed(3)
    package = backbones.build_efficientnet_package("efficientnetb0", image_shape=(32, 32, 3))
    path = tmp_path / "published" / "efficientnet-b0_noisy-student_notop.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, package)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "NOISY_STUDENT_URL", path.parent.as_uri() + "/")
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(weights.NOISY_STUDENT_MD5, "efficientnetb0", md5)
    return path, package


@pytest.mark.slow
def test_noisy_student_weights_are_downloaded_checked_and_copied(published, monkeypatch):
    path, package = published
    network = embedding_network(SHAPE)
    monkeypatch.delenv("BRATS_TF_WEIGHTS", raising=False)
    said = fill_backbone(network, backbone="efficientnetb0", source="noisy-student")
    assert said == "ImageNet weights from efficientnet-b0_noisy-student_notop.h5"
    for name in ("stem_conv", "block4a_se_reduce", "block5b_dwconv", "top_bn"):
        mine, theirs = (part.get_layer(name).get_weights() for part in (network.get_layer("efficientnetb0"), package))
        for received, expected in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(received, expected)
    # The same file in a folder, for machines without network.
    monkeypatch.setattr(weights, "NOISY_STUDENT_URL", "file:///nowhere/")
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(path.parent))
    assert fill_backbone(network, backbone="efficientnetb0", source="noisy-student") == said


@pytest.mark.slow
def test_a_noisy_student_file_in_a_folder_is_compared_with_its_published_hash(published, monkeypatch):
    path, _ = published
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(path.parent))
    monkeypatch.setitem(weights.NOISY_STUDENT_MD5, "efficientnetb0", "0" * 32)
    with pytest.raises(InputError, match=f"{path.name} must have the MD5 {'0' * 32}. Received: "):
        fill_backbone(embedding_network(SHAPE), backbone="efficientnetb0", source="noisy-student")


@pytest.mark.slow
def test_a_download_with_a_wrong_hash_is_refused_in_one_sentence(published, monkeypatch):
    network = embedding_network(SHAPE)
    monkeypatch.delenv("BRATS_TF_WEIGHTS", raising=False)
    monkeypatch.setitem(weights.NOISY_STUDENT_MD5, "efficientnetb0", "0" * 32)
    with pytest.raises(InputError, match="weights of efficientnetb0 could not be downloaded .*hash") as caught:
        fill_backbone(network, backbone="efficientnetb0", source="noisy-student")
    assert "\n" not in str(caught.value)


def test_the_learned_scaling_of_a_resnet_is_filled_in_with_its_weights(tmp_path):
    keras.utils.set_random_seed(0)
    classifier = backbones.build_classifier("resnet18", image_shape=(32, 32, 3))
    first = classifier.get_layer("bn_data")
    first.set_weights([np.array(values, "float32") for values in ([1, 2, 3], [100, 110, 120], [4, 9, 16])])
    classifier.save_weights(tmp_path / "resnet18.weights.h5")
    network = embedding_network(SHAPE, backbone="resnet18", input_scaling="imagenet")
    fill_backbone(network, backbone="resnet18", source=str(tmp_path / "resnet18.weights.h5"))
    image = np.random.default_rng(0).uniform(0, 255, size=(1, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(network.get_layer("planes_scaling")(image), first(image, training=False), rtol=1e-6)
    assert not network.get_layer("planes_scaling").trainable_weights


def test_inflating_is_what_a_pencil_says():
    kernel = np.array([1, 2, 6], dtype="float32").reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(inflate(kernel, (1, 1, 6, 1)).ravel(), [0.5, 1, 3, 0.5, 1, 3])
    np.testing.assert_array_equal(inflate(kernel, (1, 1, 4, 1)).ravel(), [0.5, 2, 6, 0.5])
    np.testing.assert_array_equal(inflate(kernel, (1, 1, 2, 1)).ravel(), [4.5, 4.5])
    np.testing.assert_array_equal(inflate(np.array([7.0, 8.0, 9.0]), (4,)), [7, 8, 9, 7])


@pytest.mark.parametrize("planes", range(1, 10))
def test_equal_planes_get_the_answer_that_three_equal_channels_got(planes):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8))
    np.testing.assert_allclose(inflate(kernel, (3, 3, planes, 8)).sum(axis=2), kernel.sum(axis=2))


@pytest.mark.parametrize("planes", [6, 9])
@pytest.mark.slow
def test_an_inflated_classifier_answers_repeated_planes_as_the_original_answers_three(real_weights, planes):
    file = str(real_weights / "efficientnetb0.weights.h5")
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    answers = []
    for count in (3, planes):
        network = embedding_network((32, 32, 8 * planes, 1), planes=count, backbone="efficientnetb0")
        fill_backbone(network, backbone="efficientnetb0", source=file)
        answers.append(network.get_layer("efficientnetb0")(np.tile(image, count // 3))["P5"])
    np.testing.assert_allclose(*answers, atol=1e-3)
