"""`embedding-plus` beside paper A, MONAI's SegResNet and nnU-Net's network, all trained on the same real cases.

Every network sees the same cases in the same order, with the same loss, augmentation and number of steps, and is scored
on whole files of cases that none was trained on. `pack` prepares the cases here, `train` needs neither TensorFlow nor
the cases' files (a GPU machine, say), `score` compares the label maps with the files here.

Command:  python experiments/real_cases.py pack TRAINING VALIDATION --out FOLDER
          python experiments/real_cases.py train FOLDER --variants plus segresnet --seeds 3 --epochs 50
          python experiments/real_cases.py score VALIDATION --results RESULTS
Time:     1000 steps take 25 minutes for `plus` on two CPU cores with bfloat16, a minute for SegResNet on an H100.
Expected: whatever it is.

The networks of this package train with TensorFlow, or with JAX where KERAS_BACKEND says so, the others with PyTorch
(extra `bench`). `train` goes on where it stopped, one file for each network; several processes may share the variants.
Departs from the presets: voxels of 1.5 mm, augmentation by mirroring and brightness alone, no weight decay with
TensorFlow.
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
from intervals import over_seeds_and_cases
from real_networks import PLUS, TORCH, make_training
from recipes import shuffled

from brats_tf.errors import InputError, format_shape
from brats_tf.regions import MODALITIES, REGIONS
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic, write_json
from brats_tf.runtime.program import run_program

log = logging.getLogger("brats_tf.experiments")
CROP, SPACING_MM = (128, 128, 96), 1.5
CROPPED = {"crop": CROP, "spacing_mm": SPACING_MM}
KINDS = ("normal", "mirrored", "blinded", *(f"without-{modality}" for modality in MODALITIES))
VARIANTS = (*PLUS, *TORCH, "embedding")
BLINDED = ("plus", "random")  # Each takes one more compilation.
WARMUP_EPOCHS, WEIGHT_DECAY = 2, 1e-4


def main(arguments=None):
    """Reads the arguments and does what they ask for. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pack_parser, train_parser, score_parser = (
        commands.add_parser(command.__name__, help=command.__doc__.splitlines()[0]) for command in (pack, train, score)
    )
    pack_parser.set_defaults(run=pack)
    pack_parser.add_argument("training", type=Path, metavar="TRAINING", help="folder with BraTS cases to train on")
    for one in (pack_parser, score_parser):
        one.add_argument("validation", type=Path, metavar="VALIDATION", help="folder with BraTS cases to predict")
    pack_parser.add_argument("--out", type=Path, required=True, dest="folder", help="the folder for the cases")
    train_parser.set_defaults(run=train)
    train_parser.add_argument("folder", type=Path, metavar="FOLDER", help="what `pack` wrote")
    train_parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plus"])
    train_parser.add_argument("--seeds", type=int, default=3)
    train_parser.add_argument("--epochs", type=int, default=60)
    train_parser.add_argument("--learning-rate", type=float, default=1e-3)
    train_parser.add_argument("--until", type=float, default=float("inf"), help="no network starts after this time")
    train_parser.add_argument("--commit", default="unknown", help="of this code")
    train_parser.add_argument("--out", type=Path, default=Path("networks"), help="the folder for the label maps")
    score_parser.set_defaults(run=score)
    score_parser.add_argument("--networks", type=Path, default=Path("networks"), help="what `train` wrote")
    score_parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    return run_program(Path(__file__).stem, partial(given.run, given))


def pack(given):
    """Prepares all cases and writes them as arrays."""
    packed_cases.pack({part: getattr(given, part) for part in packed_cases.PARTS}, given.folder, **CROPPED)


def train(given):
    """Trains networks and writes the label maps of the validation cases."""
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") == "tensorflow":
        from brats_tf.runtime.tensorflow import import_tensorflow

        import_tensorflow()
    data = {part: packed_cases.unpack(given.folder, part) for part in packed_cases.PARTS}
    given.out.mkdir(parents=True, exist_ok=True)
    begun = {}
    for seed, variant in itertools.product(range(given.seeds), given.variants):
        path = given.out / f"{variant}-{given.epochs}-{given.learning_rate:g}-{seed}.npz"
        if path.exists() or time.time() > given.until:
            continue
        facts, maps = train_variant(given, variant, seed, data, begun)
        with atomic(path) as temporary:
            np.savez_compressed(temporary, facts=json.dumps(facts), **maps)
        log.info(f"{path.stem}: {1000 * facts['seconds_a_step']:.1f} ms a step, Dice {facts['curves']['dice'][-1]}")


def train_variant(given, variant, seed, data, begun):
    """Trains the networks of a variant: (facts, {kind: classes of each validation case, uint8}).

    `begun` keeps what is compiled between the seeds.
    """
    from brats_tf.models.outputs import to_classes

    members = [(modality,) for modality in MODALITIES] if variant == "embedding" else [MODALITIES]
    facts = {"variant": variant, "seed": seed, "commit": given.commit, "epochs": given.epochs}
    facts |= {"learning_rate": given.learning_rate, "networks": [], "cases": len(data["training"][2])}
    facts["validation_cases"] = data["validation"][2]
    total = {}
    for modalities in members:
        about, found = train_network(given, variant, modalities, seed, data, begun)
        facts["networks"].append(about)
        for kind, probabilities in found.items():
            total[kind] = total.get(kind, 0) + probabilities / len(members)
    facts |= {name: facts["networks"][0][name] for name in ("device", "versions", "curves", "seconds_a_step")}
    return facts, {kind: np.stack([to_classes(one, "regions") for one in values]) for kind, values in total.items()}


