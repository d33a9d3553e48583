"""Folders of runs that nobody has trained, for tests of what is done with a network."""

from contextlib import contextmanager

import pytest
from forked_trainings import small_networks
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.models import registry
from brats_tf.models.build import build_network


def untrained(run, preset="embedding", *, change=None, **settings):
    """Writes the folder of a run of the tiny classifier with random weights, after `change(network)`; returns it."""
    config = Config.from_preset(preset, **({"crop": TINY_CROP, "backbone": "tiny", "weights": "none"} | settings))
    config.save(run)
    network = build_network(config)
    if change:
        change(network)
    network.save_weights(run / "network.weights.h5")
    return run


@contextmanager
def networks_of_two_convolutions():
    """Inside it, preset `embedding` has two convolutions, which are traced in no time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, network in small_networks().items():
            patch.setitem(registry.NETWORKS, name, network)
        yield
