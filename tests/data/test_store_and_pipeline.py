import shutil

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_CROP

from brats_tf.data.cases import find_cases
from brats_tf.data.pipeline import read_target, training_dataset
from brats_tf.data.preparation import prepare_case
from brats_tf.data.store import store_case
from brats_tf.regions import classes_to_regions


@pytest.fixture
def stored(phantoms, tmp_path):
    return [store_case(case, modalities=("flair", "t2"), crop=TINY_CROP, folder=tmp_path) for case in phantoms]


def stream(stored, seed, **changes):
    settings = {"shape": (*TINY_CROP, 2), "outputs": "regions", "batch_size": 1} | changes
    return training_dataset(stored, seed=seed, **settings)


def test_the_stream_is_what_preparation_made(phantoms, stored):
    expected = {
        prepared.volume.tobytes(): classes_to_regions(prepared.classes)
        for prepared in (
            prepare_case(case, modalities=("flair", "t2"), crop=TINY_CROP, with_truth=True) for case in phantoms
        )
    }
    batches = list(stream(stored, seed=0).as_numpy_iterator())
    assert len(batches) == len(phantoms)
    for volume, regions in batches:
        np.testing.assert_array_equal(regions[0], expected.pop(volume[0].tobytes()))
        assert regions.dtype == volume.dtype == np.float32
    assert not expected


def test_classes_are_one_hot_with_the_background_first(stored):
    target = read_target(str(stored[0].classes), TINY_CROP, "classes").numpy()
    classes = np.fromfile(stored[0].classes, np.uint8).reshape(TINY_CROP)
    np.testing.assert_array_equal(target.argmax(axis=-1), classes)
    np.testing.assert_array_equal(target.sum(axis=-1), 1)


def test_a_seed_gives_one_order_and_each_epoch_another(stored):
    def order(seed, epochs=6):
        dataset = stream(stored, seed)
        return [[hash(volume.tobytes()) for volume, _ in dataset.as_numpy_iterator()] for _ in range(epochs)]

    first = order(1)
    assert order(1) == first
    assert order(2) != first
    assert len({tuple(epoch) for epoch in first}) > 1
    assert all(sorted(epoch) == sorted(first[0]) for epoch in first)


def test_the_last_batch_may_be_smaller(stored):
    assert [volume.shape[0] for volume, _ in stream(stored, seed=0, batch_size=3).as_numpy_iterator()] == [3, 1]


def test_no_python_runs_in_the_stream(stored):
    def operations(make_dataset):
        graph = tf.function(lambda: make_dataset().reduce(0, lambda count, _: count + 1)).get_concrete_function().graph
        nodes = list(graph.as_graph_def().node)
        for function in graph.as_graph_def().library.function:
            nodes += function.node_def
        return {node.op for node in nodes}

    used = operations(lambda: stream(stored, seed=0))
    assert {"ReadFile", "DecodeRaw"} <= used  # So the test does look inside the map.
    assert not used & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}


def test_a_second_preparation_writes_nothing(phantoms, stored, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    store_case(phantoms[0], modalities=("flair", "t2"), crop=TINY_CROP, folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_changed_file_or_setting_is_noticed(phantoms, tmp_path):
    shutil.copytree(phantoms[0].folder, tmp_path / "data" / "x")
    (case,), _ = find_cases(tmp_path / "data")
    first = store_case(case, modalities=("flair",), crop=TINY_CROP, folder=tmp_path / "store")
    other_crop = store_case(case, modalities=("flair",), crop=(32, 32, 36), folder=tmp_path / "store")
    image = nib.load(case.volumes["flair"])
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj) + 1, image.affine), case.volumes["flair"])
    changed = store_case(case, modalities=("flair",), crop=TINY_CROP, folder=tmp_path / "store")
    assert len({first.volume, other_crop.volume, changed.volume}) == 3
