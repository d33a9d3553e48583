"""Write a trained network as a SavedModel that needs TensorFlow alone, and prove that it computes the same."""

import logging
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from brats_tf.errors import InputError
from brats_tf.inference.ensemble import resolved_precision
from brats_tf.models.registry import get_network
from brats_tf.runs.network import load_network
from brats_tf.runtime.files import atomic
from brats_tf.runtime.tensorflow import as_os_error

log = logging.getLogger(__name__)

TOLERANCE = 1e-5


def export_saved_model(run, *, out, checkpoint="last", precision="float32"):
    """Writes `<out>`, reloads it and compares both on one random volume, before it gets its name.

    The SavedModel's `serve` takes a `volume` (B, H, W, D, C) float32, z-scored and cropped as the run's config says (a
    window of a network that sees patches), and returns a dictionary of the last layer's probabilities: `regions` (B, H,
    W, D, 3) or `classes` (B, H, W, D, 4). It is also the signature `serving_default`. `precision` is that of the layers
    inside, as `ForwardOptions` has it; volumes and probabilities stay float32.

    Returns:
        The largest difference between network and SavedModel.

    Raises:
        InputError: when the run holds no network, `out` exists and is no SavedModel, or the two differ by over 1e-5.
    """
    out = Path(out)
    if out.exists() and not (out / "saved_model.pb").is_file():
        raise InputError(f"{out} exists and is no SavedModel; it would be replaced. Choose another --out.")
    config, network = load_network(run, checkpoint, precision=resolved_precision(precision))
    volume = np.random.default_rng(config.seed).standard_normal((1, *config.input_shape))
    volume = tf.constant(volume, tf.float32)
    # On the CPU, where both compute the same; a GPU may choose another algorithm for each.
    with atomic(out) as temporary, tf.device("/cpu:0"):
        try:
            _save(network, temporary, outputs=get_network(config.network.name).outputs)
        except tf.errors.OpError as error:  # What TensorFlow makes of a full disk or a missing permission.
            raise as_os_error(error) from error
        reloaded = tf.saved_model.load(temporary)  # Has to stay alive while its function runs.
        compiled = tf.function(partial(network, training=False))  # As predictions compute it.
        (probabilities,) = reloaded.serve(volume).values()
        difference = np.abs(probabilities.numpy() - compiled(volume).numpy()).max()
        if not difference <= TOLERANCE:
            raise InputError(f"The SavedModel of {run} must equal its network to {TOLERANCE}. Received: {difference}.")
        shutil.rmtree(out, ignore_errors=True)
    log.info(f"SavedModel written to {out}; reloaded, it differs from the network by at most {difference:.1e}.")
    return float(difference)


def _save(graph, path, *, outputs):
    """Writes a SavedModel that holds every weight once; Keras's own export tracks each of them twice."""
    module = tf.Module()
    module.weights = [weight.value for weight in graph.weights]
    module.serve = tf.function(
        lambda volume: {outputs: graph(volume, training=False)},
        input_signature=[tf.TensorSpec((None, *graph.input.shape[1:]), tf.float32, name="volume")],
        autograph=False,
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve.get_concrete_function()})
