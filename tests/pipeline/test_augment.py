import numpy as np
import pytest
import tensorflow as tf

from brats_tf.config.fields import choices_of
from brats_tf.config.settings import DataSettings
from brats_tf.pipeline.augment import (
    DRAWS,
    INTENSITY,
    KEEP_BACKGROUND,
    PRESETS,
    AugmentationSetting,
    augment,
    drop_modalities,
)
from brats_tf.pipeline.stream import augment_and_encode, to_target

SHAPE = (24, 20, 16)
OPERATIONS = [name for name in DRAWS if name != "mirror"]


@pytest.fixture(scope="module")
def batch():
    """Four cases of two channels: a ball of noise, off the middle, with nested shells of classes in it."""
    random = np.random.default_rng(0)
    axes = np.meshgrid(*[np.arange(size) - size / 2 + 1 for size in SHAPE], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    volume = np.where((radius < 7.5)[..., None], random.normal(size=(4, *SHAPE, 2)), 0).astype(np.float32)
    classes = np.select([radius < 2, radius < 3.5, radius < 5.5], [1, 3, 2]).astype(np.uint8)
    return tf.constant(volume), tf.constant(np.stack([classes] * 4))


def seeds(number, count=4):
    return tf.constant([[number, case] for case in range(count)], tf.int64)


@pytest.fixture
def always(monkeypatch):
    """Makes a preset of one operation that always happens."""

    def preset(name):
        found = next(chances[name] for chances in PRESETS.values() if name in chances)
        monkeypatch.setitem(PRESETS, name, {name: AugmentationSetting(1.0, found.low, found.high)})
        return name

    return preset


@pytest.mark.parametrize("name", ["elastic", "rotation", "scale"])
def test_a_single_slice_stays_in_its_plane(always, name):
    # What does not change along a square's middle is not dimmed by a neighbour that is not there.
    volume = np.zeros((1, 32, 32, 1, 1), np.float32)
    volume[:, 6:26, 6:26] = 1
    classes = (volume[..., 0] > 0).astype(np.uint8)
    changed, moved = augment(tf.constant(volume), tf.constant(classes), seeds=seeds(3, 1), preset=always(name))
    np.testing.assert_allclose(changed[0, 12:20, 12:20], 1, atol=1e-5)
    assert (moved.numpy()[0, 12:20, 12:20] == 1).all()
    assert (changed.numpy() != volume).any()


def test_the_config_knows_every_preset():
    assert tuple(PRESETS) == choices_of(DataSettings, "augmentation")


def test_every_operation_is_in_a_preset_and_every_preset_knows_its_operations():
    assert {name for chances in PRESETS.values() for name in chances} == set(DRAWS)
    assert set(INTENSITY) < set(DRAWS)


def test_presets_are_those_of_the_papers():
    assert PRESETS["none"] == {}
    assert set(PRESETS["albunet"]) == {"elastic", "mirror", "noise", "blur"}
    assert PRESETS["albunet-authors"]["rotation"] == AugmentationSetting(0.1, -15, 15)
    assert PRESETS["albunet-authors"]["scale"] == AugmentationSetting(0.1, 0.75, 1.25)
    assert {name: (c.low, c.high) for name, c in PRESETS["albunet-authors"].items() if c.probability == 0.15} == {
        "brightness": (0.7, 1.5),
        "gamma": (0.5, 2),
        "inverted_gamma": (0.5, 2),
        "noise": (0, 0.05),
        "blur": (0.5, 1.5),
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_and_types_stay(batch, preset):
    volumes, classes = augment(*batch, seeds=seeds(1), preset=preset)
    assert (volumes.shape, volumes.dtype) == (batch[0].shape, tf.float32)
    assert (classes.shape, classes.dtype) == (batch[1].shape, tf.uint8)
    assert np.isfinite(volumes).all()


def test_none_changes_nothing(batch):
    assert augment(*batch, seeds=seeds(1), preset="none") == batch


@pytest.mark.parametrize("name", [*OPERATIONS, "mirror"])
@pytest.mark.slow
def test_regions_stay_nested_and_binary(batch, always, name):
    for number in range(3):
        volumes, classes = augment(*batch, seeds=seeds(number), preset=always(name))
        assert not np.array_equal(volumes, batch[0])
        assert np.array_equal(classes, batch[1]) == (name in INTENSITY)
        regions = to_target(classes, "regions").numpy()
        assert set(np.unique(regions)) == {0, 1}
        wt, tc, et = np.moveaxis(regions, -1, 0)
        assert (wt >= tc).all() and (tc >= et).all()
        assert et.sum() > 20


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_case_and_each_seed_draws_its_own(batch, always, name):
    preset = always(name)
    same = tf.repeat(batch[0][:1], 4, axis=0), batch[1]
    first, _ = augment(*same, seeds=seeds(1), preset=preset)
    assert len({case.numpy().tobytes() for case in first}) == 4
    other, _ = augment(*same, seeds=seeds(2), preset=preset)
    assert not np.array_equal(first, other)
    again, _ = augment(*same, seeds=seeds(1), preset=preset)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.slow
def test_eager_and_in_a_graph_are_equal(batch, preset):
    eager = augment(*batch, seeds=seeds(5), preset=preset)
    graph = tf.function(lambda v, c: augment(v, c, seeds=seeds(5), preset=preset))(*batch)
    np.testing.assert_allclose(eager[0], graph[0], atol=1e-5)
    np.testing.assert_array_equal(eager[1], graph[1])


@pytest.mark.slow
def test_operations_happen_as_often_as_they_should(monkeypatch):
    monkeypatch.setitem(PRESETS, "half", {"brightness": AugmentationSetting(0.25, 0.5, 1.5)})
    ones = tf.ones((2000, 1, 1, 1, 1))
    changed, _ = augment(ones, tf.zeros((2000, 1, 1, 1), tf.uint8), seeds=seeds(1, 2000), preset="half")
    factors = np.ravel(changed)
    assert np.mean(factors != 1) == pytest.approx(0.25, abs=0.03)
    applied = factors[factors != 1]
    assert 0.5 <= applied.min() < 0.55
    assert 1.45 < applied.max() <= 1.5
    assert np.mean(applied < 1) == pytest.approx(0.5, abs=0.06)


@pytest.mark.slow
def test_each_axis_is_mirrored_half_of_the_time(monkeypatch):
    monkeypatch.setitem(PRESETS, "only_mirror", {"mirror": PRESETS["albunet"]["mirror"]})
    corner = np.zeros((1000, 2, 2, 2, 1), np.float32)
    corner[:, 0, 0, 0] = 1
    turned, _ = augment(
        tf.constant(corner), tf.zeros((1000, 2, 2, 2), tf.uint8), seeds=seeds(1, 1000), preset="only_mirror"
    )
    assert np.asarray(turned).mean(axis=0).ravel().tolist() == pytest.approx([1 / 8] * 8, abs=0.04)


def test_scale_above_1_makes_things_smaller(monkeypatch, batch):
    for low, high, larger in ((1.0, 1.3, False), (0.7, 1.0, True)):
        monkeypatch.setitem(PRESETS, "scaled", {"scale": AugmentationSetting(1.0, low, high)})
        _, classes = augment(*batch, seeds=seeds(3), preset="scaled")
        sizes = np.count_nonzero(classes, axis=(1, 2, 3)) / np.count_nonzero(batch[1][0])
        moved = sizes[sizes != 1]
        assert moved.size
        assert (moved > 1).all() if larger else (moved < 1).all()


def test_the_background_stays_0_where_a_preset_keeps_it(batch, monkeypatch):
    chances = dict(PRESETS["nnunet-like"])
    for name in INTENSITY:
        monkeypatch.setitem(
            PRESETS, "nnunet-like", {name: AugmentationSetting(1.0, chances[name].low, chances[name].high)}
        )
        volumes, _ = augment(*batch, seeds=seeds(1), preset="nnunet-like")
        assert not np.asarray(volumes)[np.asarray(batch[0]) == 0].any(), name
    assert KEEP_BACKGROUND == ("nnunet-like",)


@pytest.mark.slow
def test_one_modality_at_most_is_dropped_and_each_as_often():
    volumes = tf.ones((400, 2, 2, 1, 4))
    kept = drop_modalities(volumes, seeds=seeds(5, 400), probability=0.5).numpy()
    np.testing.assert_array_equal(kept, drop_modalities(volumes, seeds=seeds(5, 400), probability=0.5))
    channels = kept[:, 0, 0, 0]
    np.testing.assert_array_equal(kept, np.broadcast_to(channels[:, None, None, None], kept.shape))
    assert set(np.unique(channels)) == {0, 1} and channels.sum(axis=1).min() == 3
    missing = 400 - channels.sum(axis=0)
    assert 160 < missing.sum() < 240 and missing.min() > 30  # 200 and 50 are expected.
    assert (drop_modalities(volumes, seeds=seeds(5, 400), probability=1.0).numpy().sum(axis=-1) == 3).all()


def test_dropping_modalities_leaves_the_other_draws_as_they_are(batch):
    settings = {"outputs": "regions", "augmentation": "nnunet-like"}
    whole, targets = augment_and_encode(*batch, seeds(3), **settings)
    dropped, same = augment_and_encode(*batch, seeds(3), **settings, modality_dropout=1.0)
    np.testing.assert_array_equal(targets, same)
    there = np.any(dropped != 0, axis=(1, 2, 3))
    assert (there.sum(axis=-1) == 1).all()
    for case, channels in enumerate(there):
        np.testing.assert_array_equal(dropped[case].numpy()[..., channels], whole[case].numpy()[..., channels])
