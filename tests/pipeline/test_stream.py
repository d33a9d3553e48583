import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import TINY_CROP

from brats_tf.errors import InputError
from brats_tf.pipeline.patches import Patches, cut_patch
from brats_tf.pipeline.stream import (
    Order,
    Shard,
    augment_and_encode,
    order_of_epoch,
    training_dataset,
    training_stream,
)
from brats_tf.preprocessing.cache import Cache, CacheSettings
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import classes_to_regions

MODALITIES = ("flair", "t2")


@pytest.fixture(scope="module")
def stored(phantoms, tmp_path_factory):
    cache = Cache(tmp_path_factory.mktemp("store"))
    return [cache.add(case, (*MODALITIES, "seg"), CacheSettings(TINY_CROP))[0] for case in phantoms]


def stream(stored, seed=0, **changes):
    order = {"batch_size": 1, "epochs": 1} | {name: value for name, value in changes.items() if hasattr(Order, name)}
    others = {name: value for name, value in changes.items() if not hasattr(Order, name)}
    settings = {"modalities": MODALITIES, "crop": TINY_CROP} | others
    return training_stream(stored, Order(seed=seed, **order), **settings)


def prepared_volumes(stored):
    """(1, H, W, D, C) of each case, as the stream has it."""
    for case in stored:
        parts = [np.fromfile(case.volumes[name], "<f4").reshape(TINY_CROP) for name in MODALITIES]
        yield np.stack(parts, axis=-1)[None]


def batches(dataset):
    return list(dataset.as_numpy_iterator())


def test_the_stream_is_what_preparation_made(phantoms, stored):
    expected = {
        prepared.volume.tobytes(): prepared.classes
        for prepared in (
            prepare_case(case, modalities=MODALITIES, crop=TINY_CROP, with_truth=True) for case in phantoms
        )
    }
    received = batches(stream(stored))
    assert len(received) == len(phantoms)
    for volume, classes, _ in received:
        np.testing.assert_array_equal(classes[0], expected.pop(volume[0].tobytes()))
        assert (volume.dtype, classes.dtype) == (np.float32, np.uint8)
    assert not expected


def test_the_channels_are_the_modalities_in_the_order_asked_for(stored):
    both = {volume[0, ..., 1].tobytes() for volume, _, _ in batches(stream(stored))}
    t2 = {volume[0, ..., 0].tobytes() for volume, _, _ in batches(stream(stored, modalities=("t2",)))}
    assert both == t2


@pytest.mark.parametrize("outputs", ["regions", "classes"])
def test_targets_are_regions_or_one_hot_classes(stored, outputs):
    for (volume, classes, _), (same, target) in zip(
        batches(stream(stored)), batches(training_dataset(stream(stored), outputs=outputs)), strict=True
    ):
        np.testing.assert_array_equal(same, volume)
        expected = classes_to_regions(classes) if outputs == "regions" else np.eye(4)[classes]
        np.testing.assert_array_equal(target, expected)
        assert target.dtype == np.float32


def orders(stored, seed, **changes):
    return [hash(volume.tobytes()) for volume, *_ in batches(stream(stored, seed, **changes))]


def test_a_seed_gives_one_order_and_each_epoch_another(stored):
    first = orders(stored, 1, epochs=6)
    assert orders(stored, 1, epochs=6) == first
    assert orders(stored, 2, epochs=6) != first
    epochs = [first[start : start + 4] for start in range(0, 24, 4)]
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)


