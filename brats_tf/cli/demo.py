"""Everything on synthetic cases: four networks, their ensemble, the paper's table, a picture, the report."""

import dataclasses
import logging
from pathlib import Path

import keras

from brats_tf.config.config import Config
from brats_tf.config.execution import PredictionOptions, TrainingOptions
from brats_tf.config.presets import DEFAULT_PRESET, phantom_settings
from brats_tf.config.settings import CROP
from brats_tf.data.phantoms import phantom_cases
from brats_tf.errors import InputError, format_shape
from brats_tf.evaluation.evaluate import evaluate, show_table
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.models.build import build_network, build_with_weights
from brats_tf.models.imagenet_weights import fill_backbone
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import MODALITIES
from brats_tf.report.report import write_report
from brats_tf.runs.network import save_as_runs
from brats_tf.runtime.tensorflow import device_name
from brats_tf.training.train import train
from brats_tf.visualisation.overlays import save_overlay

log = logging.getLogger(__name__)


def run_demo(*, runs, out, results, restart=False, **settings):
    """Runs everything and leaves networks in `runs`, label maps in `out`, scores, report and picture in `results`.

    Args:
        runs, out, results: folders.
        restart: train anew where `runs` holds networks; they are renamed.
        settings: settings that replace those of `presets.phantom_settings`; `weights="imagenet"` may become "none",
            and then the first line says so.
    """
    runs, out, results = Path(runs), Path(out), Path(results)
    settings = phantom_settings(DEFAULT_PRESET) | settings
    configs = [Config.from_preset(DEFAULT_PRESET, **settings, modalities=(name,)) for name in MODALITIES]
    configs = _with_available_weights(configs)
    training, unseen = (
        phantom_cases(runs, part, crop=configs[0].data.crop, seed=configs[0].seed) for part in ("training", "unseen")
    )
    trained = train(configs, training, runs=runs, options=TrainingOptions(restart=restart))
    _save_untrained(configs, runs / "untrained")
    predictors = load_ensemble([*(runs / "untrained" / run.name for run in trained), *trained])  # One Keras model.
    untrained, trained_ones = predictors[: len(trained)], predictors[len(trained) :]
    summaries = {}
    for title, ensemble, suffix in (("untrained", untrained, "untrained"), ("trained", trained_ones, "")):
        predict_cases(
            ensemble, unseen, out=out / suffix, data=unseen[0].folder.parent, options=PredictionOptions(replace=True)
        )
        summaries[title], _ = evaluate(unseen, predictions=out / suffix, results=results / suffix)
    show_table(summaries)
    picture = results / "overlay.png"
    save_case_overlay(picture, unseen[0], configs[0].data.crop, out)
    write_report(unseen, runs=trained, predictions=out, results=results)
    log.info(f"Overlay written to {picture}.")


def save_case_overlay(path, case, crop, predictions):
    """Draws truth and prediction of one case over its FLAIR (see `overlays.save_overlay`)."""
    prepared = prepare_case(case, modalities=("flair",), crop=crop, with_truth=True)
    predicted = dataclasses.replace(case, segmentation=Path(predictions) / f"{case.id}.nii.gz")
    prediction = prepare_case(predicted, modalities=("flair",), crop=crop, with_truth=True).classes
    save_overlay(path, prepared.volume[..., 0], {"truth": prepared.classes, "prediction": prediction}, title=case.id)


def _with_available_weights(configs):
    """The configs, with random weights if ImageNet's cannot be found; logs which, in the demo's first line."""
    config = configs[0]
    network = build_network(config)
    try:
        origin = fill_backbone(network, backbone=config.network.backbone, source=config.network.weights)
    except InputError as error:
        if config.network.weights != "imagenet":
            raise
        origin = f"RANDOM WEIGHTS, because ImageNet's could not be found: {error}"
        configs = [config.replace(weights="none") for config in configs]
    crop, papers = (format_shape(size) for size in (config.data.crop, CROP))
    log.info(
        f"Demo on {device_name()}: synthetic cases, four networks at {crop} (the paper: {papers}), "
        f"{origin.rstrip('.')}."
    )
    return configs


def _save_untrained(configs, folder):
    """Saves the four networks as they are before the first step, all four alike, to show what training changes."""
    first = configs[0]
    keras.utils.set_random_seed(first.seed)
    network, _ = build_with_weights(first)
    save_as_runs(network, configs, folder)
