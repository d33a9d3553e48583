"""Networks as a SavedModel, which needs TensorFlow alone."""

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from brats_tf.exporting.label_map import label_map_function, probabilities_function
from brats_tf.models.forms import plain_convolutions


def write(members, folder, *, weight_type, label_map=None):
    """Writes a SavedModel that holds every weight once; Keras's own export tracks each of them twice.

    `label_map` has the settings of `label_map_function`; None writes `probabilities` alone.
    """
    del weight_type  # float32: `export` refuses others.
    module = tf.Module()
    module.weights = [weight.value for _, network in members for weight in network.weights]
    module.probabilities = probabilities_function(members)
    # Without gradients, which nobody asks of it, a third of the time and half of the graph.
    without = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with plain_convolutions():  # A GPU may run it. TensorFlow traces again as it saves.
        concrete = module.probabilities.get_concrete_function()
        signatures = {"serving_default": concrete, "probabilities": concrete}
        if label_map:
            module.label_map = label_map_function(members, **label_map)
            signatures["label_map"] = module.label_map.get_concrete_function()
        tf.saved_model.save(module, str(folder), signatures=signatures, options=without)


def load(folder):
    """What is in a folder, as functions of arrays."""
    with _without_warnings_of_gradients():
        return LoadedSavedModel(tf.saved_model.load(folder))


@contextmanager
def _without_warnings_of_gradients():
    """TensorFlow warns of each function that was saved without its gradient, which nobody asks for."""
    absl = logging.getLogger("absl")
    other = lambda record: "unsaved custom gradients" not in record.getMessage()  # noqa: E731
    absl.addFilter(other)
    try:
        yield
    finally:
        absl.removeFilter(other)


@dataclass(frozen=True)
class LoadedSavedModel:
    """A SavedModel that stays alive while its functions run."""

    saved: Any

    def run(self, volumes):
        """The probabilities of (B, H, W, D, C), float32."""
        (found,) = self.saved.probabilities(volumes).values()
        return found.numpy()

    def label_map(self, volume):
        """The labels of raw intensities (H, W, D, C), uint8."""
        return self.saved.label_map(volume)["labels"].numpy()
