"""Cases packed as arrays, networks trained with JAX, label maps scored against whole files."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys

import contribution_on_gpu as experiment
import numpy as np
import pytest
from repository import REPOSITORY

from brats_tf.errors import InputError
from brats_tf.regions import MEMBERSHIP

TRAINING = """
import jax_training as training
from recipes import Recipe, shuffled
import keras, numpy as np
from brats_tf.models.losses import CrossEntropyMinusDice

def network(rate=1.0, **settings):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((8, 8, 8, 2)), keras.layers.Conv3D(4, 1, activation="tanh")], name="inner")
    volume = keras.Input((8, 8, 8, 2))
    y = keras.layers.Conv3D(3, 1, activation="sigmoid")(inner(volume))
    recipe = Recipe(CrossEntropyMinusDice(), "regions", 40, 0.1, classifier_rate=rate, **settings)
    return training.Training(keras.Model(volume, y), recipe)

def inner_weights(one):
    one.write_back()
    return one.network.get_layer("inner").get_weights()[0]

volumes = np.random.default_rng(0).normal(size=(2, 8, 8, 8, 2)).astype("float16")
classes = np.where(volumes[..., 0] > 0.5, 3, 0).astype("uint8")
order = shuffled(2, 40, 0)
assert sorted(order[:2]) == [0, 1] and len(order) == 40
plain = network()
start = inner_weights(plain)
found = [plain.run(volumes, classes, part) for part in np.split(order, 2)]
again = network().run(volumes, classes, order)
np.testing.assert_allclose(np.concatenate([one["loss"] for one in found]), again["loss"], rtol=1e-5)
first, last = again["loss"][:5].mean(), again["loss"][-5:].mean()
assert last < first - 0.3, (first, last)
assert again["dice"].shape == (40, 3) and again["dice"][-5:].mean() > 0.8
assert plain.predict(volumes).shape == (2, 8, 8, 8, 3)
other = network()
other.run(volumes, classes, order[:7])
plain_again = network()
other.restart(plain_again.network.get_weights(), 0)
np.testing.assert_allclose(other.run(volumes, classes, order)["loss"], again["loss"], rtol=1e-5)
frozen = network(rate=0.0)
frozen.run(volumes, classes, order[:3])
np.testing.assert_array_equal(inner_weights(frozen), start)
averaged, last_step = network(ema=0.9), network()
for one in (averaged, last_step):
    one.run(volumes, classes, order[:10])
assert np.abs(inner_weights(averaged) - inner_weights(last_step)).max() > 1e-3
mirrored = network(mirror=(0, 1, 2), brightness=True, modality_dropout=1.0)
volume, labels = mirrored._augmented(volumes[0].astype("float32"), classes[0], training.jax.random.key(1))
assert volume.shape == (8, 8, 8, 2) and (np.bincount(np.ravel(labels)) == np.bincount(classes[0].ravel())).all()
assert sorted(np.abs(np.asarray(volume)).sum(axis=(0, 1, 2)) == 0) == [False, True]
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the package jax")
@pytest.mark.large
def test_a_training_with_jax_learns_and_obeys_its_recipe(tmp_path):
    paths = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "experiments")))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def packed(phantom_folder, others, tmp_path):
    given = argparse.Namespace(training=others, validation=phantom_folder, folder=tmp_path / "cases")
    given.networks, given.results = tmp_path / "networks", tmp_path / "results"
    experiment.pack(given)
    given.networks.mkdir()
    return given


IDS = [f"Phantom_00{number}" for number in range(1, 5)]


def write_network(given, modality, probabilities, **changes):
    facts = {"validation_cases": IDS, "training_cases": ["Other_001"]}
    facts |= {"variant": "imagenet", "modalities": [modality], "seed": 0, "commit": "c", "weights": "none", "cases": 4}
    facts |= {"classifier_sha256": "0", "seconds_a_step": 1.0, "least_live": 1.0, "epochs": 1, "learning_rate": 1e-4}
    facts |= {"curves": {"planes_std": [1.0]}, "precision": "bfloat16", "device": "some GPU", "versions": {"jax": "0"}}
    maps = {"normal": probabilities, "blinded": 0 * probabilities}
    np.savez(given.networks / f"{modality}.npz", facts=json.dumps(facts | changes), **maps)


@pytest.mark.slow
def test_the_truth_scores_high_and_nothing_scores_0(packed):
    with np.load(packed.folder / "validation.npz") as file:
        truth = experiment._quantised(np.asarray(MEMBERSHIP)[file["classes"]])
        assert file["volumes"].shape[1:] == (*experiment.CROP, 4)
    for modality in experiment.MODALITIES:
        write_network(packed, modality, truth)
    experiment.score(packed)
    found = json.loads((packed.results / "classifier_contribution-gpu.json").read_text())
    assert found["machine"] == "some GPU" and found["versions"]["jax"] == "0"
    assert {row["networks"] for row in found["rows"]} == {*experiment.MODALITIES, "ensemble"}
    for row in found["rows"]:
        assert row["dice"]["WT"]["normal"]["mean"] > 0.8 and row["dice"]["WT"]["blinded"]["mean"] == 0


def test_networks_of_two_trainings_are_not_mixed(packed):
    with pytest.raises(InputError, match=r"no \.npz"):
        experiment.score(packed)
    nothing = np.zeros((4, *experiment.CROP, 3), np.uint8)
    write_network(packed, "flair", nothing)
    write_network(packed, "t1", nothing, epochs=2)
    with pytest.raises(InputError, match="other epochs"):
        experiment.score(packed)
    write_network(packed, "t1", nothing, training_cases=["Other_002"])
    with pytest.raises(InputError, match="other training_cases"):
        experiment.score(packed)
    write_network(packed, "t1", nothing, validation_cases=IDS[::-1])
    with pytest.raises(InputError, match="t1.npz has label maps of Phantom_004, "):
        experiment.score(packed)


def test_a_network_of_another_training_in_the_same_folder_is_refused(packed):
    write_network(packed, "flair", np.zeros((4, *experiment.CROP, 3), np.uint8))
    (packed.networks / "flair.npz").rename(packed.networks / "imagenet-flair-0.npz")
    packed.out, packed.until, packed.variants, packed.modality = packed.networks, 0.0, ["imagenet"], "flair"
    packed.seeds, packed.epochs, packed.learning_rate = 1, 60, 1e-4
    with pytest.raises(InputError, match="imagenet-flair-0.npz was trained with other epochs, training_cases: name"):
        experiment.train(packed)
