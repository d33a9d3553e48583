"""Write trained networks as a SavedModel that needs TensorFlow alone, and prove that it computes the same."""

import logging
import shutil
from pathlib import Path

import tensorflow as tf

from brats_tf.config.execution import ExportOptions, ForwardOptions, PostProcessing
from brats_tf.errors import InputError
from brats_tf.exporting.label_map import label_map_function, probabilities_function, why_no_label_map
from brats_tf.exporting.model_card import describe, read_results, write_model_card
from brats_tf.exporting.verification import compare_label_maps, compare_probabilities
from brats_tf.inference.ensemble import resolved_precision
from brats_tf.regions import CONVENTIONS
from brats_tf.runs.network import load_network
from brats_tf.runtime.files import atomic
from brats_tf.runtime.tensorflow import as_os_error

log = logging.getLogger(__name__)
FLOAT32, NO_STEPS, DEFAULT_OPTIONS = ForwardOptions(), PostProcessing(), ExportOptions()


def export_saved_model(
    runs, *, out, checkpoint="last", forward=FLOAT32, steps=NO_STEPS, options=DEFAULT_OPTIONS, results=None
):
    """Writes `<out>`, reloads it and compares it with the networks, before it gets its name.

    Two functions, which are also signatures; `serving_default` is the first:

    - `probabilities` takes a `volume` (B, H, W, D, C) float32, z-scored and cropped as the runs' configs say (a window
      of a network that sees patches), and returns the probabilities, averaged over the networks: `regions` (B, H, W,
      D, 3) or `classes` (B, H, W, D, 4), float32.
    - `label_map`, see `label_map.label_map_function`: raw intensities of a whole volume to its labels, as `predict`
      computes them. One network that sees patches or resampled volumes is exported without it.

    Beside them lie `metadata.json` and `model_card.md`.

    Args:
        runs: the folders of the trained networks.
        out: the folder to write; a SavedModel there is replaced.
        checkpoint: "last" or "best".
        forward: `ForwardOptions`; volumes and probabilities stay float32.
        steps: `PostProcessing` of the label map.
        options: `ExportOptions`.
        results: a folder that `evaluate` wrote, for the scores on the card; None for none.

    Returns:
        What the comparison found: {"largest_difference": float, and with a label map "voxels_different", "voxels"}.

    Raises:
        InputError: when a run holds no network, `out` exists and is no SavedModel, networks or steps have no label map,
            the scores are of other networks, or the SavedModel differs from the networks.
    """
    out = Path(out)
    if out.exists() and not (out / "saved_model.pb").is_file():
        raise InputError(f"{out} exists and is no SavedModel; it would be replaced. Choose another --out.")
    forward = ForwardOptions(resolved_precision(forward.precision), forward.mirror)
    members = [load_network(run, checkpoint, precision=forward.precision) for run in runs]
    convention = CONVENTIONS[options.convention]
    with_label_map = _has_label_map([config for config, _ in members], forward, steps)
    facts = describe(runs, members, checkpoint=checkpoint, forward=forward, steps=steps, options=options)
    if results:
        facts["scores"] = read_results(results, facts["networks"])
    # On the CPU, where both compute the same; a GPU may choose another algorithm for each.
    with atomic(out) as temporary, tf.device("/cpu:0"):
        try:
            _save(members, temporary, forward, steps, convention, with_label_map=with_label_map)
        except tf.errors.OpError as error:  # What TensorFlow makes of a full disk or a missing permission.
            raise as_os_error(error) from error
        reloaded = tf.saved_model.load(temporary)  # Has to stay alive while its functions run.
        checked = compare_probabilities(reloaded, members)
        if with_label_map:
            checked |= compare_label_maps(reloaded, members, forward, steps, convention)
        write_model_card(temporary, facts | {"compared": checked}, with_label_map=with_label_map)
        shutil.rmtree(out, ignore_errors=True)
    log.info(f"SavedModel written to {out}; {_in_words(checked)}.")
    return checked


def _has_label_map(configs, forward, steps):
    """Whether the networks have a label map. Raises `InputError` where they do not and something asks for it."""
    reason = why_no_label_map(configs, steps)
    if reason is None:
        return True
    if len(configs) > 1 or steps or forward.mirror != "none":
        raise InputError(
            f"No label map can be exported: {reason}. Export one network without --mirror and without steps after it, "
            "for its probabilities."
        )
    log.info(f"Exported without `label_map`: {reason}.")
    return False


def _save(members, path, forward, steps, convention, *, with_label_map):
    """Writes a SavedModel that holds every weight once; Keras's own export tracks each of them twice."""
    module = tf.Module()
    module.weights = [weight.value for _, network in members for weight in network.weights]
    module.probabilities = probabilities_function(members)
    concrete = module.probabilities.get_concrete_function()
    signatures = {"serving_default": concrete, "probabilities": concrete}
    if with_label_map:
        module.label_map = label_map_function(
            members, labels=convention.labels, mirror=forward.mirror, drop_et_below_ml=steps.drop_et_below_ml
        )
        signatures["label_map"] = module.label_map.get_concrete_function()
    # Without gradients, which nobody asks of it, a third of the time and half of the graph.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(path), signatures=signatures, options=options)


def _in_words(checked):
    words = f"reloaded, its probabilities differ from the networks' by at most {checked['largest_difference']:.1e}"
    if "voxels" in checked:
        words += f", and its label map from theirs in {checked['voxels_different']} of {checked['voxels']:,} voxels"
    return words
