"""The commands that train and describe networks; see `commands`."""

import os
import sys
from pathlib import Path

from brats_tf.cli import options
from brats_tf.cli.arguments import (
    cases_from,
    cases_in,
    configs_from,
    displayed_config,
    folder,
    section_given,
)
from brats_tf.cli.commands import Command
from brats_tf.config.config import NETWORKS, SECTIONS, Config
from brats_tf.config.execution import TrainingOptions
from brats_tf.config.fields import settings_of
from brats_tf.config.settings import ComputeSettings, DataSettings
from brats_tf.errors import InputError
from brats_tf.runtime.lock import check_unlocked

SUMMARY_WIDTH = 130  # Characters.


def train(given):
    """Train or resume one network, or all four.

    A run is a folder in RUNS: config.json, split.json, network.weights.h5, history.csv, run.json, a TensorBoard log and
    its picture training.png. With --validation-split 0.2, or --folds 5 --fold 0, training does not see some of the
    patients, the same for every modality (`predict --cases validation`), and scores them every fifth epoch and after
    the last (validation.csv, best.weights.h5). Run the same command again, without --restart, to resume an interrupted
    training; exit code 75 says that a signal (SIGTERM, SIGUSR1) stopped it and everything is saved. With --modality all
    and several GPUs the networks train in parallel.

    brats-tf train BraTS2020 --modality flair
    brats-tf train BraTS2020 --config runs/embedding-flair/config.json --epochs 300 --name longer
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.training.distribution import gpu_numbers, machines
    from brats_tf.training.parallel import train_modalities
    from brats_tf.training.starting_weights import check_start
    from brats_tf.training.train import train as train_networks

    configs = configs_from(given)
    training_options = section_given(given, TrainingOptions)
    configs[0].named(training_options.name)  # A wrong name shows before anything is read.
    if training_options.minutes and given.epochs is not None:
        raise InputError(f"--minutes chooses the number of epochs: leave --epochs out. Received also {given.epochs}.")
    if given.start_from is not None and given.weights is not None:
        raise InputError(f"--start-from chooses all weights: leave --weights out. Received also {given.weights}.")
    gpus, runs = gpu_numbers(), folder(given, "runs")
    if given.modality == "all" and len(gpus) > 1 and training_options.devices == 1 and machines() == 1:
        arguments = sys.argv[1:] if given.arguments is None else given.arguments
        cases_from(given, "training", configs[0])  # Four networks would say the same.
        found = [runs / config.named(training_options.name) for config in configs]
        for config, run in zip(configs, found, strict=True):
            check_unlocked(run)
            check_start(config, run, restart=training_options.restart)
        restarted = found if training_options.restart else []
        return train_modalities(arguments, gpus, logs=runs, minutes=training_options.minutes, restarted=restarted)
    train_networks(
        configs,
        cases_from(given, "training", configs[0]),
        runs=runs,
        cache_dir=given.cache_dir,
        validation=cases_in(given.validation_data) if given.validation_data else None,
        options=training_options,
    )
    return 0


def runs(given):
    """Compare runs: progress, time, Dice, settings.

    brats-tf runs runs
    """
    from brats_tf.runs.table import show_runs

    show_runs(given.folder, as_json=given.json)


def summary(given):
    """Print a network layer by layer, and its cost.

    The embedding paper's Table 1 reads off the layers stem_conv, squeeze1 ... squeeze4, planes_add and planes;
    volumes between stem_conv and planes_add have their slices first, (B, D, H, W, C).

    brats-tf summary --preset embedding --modality flair
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.models.build import build_network
    from brats_tf.models.cost import multiply_adds
    from brats_tf.runtime.console import console

    network = build_network(displayed_config(given))
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", str(SUMMARY_WIDTH))  # Keras cuts the table at 80 columns in a pipe.
    network.summary(line_length=SUMMARY_WIDTH)
    console.print(f"One pass over one volume: {2 * multiply_adds(network) / 1e9:.0f} GFLOP in convolutions.")


def backbones(given):
    """List the 2D classifiers that can be embedded.

    Source, weights, channels per scale, parameters and cost. Parameters are the classifier's; GFLOP and seconds are of
    a pass of the whole network (preset embedding), measured on the machine that the table names; `python -m bench
    backbones` measures them on yours.

    brats-tf backbones convnext_tiny
    """
    from brats_tf.cli.backbones_table import show_backbones

    show_backbones(given.name)


def _train_options(parser):
    options.add_data(parser)
    options.add_folder(parser, "runs", "folder of the trained networks")
    options.add_cache(parser)
    _network_options(parser)
    parser.add_argument(
        "--validation-data", type=options.parse_path, metavar="DATA", help="validate on these cases instead of a split"
    )
    for section in (SECTIONS["data"], *dict.fromkeys(NETWORKS.values())):
        options.add_settings(parser, section)
    for section in (SECTIONS["training"], SECTIONS["inference"], ComputeSettings, TrainingOptions):
        options.add_settings(parser, section)
    options.add_setting(parser, settings_of(Config)["seed"])


def _network_options(parser):
    options.add_preset(parser)
    options.add_modality(parser, "what the network sees; all: four networks, one after another")
    parser.add_argument(
        "--config",
        type=options.parse_path,
        metavar="FILE",
        help="take the settings from a run's config.json",
    )


def _summary_options(parser):
    _network_options(parser)
    options.add_settings(parser, DataSettings, ("crop", "patch_size"))
    for section in dict.fromkeys(NETWORKS.values()):
        options.add_settings(parser, section)


def _runs_options(parser):
    parser.add_argument(
        "folder", nargs="?", type=options.parse_path, default=Path("runs"), metavar="RUNS", help="default: runs"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _backbones_options(parser):
    parser.add_argument("name", nargs="?", metavar="NAME", help="only this one")


COMMANDS = (
    Command("train", train, _train_options),
    Command("runs", runs, _runs_options),
    Command("summary", summary, _summary_options),
    Command("backbones", backbones, _backbones_options),
)
