"""`embedding-plus` beside both papers, MONAI's SegResNet and nnU-Net's network, all trained on the same real cases.

Every network sees the same cases in the same order, with the same loss, augmentation and number of steps, and is scored
on whole files of cases that none was trained on. `pack` prepares the cases here, `train` needs neither TensorFlow nor
the cases' files (a GPU machine, say), `score` compares the label maps with the files here; `run` does all three. With
`--epochs` every network takes the same number of steps, with `--minutes` as many as fit on this machine. With `--folds`
all cases train and all are predicted, each by a network that has not seen it.

Command:  python experiments/real_cases.py pack TRAINING VALIDATION --out FOLDER
          python experiments/real_cases.py train FOLDER --variants plus segresnet --seeds 3 --epochs 50
          python experiments/real_cases.py score VALIDATION --results RESULTS
          python experiments/real_cases.py train FOLDER --variants plus segresnet --folds 5 --epochs 20 --out NETWORKS
          python experiments/real_cases.py score TRAINING VALIDATION --networks NETWORKS --name real_cases-folds
          python experiments/real_cases.py run TRAINING VALIDATION --out FOLDER --minutes 90 --variants plus segresnet
Time:     1000 steps take 25 minutes for `plus` on two CPU cores with bfloat16, a minute for SegResNet on an H100.
Expected: whatever it is.

The networks of this package train with TensorFlow, or with JAX where KERAS_BACKEND says so, the others with PyTorch
(extra `bench`). `train` goes on where it stopped, one file for each network; several processes may share the variants.
Departs from the presets: voxels of 1.5 mm in a crop of 128x128x96 (`--spacing-mm`, `--crop`), augmentation by mirroring
and brightness alone, no weight decay with TensorFlow.
"""

import argparse
import itertools
import json
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import packed_cases
from arguments import count, minutes
from real_networks import PAPERS, PLUS, TORCH, check_variants
from real_scores import KINDS, check_continued, check_trained_alike, score
from real_training import is_possible, steps_of, train_variant

from brats_tf.cli import options
from brats_tf.config.settings import DataSettings
from brats_tf.errors import InputError
from brats_tf.runtime.files import atomic
from brats_tf.runtime.program import run_program
from brats_tf.runtime.tensorflow import (
    import_tensorflow,
    run_one_operation_at_a_time,
    set_environment,
)

log = logging.getLogger("brats_tf.experiments")
CROP, SPACING_MM = (128, 128, 96), 1.5
VARIANTS = (*PLUS, *PAPERS, *TORCH)


