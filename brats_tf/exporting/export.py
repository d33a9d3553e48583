"""Write trained networks for programs without this package, and prove that they compute the same."""

import logging
from importlib import import_module
from pathlib import Path

import tensorflow as tf

from brats_tf.config.config import Config
from brats_tf.config.execution import ExportOptions, ForwardOptions, PostProcessing
from brats_tf.data.notes import name_some
from brats_tf.errors import InputError, format_shape
from brats_tf.exporting.label_map import outputs_of, why_no_label_map
from brats_tf.exporting.model_card import CARD_FILE, METADATA_FILE, describe, read_results, write_model_card
from brats_tf.exporting.servers import check_place, configuration, write_configuration, write_warm_up
from brats_tf.exporting.verification import compare_label_maps, compare_probabilities
from brats_tf.inference.prediction_record import check_names
from brats_tf.inference.predictor import Predictor, compiled_forward
from brats_tf.models.build import build_network
from brats_tf.regions import CONVENTIONS
from brats_tf.runs.network import load_weights
from brats_tf.runtime.files import atomic, read_json
from brats_tf.runtime.tensorflow import as_os_error, free_graphs, resolved_precision

log = logging.getLogger(__name__)
LEFT_BY_OTHERS = {".DS_Store"}  # By a file browser.
# By the format: the module that writes and runs it, and what it is called.
FORMATS = {
    "savedmodel": ("saved_model", "A SavedModel"),
    "onnx": ("onnx_file", "An ONNX file"),
    "litert": ("litert_file", "A LiteRT file"),
}
FLOAT32, NO_STEPS, DEFAULT_OPTIONS = ForwardOptions(), PostProcessing(), ExportOptions()


@free_graphs()
def export_networks(runs, *, out, checkpoint="last", forward=FLOAT32, steps=NO_STEPS, options=DEFAULT_OPTIONS):
    """Writes the folder `out`, loads it and compares it with the networks, before it gets its name.

    Every format has `probabilities`: it takes a `volume` (B, H, W, D, C) float32, z-scored and cropped as the runs'
    configs say (a window of a network that sees patches), and returns the probabilities, averaged over the networks:
    `regions` (B, H, W, D, 3) or `classes` (B, H, W, D, 4), float32. A SavedModel has `label_map` too, see
    `label_map.label_map_function`: raw intensities of a whole volume to its labels, as `predict` computes them; one
    network that sees patches or resampled volumes is exported without it. Beside them lie `metadata.json` and
    `model_card.md`.

    Args:
        runs: the folders of the trained networks.
        out: the folder to write; an export there is replaced.
        checkpoint: "last" or "best".
        forward: `ForwardOptions`; volumes and probabilities stay float32.
        steps: `PostProcessing` of the label map.
        options: `ExportOptions`.

    Returns:
        What the comparison found: {"largest_difference": float, and with a label map "voxels_different", "voxels"}.

    Raises:
        InputError: when a run holds no network, `out` exists and is no export, networks or steps have no label map,
            the format cannot hold them, the scores are of other networks, or the result differs from the networks.
    """
    out = Path(out).resolve() if Path(out).is_symlink() else Path(out)
    if out.exists():
        _check_replaceable(out)
    if options.serving:
        check_place(out, options)
    forward = ForwardOptions(resolved_precision(forward.precision), forward.mirror)
    _check_format(forward, steps, options)
    module, title = FORMATS[options.format]
    format_module = _import(module, title)
    check_names([Path(run).name for run in runs])
    members, hashes = zip(*(_loaded(run, checkpoint, forward.precision) for run in runs), strict=True)
    configs = [config for config, _ in members]
    convention, label_map = CONVENTIONS[options.convention], None
    if has_label_map(configs, forward, steps, options):
        label_map = {"labels": convention.labels, "mirror": forward.mirror, "drop_et_below_ml": steps.drop_et_below_ml}
    check_averageable(configs)
    server = configuration(out, options, configs) if options.serving else None
    facts = describe(
        list(zip(runs, hashes, strict=True)),
        members,
        checkpoint=checkpoint,
        forward=forward,
        steps=steps,
        options=options,
    )
    if not label_map:
        facts = {name: value for name, value in facts.items() if name not in ("convention", "labels")}
    if options.results:
        facts["scores"] = read_results(options.results, facts)
    # On the CPU, where both compute the same; a GPU may choose another algorithm for each.
    with atomic(out, replace=True) as temporary, tf.device("/cpu:0"):
        try:
            temporary.mkdir()
            format_module.write(members, temporary, weight_type=options.weight_type, label_map=label_map)
        except tf.errors.OpError as error:  # What TensorFlow makes of a full disk or a missing permission.
            raise as_os_error(error) from error
        if options.serving and options.format == "savedmodel":
            write_warm_up(temporary, out, configs, label_map=bool(label_map))
        loaded = format_module.load(temporary)  # Has to stay alive while its functions run.
        how = {"precision": forward.precision, "mirror": forward.mirror}
        predictors = [Predictor(*member, compiled_forward(member[1]), **how) for member in members]
        checked = compare_probabilities(loaded.run, predictors, options)
        if label_map:
            checked |= compare_label_maps(loaded.label_map, predictors, steps, convention)
        write_model_card(temporary, facts | {"compared": checked}, with_label_map=bool(label_map))
    if server:
        write_configuration(*server)
    log.info(f"{title} was written to {out}; {_in_words(checked)}.")
    return checked


