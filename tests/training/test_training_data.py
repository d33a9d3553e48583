"""What a config says of its data reaches the batches."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.config.execution import TrainingOptions
from brats_tf.models.build import build_network
from brats_tf.models.planes import with_planes
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.training import training_data
from brats_tf.training.loop import make_trainer
from brats_tf.training.training_data import prepare_training_data

WINDOW = (8, 8, 8)


def data_of(cases, folder, preset="embedding-plus", **changes):
    settings = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none", "augmentation": "none"} | changes
    if preset.startswith("albunet"):
        settings |= {"patch_size": WINDOW, "window_stride": WINDOW, "batch_size": 8, "steps_per_epoch": 2}
        settings = {name: value for name, value in settings.items() if name != "backbone"}
    config = Config.from_preset(preset, **settings)
    return prepare_training_data(config, cases, None, folder, TrainingOptions())


def batches(data, count=2):
    found = data.batches(tf.distribute.get_strategy(), (0, 0))
    return [[part.numpy() for part in next(found)] for _ in range(count)]


@pytest.mark.parametrize("spacing_mm", [None, 8.0])
def test_what_trains_is_the_case_as_it_is_predicted(phantoms, tmp_path, spacing_mm):
    data = data_of(phantoms[:1], tmp_path, spacing_mm=spacing_mm)
    ((volumes, classes, *_),) = batches(data, 1)
    prepared = prepare_case(phantoms[0], **data.config.preprocessing(), with_truth=True)
    np.testing.assert_array_equal(volumes[0], prepared.volume)
    np.testing.assert_array_equal(classes[0], prepared.classes)


def test_the_seed_decides_the_order_and_the_patches(phantoms, tmp_path):
    whole = [batches(data_of(phantoms, tmp_path, seed=seed), 4) for seed in (0, 0, 1)]
    np.testing.assert_array_equal([one[0] for one in whole[0]], [one[0] for one in whole[1]])
    assert any((a[0] != b[0]).any() for a, b in zip(whole[0], whole[2], strict=True))
    seeds = [{tuple(map(tuple, one[2])) for one in found} for found in (whole[0], whole[2])]
    assert not seeds[0] & seeds[1]  # Of the augmentation.
    first, again, other = (batches(data_of(phantoms, tmp_path, "albunet3d", seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[0][0], again[0][0])
    assert (first[0][0] != other[0][0]).any()


def test_patches_around_the_tumour_are_as_frequent_as_asked_for(phantoms, tmp_path):
    with_tumour = [
        sum(classes.any(axis=(1, 2, 3)).sum() for _, classes, *_ in batches(data))
        for data in (data_of(phantoms, tmp_path, "albunet3d", foreground_fraction=fraction) for fraction in (0.0, 1.0))
    ]
    assert with_tumour[0] < with_tumour[1] == 16


@pytest.mark.parametrize("devices", [1, 2])
def test_nothing_keeps_a_training_from_ending_at_once(phantoms, tmp_path, devices, monkeypatch):
    """The thread of tf.data's autotuning would, for up to a minute."""
    seen = []

    class Strategy:
        num_replicas_in_sync = devices

        def distribute_datasets_from_function(self, function):
            seen.append(function(tf.distribute.InputContext(1, 0, devices)))
            return seen

    monkeypatch.setattr(training_data, "iter", lambda one: seen.append(one), raising=False)
    data_of(phantoms, tmp_path, batch_size=2).batches(Strategy(), (0, 0))
    assert seen[0].options().autotune.enabled is False


def test_the_step_has_the_settings_of_what_it_does_to_a_batch():
    config = Config.from_preset("embedding-plus", crop=TINY_CROP, backbone="tiny", weights="none", modality_dropout=0.3)
    trainer = make_trainer(with_planes(build_network(config)), config)
    assert trainer.targets == {"outputs": "regions", "augmentation": "nnunet-like", "modality_dropout": 0.3}


def test_networks_of_several_seeds_have_the_same_folds(phantoms, tmp_path):
    parts = []
    for seed, split_seed in ((0, 0), (1, 0), (1, 1)):
        config = Config.from_preset(
            "embedding", modalities=("flair",), crop=TINY_CROP, folds=2, fold=0, seed=seed, split_seed=split_seed
        )
        parts.append(prepare_training_data(config, phantoms, None, tmp_path, TrainingOptions()).split.training)
    assert parts[0] == parts[1] != parts[2]
