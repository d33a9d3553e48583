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
from real_networks import PAPERS, PLUS, TORCH, check_variants, make_training
from real_scores import KINDS, facts_of, score
from recipes import shuffled

from brats_tf.cli import options
from brats_tf.config.settings import DataSettings
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic
from brats_tf.runtime.program import run_program
from brats_tf.runtime.tensorflow import free_graphs

log = logging.getLogger("brats_tf.experiments")
CROP, SPACING_MM = (128, 128, 96), 1.5
VARIANTS = (*PLUS, *PAPERS, *TORCH)
WARMUP_EPOCHS, WEIGHT_DECAY = 2, 1e-4
PROBED = 4  # Steps that are measured.


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
        options.add_settings(one, DataSettings, ("crop", "spacing_mm"))
        one.set_defaults(crop=CROP, spacing_mm=SPACING_MM)
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
    parser.add_argument("--seeds", type=int, default=3)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, default=60)
    length.add_argument("--minutes", type=float, help="of each variant's training; a few steps are measured for it")
    parser.add_argument("--folds", type=int, default=0, help="train on all cases but those of each fold, by turns")
    parser.add_argument("--fold", type=int, nargs="+", help="numbers of the folds to train now, from 1 (default: all)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="the predictions that are wanted")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--until", type=float, default=float("inf"), help="no network starts after this time")
    parser.add_argument("--commit", help="of this code (default: what Git says)")


def run(given):
    """Packs, trains and scores on one machine; goes on where it stopped."""
    given.folder, given.networks = given.out / "cases", given.out / "networks"
    if all((given.folder / f"{part}.npz").exists() for part in packed_cases.PARTS):
        folders = {part: getattr(given, part) for part in packed_cases.PARTS}
        packed_cases.check(folders, given.folder, crop=given.crop, spacing_mm=given.spacing_mm)
    else:
        pack(given)
    given.out, given.scored = given.networks, [given.training, given.validation] if given.folds else [given.validation]
    train(given)
    score(given)


def pack(given):
    """Prepares all cases and writes them as arrays."""
    folders = {part: getattr(given, part) for part in packed_cases.PARTS}
    packed_cases.pack(folders, given.folder, crop=given.crop, spacing_mm=given.spacing_mm)


def train(given):
    """Trains networks and writes the label maps of the validation cases."""
    given.cropped = packed_cases.cropped(given.folder)
    check_variants(given.variants, given.cropped["crop"])  # Before TensorFlow is there.
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") == "tensorflow":
        from brats_tf.runtime.tensorflow import import_tensorflow

        import_tensorflow()
    from plus_parts import replaced

    if "normal" not in given.kinds or (given.fold and not given.folds):
        raise InputError("--kinds must name `normal`, and --fold needs --folds.")
    cases = packed_cases.of_folds(given.folder, given.folds, given.fold)
    given.out.mkdir(parents=True, exist_ok=True)
    begun = {}
    for seed, one, variant in itertools.product(range(given.seeds), cases, given.variants):
        length = f"{given.minutes:g}min" if given.minutes else given.epochs
        fold = f"-fold{one.fold[0] + 1}of{one.fold[1]}" if one.fold else ""
        path = given.out / f"{variant}-{length}-{given.learning_rate:g}-{seed}{fold}.npz"
        if path.exists():
            _check_same_cases(path, given.cropped | {"training_cases": one.ids_of("training")})
            continue
        if time.time() > given.until:
            continue
        with replaced(variant):
            facts, maps = train_variant(given, variant, seed, one, begun)
        with atomic(path) as temporary:
            np.savez_compressed(temporary, facts=json.dumps(facts), **maps)
        log.info(f"{path.stem}: {1000 * facts['seconds_a_step']:.1f} ms a step, Dice {facts['curves']['dice'][-1]}")


def _check_same_cases(path, facts):
    """Raises `InputError` when the network in a file was trained on other volumes than are given now."""
    before = facts_of(path)
    if others := [name for name, value in facts.items() if name in before and before[name] != value]:
        raise InputError(f"{path} was trained with other {', '.join(others)}: name another folder with --out.")