def train_network(given, variant, modalities, seed, data, begun):
    """Trains one network: (facts, {kind: probabilities of each validation case})."""
    channels = [MODALITIES.index(modality) for modality in modalities]
    (volumes, classes, _), (others, _, _) = data.values()
    volumes, others = volumes[..., channels], others[..., channels]
    steps = given.epochs * len(volumes)
    settings = {"steps": steps, "learning_rate": given.learning_rate, "weight_decay": WEIGHT_DECAY}
    settings |= {"warmup": min(steps // 4, WARMUP_EPOCHS * len(volumes)), "mirror": (0, 1, 2), "brightness": True}
    training, about = make_training(variant, modalities, seed, settings, CROPPED, begun)
    curves, started = [], time.monotonic()
    volumes, classes = training.on_device(volumes, classes)
    order = np.split(shuffled(len(volumes), steps, seed), given.epochs)
    for epoch in track(order, f"Training {variant}, {' '.join(modalities)}, seed {seed}"):
        curves.append(training.run(volumes, classes, epoch))
        if len(curves) == 1:
            compiled = time.monotonic()
    about["begin_s"] = compiled - started
    about["seconds_a_step"] = (time.monotonic() - compiled) / max(1, steps - len(volumes))
    about["curves"] = {name: [np.round(one[name].mean(axis=0), 4).tolist() for one in curves] for name in curves[0]}
    return about, dict(predictions(training, others, blind=variant in BLINDED))


def predictions(training, volumes, *, blind):
    """(kind, probabilities): as it is, by eight mirrored volumes, without each modality, and with planes blinded."""
    yield "normal", training.predict(volumes)
    flips = [axes for count in range(4) for axes in itertools.combinations((1, 2, 3), count)]
    mirrored = (np.flip(training.predict(np.flip(volumes, axes).copy()), axes) for axes in flips)
    yield "mirrored", sum(mirrored) / len(flips)
    for channel, modality in enumerate(MODALITIES if volumes.shape[-1] > 1 else ()):
        yield f"without-{modality}", training.predict(volumes * (np.arange(len(MODALITIES)) != channel))
    if blind:
        yield "blinded", training.predict(volumes, blind=True)


def score(given):
    """Compares the label maps with the files and writes the results."""
    from provenance import provenance

    from brats_tf.data.discovery import find_cases

    paths = sorted(given.networks.glob("*.npz"))
    if not paths:
        raise InputError(f"{given.networks} must hold what `train` writes. Received: no .npz file.")
    scorer = packed_cases.CaseScorer(find_cases(given.validation)[0], **CROPPED)
    done = []
    for path in track(paths, "Scoring"):
        with np.load(path) as file:
            facts = json.loads(str(file["facts"]))
            maps = {kind: file[kind] for kind in file.files if kind != "facts"}
        if file_ids := facts.pop("validation_cases", None):
            _check_ids(path, file_ids, scorer.ids)
        done.append(facts | {kind: scorer.scores(one, distances=kind == "normal") for kind, one in maps.items()})
    origin = provenance()
    origin["versions"] |= {name: value for one in done for name, value in one.pop("versions").items()}
    common = {"machine": done[0]["device"], "crop": format_shape(CROP), "spacing_mm": SPACING_MM}
    common |= {"cases": done[0]["cases"], "validation_cases": scorer.ids, "ceiling": scorer.ceiling(), "runs": done}
    path = given.results / f"{Path(__file__).stem}.json"
    write_json(path, origin | common | compared(done))
    log.info(f"Written to {path}.")


def _check_ids(path, received, expected):
    if received != expected:
        raise InputError(
            f"{path} has label maps of {', '.join(received)}. Expected the cases of VALIDATION: {', '.join(expected)}."
        )


def compared(done):
    """{"rows": one for each variant, epochs and rate}; means and intervals over seeds and cases."""
    groups = {}
    for one in done:
        groups.setdefault((one["variant"], one["epochs"], one["learning_rate"]), {})[one["seed"]] = one
    rows = []
    for (variant, epochs, rate), its in groups.items():
        row = {"variant": variant, "epochs": epochs, "learning_rate": rate, "seeds": sorted(its)}
        runs = [its[seed] for seed in row["seeds"]]
        row["dice"] = {
            kind: {region: over_seeds_and_cases(_array(runs, kind, "dice", region)) for region in REGIONS}
            for kind in KINDS
            if kind in runs[0]
        }
        row["hd95_mm"] = {region: over_seeds_and_cases(_array(runs, "normal", "hd95_mm", region)) for region in REGIONS}
        row["device"] = " and ".join(sorted({one["device"] for one in runs}))
        rows.append(row | {"seconds_a_step": float(np.median([one["seconds_a_step"] for one in runs]))})
    return {"rows": rows}


def _array(runs, kind, measure, region):
    return np.array([one[kind][measure][region] for one in runs], float)


if __name__ == "__main__":
    sys.exit(main())
