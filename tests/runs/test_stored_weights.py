import os
import shutil

import h5py
import keras
import numpy as np
import pytest

from brats_tf.errors import InputError
from brats_tf.runs import stored_weights
from brats_tf.runs.stored_weights import StoredWeights
from brats_tf.runtime.files import sha256_of


def network(seed):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Conv3D(2, 1, bias_initializer="normal"), keras.layers.BatchNormalization()]
    return keras.Sequential([keras.Input((4, 4, 4, 1)), *layers])


def test_the_weights_stay_in_their_file_even_where_another_replaces_it(tmp_path):
    first, other = network(1), network(2)
    first.save_weights(tmp_path / "network.weights.h5")
    other.save_weights(tmp_path / "other.weights.h5")
    stored = StoredWeights(first, tmp_path / "network.weights.h5")
    assert stored.in_memory == 0
    (tmp_path / "other.weights.h5").replace(tmp_path / "network.weights.h5")
    stored.assign_to(other)
    for received, expected in zip(other.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)


def test_a_file_that_somebody_writes_into_is_told_of(tmp_path):
    first, other = network(1), network(2)
    first.save_weights(tmp_path / "network.weights.h5")
    other.save_weights(tmp_path / "other.weights.h5")
    stored = StoredWeights(first, tmp_path / "network.weights.h5")
    shutil.copyfile(tmp_path / "other.weights.h5", tmp_path / "network.weights.h5")
    with pytest.raises(InputError, match="network.weights.h5 must stay as it is while its network is in use"):
        stored.assign_to(other)


@pytest.mark.parametrize("system", ["replaced", "nt"])
def test_they_are_kept_in_memory_where_the_file_is_no_longer_theirs(system, tmp_path, monkeypatch):
    first, other = network(1), network(2)
    (other if system == "replaced" else first).save_weights(tmp_path / "network.weights.h5")
    if system == "nt":
        monkeypatch.setattr(stored_weights, "KEEP_OPEN", False)
    stored = StoredWeights(first, tmp_path / "network.weights.h5")
    # A bias, scale and offset of nothing are the same in both files: kernel and bias are not.
    assert stored.in_memory >= sum(weight.nbytes for weight in first.get_weights()[:2])
    stored.assign_to(other)
    for received, expected in zip(other.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)


def trained(seed):
    """As `network`, with weights that differ everywhere but in one: biases of one gradient stay the same."""
    one = network(seed)
    random = np.random.default_rng(seed)
    weights = [random.uniform(1, 2, array.shape).astype("float32") for array in one.get_weights()]
    one.set_weights([*weights[:2], weights[1], *weights[3:]])
    return one


def test_those_of_the_same_network_in_another_file_are_found_by_their_names(tmp_path):
    first, second, other = trained(1), trained(2), network(3)
    for name, one in (("first", first), ("second", second)):
        one.save_weights(tmp_path / f"{name}.weights.h5")
    stored, sha256 = StoredWeights(first, tmp_path / "first.weights.h5").in_another(tmp_path / "second.weights.h5")
    assert stored.path == tmp_path / "second.weights.h5" and stored.in_memory == 0
    assert sha256 == sha256_of(stored.path)
    stored.assign_to(other)
    for received, expected in zip(other.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)


def test_keras_finds_them_where_names_or_the_file_tell_too_little(tmp_path):
    path = tmp_path / "network.weights.h5"
    trained(1).save_weights(path)
    known = StoredWeights(trained(1), path)
    assert known.in_another(path)
    alike = keras.Sequential([keras.Input((4, 2)), *(keras.layers.BatchNormalization() for _ in range(2))])
    alike.save_weights(tmp_path / "alike.weights.h5")
    file = tmp_path / "alike.weights.h5"
    assert StoredWeights(alike, file).in_another(file) is None
    assert known.in_another(tmp_path / "missing.weights.h5") is None
    (tmp_path / "broken.weights.h5").write_bytes(path.read_bytes()[:2000])
    assert known.in_another(tmp_path / "broken.weights.h5") is None
    bad = trained(2)
    bad.layers[0].kernel.assign(np.full(bad.layers[0].kernel.shape, np.nan))
    bad.save_weights(tmp_path / "bad.weights.h5")
    assert known.in_another(tmp_path / "bad.weights.h5") is None
    wider = keras.Sequential([keras.Input((4, 4, 4, 1)), keras.layers.Conv3D(3, 1), keras.layers.BatchNormalization()])
    wider.save_weights(tmp_path / "wider.weights.h5")
    assert known.in_another(tmp_path / "wider.weights.h5") is None


def linked(path, tmp_path, kind):
    """Makes one of the datasets of a weights file one that Keras refuses, or adds a group that leads nowhere."""
    with h5py.File(path, "r+") as file:
        group = file["layers/conv3d/vars"]
        content = group["0"][()]
        if kind == "cycle":
            file["layers/conv3d/again"] = file["layers"]
            return
        del group["0"]
        with h5py.File(tmp_path / "elsewhere.h5", "w") as other:
            other["0"] = content
        if kind == "external link":
            group["0"] = h5py.ExternalLink(tmp_path / "elsewhere.h5", "/0")
        elif kind == "soft link":
            group["0"] = h5py.SoftLink("/nowhere")
        elif kind == "external storage":
            (tmp_path / "elsewhere.bin").write_bytes(content.tobytes())
            storage = [(tmp_path / "elsewhere.bin", 0, h5py.h5f.UNLIMITED)]
            group.create_dataset("0", content.shape, content.dtype, external=storage)
        elif kind == "virtual":
            layout = h5py.VirtualLayout(content.shape, content.dtype)
            layout[:] = h5py.VirtualSource(tmp_path / "elsewhere.h5", "0", content.shape, content.dtype)
            group.create_virtual_dataset("0", layout)


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual", "cycle"])
def test_nothing_is_read_from_outside_the_file(kind, tmp_path):
    for name in ("network", "other"):
        trained(1).save_weights(tmp_path / f"{name}.weights.h5")
    known = StoredWeights(trained(1), tmp_path / "network.weights.h5")
    assert known.in_another(tmp_path / "other.weights.h5")
    linked(tmp_path / "other.weights.h5", tmp_path, kind)
    assert known.in_another(tmp_path / "other.weights.h5") is None
    first = StoredWeights(trained(1), tmp_path / "other.weights.h5")
    assert first.in_memory > 0 and not first.names_are_known


def test_a_damaged_file_or_a_pipe_is_left_to_keras(tmp_path):
    path = tmp_path / "network.weights.h5"
    trained(1).save_weights(path)
    known, content = StoredWeights(trained(1), path), path.read_bytes()
    for block in (b"TREE", b"SNOD", b"HEAP"):
        place = content.index(block)
        (tmp_path / "bad.weights.h5").write_bytes(content[:place] + bytes(64) + content[place + 64 :])
        assert known.in_another(tmp_path / "bad.weights.h5") is None
    os.mkfifo(tmp_path / "pipe.weights.h5")
    assert known.in_another(tmp_path / "pipe.weights.h5") is None


def test_a_file_that_is_replaced_meanwhile_is_left_to_keras(tmp_path, monkeypatch):
    for name, one in (("network", trained(1)), ("other", trained(2)), ("next", trained(3))):
        one.save_weights(tmp_path / f"{name}.weights.h5")
    known = StoredWeights(trained(1), tmp_path / "network.weights.h5")

    def replaced(path):
        (tmp_path / "next.weights.h5").replace(path)
        return sha256_of(path)

    monkeypatch.setattr(stored_weights, "sha256_of", replaced)
    assert known.in_another(tmp_path / "other.weights.h5") is None
