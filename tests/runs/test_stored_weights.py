import shutil

import keras
import numpy as np
import pytest

from brats_tf.errors import InputError
from brats_tf.runs import stored_weights
from brats_tf.runs.stored_weights import StoredWeights


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
