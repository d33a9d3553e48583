"""The whole job on the embedded data set: phantoms, four networks, an ensemble, the paper's table, a picture."""

import dataclasses
from pathlib import Path

import keras

from brats_tf.config.presets import CROP, PHANTOM_SETTINGS
from brats_tf.config.settings import WEIGHTS_FILE, Config
from brats_tf.data.phantoms import phantom_cases
from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import evaluate, show_table
from brats_tf.inference.predict import load_ensemble, predict_cases
from brats_tf.models.imagenet_weights import fill_backbone
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import MODALITIES
from brats_tf.report.report import write_report
from brats_tf.runs.folder import build_network, device_name
from brats_tf.runtime.console import say
from brats_tf.training.loop import build
from brats_tf.training.train import train
from brats_tf.visualisation.overlays import save_overlay

# A third of the paper's resolution, and a higher learning rate because there are only minutes.


def demo(*, runs, out, results, **settings):
    """Runs everything and leaves networks in `runs`, label maps in `out`, scores, report and picture in `results`.

    Args:
        runs, out, results: folders.
        settings: fields of `Config` that replace `config.PHANTOM_SETTINGS`; `weights="imagenet"` may become "none", and
            then the first line says so.
    """
    configs = [Config.from_preset("paper", **(PHANTOM_SETTINGS | settings), modalities=(name,)) for name in MODALITIES]
    configs = _with_weights_at_hand(configs)
    training, unseen = (
        phantom_cases(runs, part, crop=configs[0].crop, seed=configs[0].seed) for part in ("training", "unseen")
    )
    untrained = Path(runs) / "untrained"
    _save_untrained(configs, untrained)
    train(configs, training, runs=runs, store=Path(runs) / "store")
    summaries = {}
    for title, folder, suffix in (("untrained", untrained, "untrained"), ("trained", Path(runs), "")):
        members = load_ensemble([folder / config.run_name for config in configs])
        predict_cases(members, unseen, out=Path(out) / suffix)
        summaries[title], _ = evaluate(unseen, predictions=Path(out) / suffix, results=Path(results) / suffix)
    show_table(summaries)
    picture = Path(results) / "overlay.png"
    save_case_overlay(picture, unseen[0], configs[0].crop, out)
    runs = [Path(runs) / config.run_name for config in configs]
    write_report(unseen, runs=runs, predictions=out, results=results)
    say(f"Look at {picture} too.")


def save_case_overlay(path, case, crop, predictions):
    """Draws truth and prediction of one case over its FLAIR (see `pictures.save_overlay`)."""
    prepared = prepare_case(case, modalities=("flair",), crop=crop, with_truth=True)
    predicted = dataclasses.replace(case, segmentation=Path(predictions) / f"{case.id}.nii.gz")
    prediction = prepare_case(predicted, modalities=("flair",), crop=crop, with_truth=True).classes
    save_overlay(path, prepared.volume[..., 0], {"truth": prepared.classes, "prediction": prediction}, title=case.id)


def _with_weights_at_hand(configs):
    """The configs, with random weights if ImageNet's cannot be had here; says which, in the demo's first line."""
    config = configs[0]
    network = build_network(config)
    try:
        origin = fill_backbone(network, backbone=config.backbone, source=config.weights)
    except InputError as error:
        if config.weights != "imagenet":
            raise
        origin = f"RANDOM WEIGHTS, because ImageNet's could not be had here: {error}"
        configs = [dataclasses.replace(config, weights="none") for config in configs]
    crop, papers = ("x".join(map(str, size)) for size in (config.crop, CROP))
    say(f"Demo on {device_name()}: made-up cases, four networks at {crop} (the paper: {papers}), {origin.rstrip('.')}.")
    return configs


def _save_untrained(configs, folder):
    """Saves the four networks as they are before the first step, all four alike, to see what training changes."""
    first = configs[0]
    keras.utils.set_random_seed(first.seed)
    network, _ = build(first)
    for config in configs:
        run = folder / config.run_name
        run.mkdir(parents=True, exist_ok=True)
        config.save(run)
        network.save_weights(run / WEIGHTS_FILE)
