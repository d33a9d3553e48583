"""EfficientNet-B0 with real ImageNet weights: it sees, in both packages, and what hides in it would blind it."""

import keras
import numpy as np
import pytest
from repository import REPOSITORY

from brats_tf.config.config import Config
from brats_tf.data.discovery import find_cases
from brats_tf.models.backbones import build_classifier, build_efficientnet_package, feature_pyramid, scale_input
from brats_tf.models.imagenet_weights import fill_backbone

NAME = "efficientnetb0"


@pytest.fixture(scope="module")
def weights_file(real_weights):
    return real_weights / "efficientnetb0.weights.h5"


@pytest.fixture(scope="module")
def seeing(weights_file):
    """An image of 0..255 -> the scales of the pyramid, through our visible scaling."""
    image = keras.Input((224, 224, 3))
    scaled = scale_input(image, scaling="imagenet", backbone=NAME)
    network = keras.Model(image, feature_pyramid(NAME, image_shape=(224, 224, 3))(scaled))
    fill_backbone(network, backbone=NAME, source=str(weights_file))
    return network


def photo(path):
    """The centre square at 224 x 224, values 0..255: (1, 224, 224, 3)."""
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    left, top = ((size - side) // 2 for size in picture.size)
    square = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    return np.asarray(square, dtype="float32")[None]


@pytest.mark.parametrize(
    ("name", "label", "probability"), [("panda", 388, 0.83), ("fish", 1, 0.96), ("car", 817, 0.60)]
)
@pytest.mark.slow
def test_it_classifies_the_photographs(seeing, real_weights, name, label, probability):
    top = np.load(real_weights / "efficientnetb0_top.npz")
    features = np.array(seeing(photo(real_weights / "photos" / f"{name}.jpg"))["P5"]).mean(axis=(1, 2))
    probabilities = np.array(keras.ops.softmax(features @ top["kernel"] + top["bias"]))[0]
    assert probabilities.argmax() == label
    assert probabilities[label] == pytest.approx(probability, abs=0.01)


@pytest.mark.slow
def test_the_package_efficientnet_has_the_same_features(seeing, weights_file, real_weights):
    ours = build_classifier(NAME, image_shape=(224, 224, 3))
    ours.load_weights(weights_file)
    theirs = build_efficientnet_package(NAME, image_shape=(224, 224, 3))
    mapped = [layer for layer in theirs.layers if layer.weights]
    assert len(mapped) == len([layer for layer in ours.layers if layer.weights]) - 1  # It has no Normalization.
    for layer in mapped:
        layer.set_weights(ours.get_layer(layer.name).get_weights())
    outputs = {scale: theirs.get_layer(layer).output for scale, layer in SAME_LAYERS.items()}
    image = photo(real_weights / "photos" / "panda.jpg")
    expected = seeing(image)
    received = keras.Model(theirs.input, outputs)(scale_input(image, scaling="imagenet", backbone=NAME))
    for scale, features in expected.items():
        np.testing.assert_allclose(received[scale], features, atol=1e-4)


SAME_LAYERS = {
    "P1": "block2a_expand_activation",
    "P2": "block3a_expand_activation",
    "P3": "block4a_expand_activation",
    "P4": "block6a_expand_activation",
    "P5": "top_activation",
}


def test_the_visible_scaling_equals_kerass_hidden_one(seeing, weights_file, real_weights):
    """Keras's chain is Rescaling(1/255), then Normalization, in this file with ImageNet's mean and variance."""
    whole = build_classifier(NAME, image_shape=(224, 224, 3))
    whole.load_weights(weights_file)
    image = photo(real_weights / "photos" / "fish.jpg")
    np.testing.assert_allclose(seeing(image)["P5"], whole(image), atol=2e-4)


@pytest.mark.large
def test_the_hidden_scaling_would_blind_the_features_and_starve_the_encoder(weights_file, real_data, monkeypatch):
    """Real FLAIR planes: the first convolution varies 1000 times less; the 3D encoder's last block, whose only way to
    the loss leads through the classifier, gets a 5 times smaller gradient."""
    monkeypatch.syspath_prepend(REPOSITORY / "experiments")
    from scaling_and_batch_norm import gradients, pick, prepared, seeded, stem_variance

    case = pick(find_cases(real_data / "native")[0], "BraTS20_Training_001")
    variance, gradient = {}, {}
    for scaling in ("none", "imagenet"):
        config = Config.from_preset(
            "embedding", modalities=("flair",), crop=(64, 64, 36), input_scaling=scaling, weights=str(weights_file)
        )
        volume, target = prepared(case, config)
        assert target.any()
        network, _ = seeded(config)
        variance[scaling] = stem_variance(network, volume)
        gradient[scaling] = gradients(network, volume, target)["last_gradient"]
    assert variance["none"] > 1000 * variance["imagenet"]
    assert gradient["none"] > 5 * gradient["imagenet"]
