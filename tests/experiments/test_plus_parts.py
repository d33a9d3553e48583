"""Variants of `embedding-plus` that differ in one part, and what they learn with."""

import keras
import numpy as np
import plus_parts
import pytest
import real_networks
from plus_parts import RegionLoss

from brats_tf.models import slabs
from brats_tf.models.losses import CrossEntropyMinusDice, soft_dice
from brats_tf.models.planes import has_planes
from brats_tf.models.plus import plus_network
from brats_tf.regions import MODALITIES

SHAPE = (32, 64, 8, 4)


def build(variant):
    with plus_parts.replaced(variant):
        return plus_network(SHAPE, backbone="tiny")


@pytest.fixture(scope="module")
def usual():
    return plus_network(SHAPE, backbone="tiny")


def values(network, layer, volume):
    """What a layer of a network makes of a volume, without tracing anything."""
    return keras.ops.convert_to_numpy(keras.Model(network.input, network.get_layer(layer).output)(volume))


@pytest.mark.parametrize("variant", plus_parts.PARTS)
def test_a_part_changes_the_network_and_the_package_keeps_its_own(variant, usual):
    before = dict(vars(slabs))
    network = build(variant)
    assert vars(slabs) == before
    assert variant in real_networks.PLUS and has_planes(network)
    names, others = ({layer.name for layer in one.layers} for one in (network, usual))
    assert names != others
    channels = 9 if variant == "deep-supervision" else 3
    assert network.output_shape == (None, *SHAPE[:3], channels)
    if variant == "no-detail":
        assert not values(network, "detail_nothing", np.ones((1, *SHAPE), "float32")).any()


def test_mean_images_are_a_mixture_of_means_over_a_slab():
    network = build("mean-images")
    volume = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype("float32")
    kernel, bias = network.get_layer("images_conv").get_weights()
    means = volume.reshape(1, *SHAPE[:2], 2, 4, 4).mean(axis=4)
    np.testing.assert_allclose(values(network, "images_conv", volume), means @ kernel[0, 0, 0] + bias, atol=1e-5)


def pair(channels=3):
    random = np.random.default_rng(0)
    target = (random.random((2, 8, 8, 4, 3)) < 0.3).astype("float32")
    return target, random.uniform(0.01, 0.99, (2, 8, 8, 4, channels)).astype("float32")


def test_the_loss_of_equal_weights_is_that_of_the_package():
    target, prediction = pair()
    expected = CrossEntropyMinusDice("regions").call(target, prediction)
    np.testing.assert_allclose(RegionLoss().call(target, prediction), expected, rtol=1e-5)


def test_each_setting_of_the_loss_is_what_it_says():
    target, prediction = pair()
    dice = np.asarray(soft_dice(target, prediction))
    np.testing.assert_allclose(RegionLoss(entropy=0.0).call(target, prediction), -dice.mean(axis=1), rtol=1e-5)
    entropy = -(target * np.log(prediction) + (1 - target) * np.log(1 - prediction)).mean(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(RegionLoss(dice=0.0).call(target, prediction), entropy, rtol=1e-5)
    weighted = RegionLoss(entropy=0.0, weights=(1, 2, 3)).call(target, prediction)
    np.testing.assert_allclose(weighted, -(dice @ [1, 2, 3]) / 6, rtol=1e-5)
    rest = np.asarray(soft_dice(1 - target[..., :1], 1 - prediction[..., :1]))
    expected = -np.concatenate([dice, rest], axis=1).mean(axis=1)
    np.testing.assert_allclose(RegionLoss(entropy=0.0, background=True).call(target, prediction), expected, rtol=1e-5)


def test_every_head_is_judged_by_its_weight():
    target, prediction = pair(channels=9)
    heads = [np.asarray(RegionLoss().call(target, prediction[..., start : start + 3])) for start in (0, 3, 6)]
    found = RegionLoss(heads=(1.0, 0.5, 0.25)).call(target, prediction)
    np.testing.assert_allclose(found, (heads[0] + heads[1] / 2 + heads[2] / 4) / 1.75, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["deep-supervision", "averaged-weights"])
def test_a_variant_learns_and_predicts_three_regions(variant, monkeypatch):
    changes, differences = real_networks.PLUS[variant]
    tiny = {"backbone": "tiny", "weights": "none", "precision": "float32"}
    if variant == "averaged-weights":
        differences = differences | real_networks.PLUS["constant-rate"][1]
    monkeypatch.setitem(real_networks.PLUS, variant, (changes | tiny, differences))
    random = np.random.default_rng(0)
    classes = np.zeros((1, 32, 32, 8), "uint8")
    classes[:, 8:24, 8:24, 2:6] = 3
    volumes = (classes[..., None] + random.normal(size=(1, 32, 32, 8, 4))).astype("float16")
    with plus_parts.replaced(variant):
        settings = {"steps": 12, "learning_rate": 3e-3, "warmup": 2}
        cropped = {"crop": (32, 32, 8), "spacing_mm": 6.0}
        training, _ = real_networks.make_training(variant, MODALITIES, 0, settings, cropped)
        first = training.predict(volumes)
        curves = training.run(volumes, classes, [0] * 12)
        found = training.predict(volumes)
    assert found.shape == (1, 32, 32, 8, 3) and not np.allclose(first, found)
    assert curves["loss"][-1] < curves["loss"][0]
    assert float(training.rate(11)) == pytest.approx(3e-3 if variant == "averaged-weights" else 0.0732e-3, rel=0.05)
    if variant == "averaged-weights":
        kept = training.network.get_weights()
        last = training.trainer.predict_on_batch(volumes.astype("float32"))
        assert not np.allclose(last, found, atol=1e-3)
        for one, before in zip(training.network.get_weights(), kept, strict=True):
            np.testing.assert_array_equal(one, before)
