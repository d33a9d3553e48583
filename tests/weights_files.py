"""Whether a network still loads what an earlier version of it has saved."""

import numpy as np


def check_loads_what_was_saved(earlier, now, folder):
    """Saves random weights of the network `earlier` and loads them into `now`: the same paths, the same values."""
    for weight in earlier.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    earlier.save_weights(folder / "old.weights.h5")
    now.load_weights(folder / "old.weights.h5")
    assert [weight.path for weight in now.weights] == [weight.path for weight in earlier.weights]
    for received, expected in zip(now.weights, earlier.weights, strict=True):
        np.testing.assert_array_equal(received, expected)