@pytest.mark.parametrize("changes", [{}, {"samples": 10, "patches": Patches((8, 16, 8), foreground_fraction=0.5)}])
def test_a_stream_that_begins_later_is_the_one_that_came_that_far(stored, changes):
    whole = batches(stream(stored, 7, epochs=5, **changes))
    rest = batches(stream(stored, 7, epochs=2, start=(3, 0), **changes))
    assert len(rest) == len(whole) * 2 // 5
    for one, other in zip(whole[-len(rest) :], rest, strict=True):
        for left, right in zip(one, other, strict=True):  # Volumes, classes, and the seeds of the augmentation.
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("changes", [{}, {"samples": 12, "patches": Patches((8, 16, 8), foreground_fraction=0.5)}])
def test_a_stream_may_begin_within_an_epoch(stored, changes):
    whole = batches(stream(stored, 7, epochs=3, batch_size=2, **changes))
    rest = batches(stream(stored, 7, epochs=2, batch_size=2, start=(1, 2), **changes))
    assert len(rest) == len(whole) * 2 // 3 - 1
    for one, other in zip(whole[-len(rest) :], rest, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_machines_share_the_batches_and_lose_none(stored):
    changes = {"epochs": 3, "samples": 8, "patches": Patches((8, 16, 8))}
    whole = batches(stream(stored, 7, batch_size=4, **changes))
    halves = [batches(stream(stored, 7, batch_size=2, shard=Shard(first, 1, 2), **changes)) for first in (0, 1)]
    for both, *parts in zip(whole, *halves, strict=True):
        for together, *alone in zip(both, *parts, strict=True):
            np.testing.assert_array_equal(together, np.concatenate(alone))


def test_the_order_of_an_epoch_can_be_asked_for(stored):
    volumes = [volume.tobytes() for volume, *_ in batches(stream(stored, 3, start=(5, 0), samples=8))]
    known = {volume[0].tobytes(): n for n, volume in enumerate(prepared_volumes(stored))}
    assert [known[volume] for volume in volumes] == order_of_epoch(len(stored), 8, 3, 5).numpy().tolist()


def test_filling_the_last_batch_changes_nothing_before_it():
    for epoch in range(3):
        alone, filled = (order_of_epoch(5, samples, 3, epoch).numpy().tolist() for samples in (5, 8))
        assert filled[:5] == alone and len(set(filled[5:])) == 3


def test_no_two_batches_share_a_seed(stored):
    seeds = [tuple(seed) for *_, (seed,) in batches(stream(stored, 7, epochs=5))]
    assert len(set(seeds)) == len(seeds) == 20


def test_the_last_batch_of_an_epoch_may_be_smaller(stored):
    assert [volume.shape[0] for volume, *_ in batches(stream(stored, batch_size=3, epochs=2))] == [3, 1, 3, 1]


def test_without_a_number_of_epochs_it_never_ends(stored):
    assert sum(1 for _ in stream(stored, epochs=None).take(50)) == 50


def test_no_python_runs_in_the_stream(stored):
    def operations(make_dataset):
        graph = tf.function(lambda: make_dataset().reduce(0, lambda count, *_: count + 1)).get_concrete_function().graph
        nodes = list(graph.as_graph_def().node)
        for function in graph.as_graph_def().library.function:
            nodes += function.node_def
        return {node.op for node in nodes}

    patches = Patches((8, 16, 8), foreground_fraction=0.5)
    used = operations(
        lambda: training_dataset(stream(stored, patches=patches), outputs="regions", augmentation="albunet-authors")
    )
    assert {"ReadFile", "DecodeRaw", "StatelessRandomUniformV2"} <= used  # So the test does look inside the maps.
    assert not used & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}


def test_patches_are_pieces_of_their_case(stored):
    patches = Patches((8, 12, 8))
    wholes = [(volume[0], classes[0]) for volume, classes, _ in batches(stream(stored))]
    received = batches(stream(stored, patches=patches, batch_size=10, samples=40))
    assert [volume.shape for volume, *_ in received] == [(10, 8, 12, 8, 2)] * 4
    for piece, its_classes in zip(received[0][0][:4], received[0][1][:4], strict=True):
        found = False
        for whole, classes in wholes:
            windows = np.lib.stride_tricks.sliding_window_view(whole, piece.shape)[..., 0, :, :, :, :]
            for h, w, d in np.argwhere((windows == piece).all(axis=(-4, -3, -2, -1))):
                found |= np.array_equal(classes[h : h + 8, w : w + 12, d : d + 8], its_classes)
        assert found