def _loaded(run, checkpoint, precision):
    """((config, network), SHA-256 of the weights) of a run."""
    config = Config.load(run)
    network = build_network(config, precision=precision)
    return (config, network), load_weights(network, run, checkpoint)


def _check_replaceable(folder):
    """Raises `InputError` unless a folder holds what this package wrote, by its `metadata.json`, and nothing else."""
    try:
        facts = read_json(folder / METADATA_FILE)
        written = {METADATA_FILE, CARD_FILE, *facts["sha256"]}
        known = {"brats_tf", "format", "networks"} <= set(facts)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InputError(f"{folder} exists and is no export; it would be replaced. Choose another --out.")
    there = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    if others := sorted({path.relative_to(folder).as_posix() for path in there} - written - LEFT_BY_OTHERS):
        raise InputError(
            f"{folder} would be replaced, and with it {name_some(others)}, which the export there did not write. "
            "Choose another --out, or move them."
        )


def _check_format(forward, steps, options):
    """Raises `InputError` for what a format cannot hold."""
    title = FORMATS[options.format][1]
    if options.format == "savedmodel":
        if options.weight_type != "float32":
            raise InputError(
                f"--weight-type {options.weight_type} is for --format onnx or litert. Received: savedmodel."
            )
        return
    if forward.precision != "float32":
        raise InputError(f"{title} holds layers in float32. Received: --precision {forward.precision}.")
    if _ask_for_a_label_map(forward, steps, options):
        raise InputError(
            f"{title} has no label map, so that --mirror, --convention and steps after it have no place in it."
        )


def _ask_for_a_label_map(forward, steps, options):
    """Whether one of the options is for a label map alone."""
    return bool(steps) or forward.mirror != "none" or options.convention != DEFAULT_OPTIONS.convention


def _import(module, title):
    """The module of a format. Raises `InputError` where its libraries are not installed."""
    try:
        return import_module(f"brats_tf.exporting.{module}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{title} needs the package {error.name}: pip install '.[runtimes]' in this repository."
        ) from None


def check_averageable(configs):
    """Raises `InputError` unless the probabilities of networks can be averaged voxel by voxel."""
    seen = {
        "see volumes of the same size": [format_shape(one.input_shape[:3]) for one in configs],
        "see voxels of the same size": [f"{one.data.spacing_mm or 'unchanged'}" for one in configs],
        "have the same outputs": [outputs_of(one) for one in configs],
    }
    for what, received in seen.items():
        if len(set(received)) > 1:
            raise InputError(f"Networks that are exported together must {what}. Received: {', '.join(received)}.")


def has_label_map(configs, forward, steps, options):
    """Whether a label map is written. Raises `InputError` where there is none and something asks for it."""
    if options.format != "savedmodel":
        return False
    reason = why_no_label_map(configs, steps)
    if reason is None:
        return True
    if len(configs) > 1 or _ask_for_a_label_map(forward, steps, options):
        raise InputError(
            f"No label map can be exported: {reason}. Export one network without --mirror, --convention and steps "
            "after it, for its probabilities."
        )
    log.info(f"Exported without `label_map`: {reason}.")
    return False


def _in_words(checked):
    words = f"loaded again, its probabilities differ from the networks' by at most {checked['largest_difference']:.1e}"
    if "voxels" in checked:
        words += f", and its label map from theirs in {checked['voxels_different']} of {checked['voxels']:,} voxels"
    return words