@free_graphs()
def train_variant(given, variant, seed, cases, begun):
    """Trains the networks of a variant: (facts, {kind: classes of each validation case, uint8}).

    `begun` keeps what is compiled between the seeds.
    """
    from brats_tf.models.outputs import to_classes

    members = [(modality,) for modality in MODALITIES] if variant == "embedding" else [MODALITIES]
    facts = {"variant": variant, "seed": seed, "commit": given.commit or git_commit()} | given.cropped
    facts |= {"minutes": given.minutes} if given.minutes else {"epochs": given.epochs}
    facts |= {"fold": cases.fold} if cases.fold else {}
    facts |= {"learning_rate": given.learning_rate, "networks": [], "cases": cases.steps}
    facts |= {f"{part}_cases": cases.ids_of(part) for part in packed_cases.PARTS}
    total, steps = {}, given.epochs and given.epochs * cases.steps
    if given.minutes:  # Equal networks take equally long.
        steps = steps_within(given.minutes / len(members), given, (variant, members[0], seed), cases)
    for modalities in members:
        about, found = train_network(given, (variant, modalities, seed), steps, cases, begun)
        facts["networks"].append(about)
        for kind, probabilities in found.items():
            total[kind] = total.get(kind, 0) + probabilities / len(members)
    facts |= {name: facts["networks"][0][name] for name in ("device", "versions", "curves", "steps", "seconds_a_step")}
    outputs = facts["networks"][0]["outputs"]
    return facts, {kind: np.stack([to_classes(one, outputs) for one in values]) for kind, values in total.items()}


def steps_within(minutes, given, network, cases):
    """How many steps of a network's training fit into so many minutes here, what comes before the first included."""
    started = time.monotonic()
    training, _, (volumes, classes), _ = begin(given, network, PROBED, cases, {})
    probe = np.resize(cases.training, PROBED)
    training.run(volumes, classes, probe)  # Compiles; JAX does so for each number of steps.
    first = time.monotonic()
    training.run(volumes, classes, probe)
    step = (time.monotonic() - first) / PROBED
    steps = int((60 * minutes - (first - started)) / step)
    steps -= steps % cases.steps  # Each case equally often, and no last part of another length to compile.
    if steps < 2 * cases.steps:  # The first part also compiles: the others tell how long a step takes.
        raise InputError(
            f"--minutes must be enough for each of {cases.steps} cases twice: {network[0]} takes {step:.1f} s a step "
            f"here. Received: {given.minutes:g}."
        )
    return steps


def begin(given, network, steps, cases, begun):
    """A training: (training, facts about it, (volumes, classes) on its device, volumes to predict)."""
    variant, modalities, seed = network
    channels = [MODALITIES.index(modality) for modality in modalities]
    volumes = cases.volumes[..., channels]
    settings = {"steps": steps, "learning_rate": given.learning_rate, "weight_decay": WEIGHT_DECAY}
    settings |= {"warmup": min(steps // 4, WARMUP_EPOCHS * cases.steps), "mirror": (0, 1, 2), "brightness": True}
    training, about = make_training(variant, modalities, seed, settings, given.cropped, begun)
    return training, about, training.on_device(volumes, cases.classes), volumes[cases.validation]


def train_network(given, network, steps, cases, begun):
    """Trains one network: (facts, {kind: probabilities of each validation case})."""
    variant, modalities, seed = network
    training, about, (volumes, classes), others = begin(given, network, steps, cases, begun)
    order = cases.training[shuffled(len(cases.training), steps, seed)]
    parts = np.split(order, range(cases.steps, steps, cases.steps))
    curves, started = [], time.monotonic()
    for part in track(parts, f"Training {variant}, {' '.join(modalities)}, seed {seed}"):
        curves.append(training.run(volumes, classes, part))
        if len(curves) == 1:
            compiled = time.monotonic()
    about |= {"begin_s": compiled - started, "steps": steps}
    about["seconds_a_step"] = (time.monotonic() - compiled) / max(1, steps - cases.steps)
    about["curves"] = {name: [np.round(one[name].mean(axis=0), 4).tolist() for one in curves] for name in curves[0]}
    return about, dict(predictions(training, others, given.kinds, blind=variant in PLUS))


def predictions(training, volumes, kinds, *, blind):
    """(kind, probabilities): as it is, by eight mirrored volumes, without each modality, and with planes blinded."""
    if "normal" in kinds:
        yield "normal", training.predict(volumes)
    if "mirrored" in kinds:
        flips = [axes for count in range(4) for axes in itertools.combinations((1, 2, 3), count)]
        mirrored = (np.flip(training.predict(np.flip(volumes, axes).copy()), axes) for axes in flips)
        yield "mirrored", sum(mirrored) / len(flips)
    for channel, modality in enumerate(MODALITIES if volumes.shape[-1] > 1 else ()):
        if f"without-{modality}" in kinds:
            yield f"without-{modality}", training.predict(volumes * (np.arange(len(MODALITIES)) != channel))
    if blind and "blinded" in kinds:
        yield "blinded", training.predict(volumes, blind=True)


if __name__ == "__main__":
    sys.exit(main())