def test_patches_lie_in_the_brains_box_and_reach_its_ends():
    axes = tf.meshgrid(*[tf.range(16, dtype=tf.float32)] * 3, indexing="ij")
    classes = tf.zeros((16, 16, 16), tf.uint8)
    box, patches = tf.constant([[2, 5, 10], [9, 14, 13]]), Patches((4, 4, 4))
    corners = np.array(
        [[axis[0, 0, 0] for axis in cut_patch(axes, classes, box, patches=patches, seed=(1, n))[0]] for n in range(300)]
    )
    # Along D the box is 3 voxels long, shorter than the patch, which then lies where it covers it.
    assert corners.min(axis=0).tolist() == [2, 5, 10]
    assert corners.max(axis=0).tolist() == [5, 10, 10]


def test_foreground_patches_are_centred_on_the_tumour(stored):
    share = {}
    for foreground in (0.0, 1.0):
        patches = Patches((8, 8, 8), foreground_fraction=foreground)
        received = batches(stream(stored, patches=patches, samples=160))
        centres = [classes[0, 4, 4, 4] > 0 for _, classes, _ in received]
        share[foreground] = np.mean(centres)
    assert share[1.0] > 0.9  # At the edge of the crop a patch cannot be centred.
    assert share[0.0] < 0.5


def test_a_case_without_a_tumour_still_gives_patches(stored):
    volume, classes = tf.ones((8, 8, 8)), tf.zeros((8, 8, 8), tf.uint8)
    patches = Patches((4, 4, 4), foreground_fraction=1.0)
    (cut,), its_classes = cut_patch([volume], classes, tf.constant([[0] * 3, [8] * 3]), patches=patches, seed=(1, 2))
    assert (cut.shape, its_classes.shape) == ((4, 4, 4), (4, 4, 4))


def test_an_epoch_of_any_number_of_samples_takes_the_cases_equally_often(stored):
    whole = [hash(volume.tobytes()) for volume, *_ in batches(stream(stored))]
    received = [hash(volume.tobytes()) for volume, *_ in batches(stream(stored, samples=10, epochs=3))]
    for epoch in range(3):
        counts = [received[10 * epoch : 10 * epoch + 10].count(case) for case in whole]
        assert sorted(counts) == [2, 2, 3, 3]


def test_a_patch_larger_than_the_crop_is_refused(stored):
    with pytest.raises(InputError, match=r"A patch must fit into the crop \(32, 32, 24\). Received: \(64, 8, 8\)"):
        stream(stored, patches=Patches((64, 8, 8)))


@pytest.mark.slow
def test_augmented_in_the_stream_is_augmented_outside_it(stored):
    inside = batches(training_dataset(stream(stored, 3, batch_size=2), outputs="regions", augmentation="nnunet-like"))
    for raw, (volume, target) in zip(stream(stored, 3, batch_size=2), inside, strict=True):
        outside = augment_and_encode(*raw, outputs="regions", augmentation="nnunet-like")
        np.testing.assert_allclose(volume, outside[0], atol=1e-5)
        np.testing.assert_array_equal(target, outside[1])


def test_what_is_augmented_differs_from_what_is_stored(stored):
    plain = batches(training_dataset(stream(stored, 3), outputs="regions"))
    changed = batches(training_dataset(stream(stored, 3), outputs="regions", augmentation="albunet-authors"))
    assert not all(np.array_equal(one, other) for (one, _), (other, _) in zip(plain, changed, strict=True))


def test_cases_without_what_a_stream_reads_are_refused(stored):
    with pytest.raises(InputError, match="A stream needs cases. Received: none"):
        stream([])
    with pytest.raises(InputError, match=r"Case Phantom_001: t9 must be cached. Received: flair"):
        stream(stored, modalities=("t9",))
    bare = [dataclasses.replace(case, classes=None) for case in stored]
    with pytest.raises(InputError, match="Case Phantom_001: its truth must be cached"):
        stream(bare)