def main(arguments=None):
    """Reads the arguments and does what they ask for. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pack_parser, train_parser, score_parser, run_parser = (
        commands.add_parser(one.__name__, help=one.__doc__.splitlines()[0]) for one in (pack, train, score, run)
    )
    for one, its in ((pack_parser, pack), (train_parser, train), (score_parser, score), (run_parser, run)):
        one.set_defaults(do=its)
    for one in (pack_parser, run_parser):
        one.add_argument("training", type=Path, metavar="TRAINING", help="folder with BraTS cases to train on")
        one.add_argument("validation", type=Path, metavar="VALIDATION", help="folder with BraTS cases to predict")
    score_parser.add_argument("scored", type=Path, nargs="+", metavar="VALIDATION", help="its folder; of folds both")
    for one in (pack_parser, run_parser):
        own = {"crop": CROP, "spacing_mm": SPACING_MM}
        options.add_settings(one, DataSettings, tuple(own), defaults=own)
        one.set_defaults(**own)
    pack_parser.add_argument("--out", type=Path, required=True, dest="folder", help="the folder for the cases")
    train_parser.add_argument("folder", type=Path, metavar="FOLDER", help="what `pack` wrote")
    for one in (train_parser, run_parser):
        _add_training_arguments(one)
    train_parser.add_argument("--out", type=Path, default=Path("networks"), help="the folder for the label maps")
    run_parser.add_argument("--out", type=Path, required=True, help="the folder for the cases and the label maps")
    score_parser.add_argument("--networks", type=Path, default=Path("networks"), help="what `train` wrote")
    for one in (score_parser, run_parser):
        one.add_argument("--results", type=Path, default=Path("results"))
        one.add_argument("--name", default=Path(__file__).stem, help="of the results file")
    given = parser.parse_args(arguments)
    return run_program(Path(__file__).stem, partial(given.do, given))


def _add_training_arguments(parser):
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plus"])
    parser.add_argument("--seeds", type=count, default=3)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=count, default=60)
    length.add_argument("--minutes", type=minutes, help="of each variant's training; a few steps are measured for it")
    parser.add_argument("--folds", type=int, default=0, help="train on all cases but those of each fold, by turns")
    parser.add_argument("--fold", type=int, nargs="+", help="numbers of the folds to train now, from 1 (default: all)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="the predictions that are wanted")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--until", type=float, default=float("inf"), help="no network starts after this time")
    parser.add_argument("--commit", help="of this code (default: what Git says)")


def run(given):
    """Packs, trains and scores on one machine; goes on where it stopped."""
    given.folder = given.out / "cases"
    given.networks = given.out / (f"networks-{given.folds}-folds" if given.folds else "networks")
    if all((given.folder / f"{part}.npz").exists() for part in packed_cases.PARTS):
        folders = {part: getattr(given, part) for part in packed_cases.PARTS}
        packed_cases.check(folders, given.folder, crop=given.crop, spacing_mm=given.spacing_mm)
    else:
        pack(given)
    given.out, given.scored = given.networks, [given.training, given.validation] if given.folds else [given.validation]
    check_continued(given)
    train(given)
    score(given)


def pack(given):
    """Prepares all cases and writes them as arrays."""
    folders = {part: getattr(given, part) for part in packed_cases.PARTS}
    packed_cases.pack(folders, given.folder, crop=given.crop, spacing_mm=given.spacing_mm)


def train(given):
    """Trains networks and writes the label maps of the validation cases."""
    given.cropped = packed_cases.cropped(given.folder)
    _import_libraries(given)
    from plus_parts import replaced

    if "normal" not in given.kinds or (given.fold and not given.folds):
        raise InputError("--kinds must name `normal`, and --fold needs --folds.")
    cases = packed_cases.of_folds(given.folder, given.folds, given.fold)
    given.out.mkdir(parents=True, exist_ok=True)
    planned, begun = {}, {}
    for seed, one, variant in itertools.product(range(given.seeds), cases, given.variants):
        length = f"{given.minutes:g}min" if given.minutes else given.epochs
        fold = f"-fold{one.fold[0] + 1}of{one.fold[1]}" if one.fold else ""
        path = given.out / f"{variant}-{length}-{given.learning_rate:g}-{seed}{fold}.npz"
        if path.exists():
            check_trained_alike(path, given.cropped | {"training_cases": one.ids_of("training")})
            _tell_what_lacks(path, variant, given.kinds)
        else:
            planned[path] = seed, one, variant
    if given.minutes:  # All of them, before the first is trained in vain.
        variants = dict.fromkeys(variant for *_, variant in planned.values() if time.time() <= given.until)
        given.steps = {variant: steps_of(given, variant, cases[0]) for variant in variants}
    for path, (seed, one, variant) in planned.items():
        if path.exists() or time.time() > given.until:  # Another process may have trained it meanwhile.
            continue
        with replaced(variant):
            facts, maps = train_variant(given, variant, seed, one, begun)
        with atomic(path) as temporary:
            np.savez_compressed(temporary, facts=json.dumps(facts), **maps)
        log.info(f"{path.stem}: {1000 * facts['seconds_a_step']:.1f} ms a step, Dice {facts['curves']['dice'][-1]}")


def _import_libraries(given):
    """Imports what trains: PyTorch and what comes with it before TensorFlow, which it may import itself."""
    own = os.environ.setdefault("KERAS_BACKEND", "tensorflow") == "tensorflow"
    if own:
        set_environment()
    check_variants(given.variants, given.cropped["crop"])
    if own:
        run_one_operation_at_a_time(import_tensorflow())


def _tell_what_lacks(path, variant, kinds):
    """Logs which predictions of a network are wanted and not in its file."""
    with np.load(path) as file:
        missing = [kind for kind in kinds if kind not in file.files and is_possible(kind, variant)]
    if missing:
        log.info(f"{path} has no prediction {', '.join(missing)}, and no weights: remove it, to train it again.")


if __name__ == "__main__":
    sys.exit(main())
