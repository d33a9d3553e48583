"""The networks of `classifier_contribution.py` trained with JAX, on a GPU or any device that JAX has.

`pack` prepares the cases here, `train` needs neither TensorFlow nor the cases' files, `score` compares the label maps
with the files here. Dice is that of whole files, as there.

Command:  python experiments/contribution_on_gpu.py pack TRAINING VALIDATION --out FOLDER
          python experiments/contribution_on_gpu.py train FOLDER --variants imagenet random --seeds 5 --epochs 60
          python experiments/contribution_on_gpu.py score VALIDATION --results RESULTS
Time:     some ten seconds for each network on an H100.
Expected: whatever it is; WT of at least 0.8 says that a training was long enough.

`train` goes on where it stopped, one file for each network; several processes may share the variants.
"""

import argparse
import itertools
import json
import logging
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import packed_cases
from arguments import count
from recipes import Recipe, shuffled

from brats_tf.config.config import Config
from brats_tf.errors import InputError, format_shape
from brats_tf.regions import MODALITIES
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic, write_json
from brats_tf.runtime.program import run_program

log = logging.getLogger("brats_tf.experiments")
CROP, SPACING_MM = (64, 64, 36), 3.0
CROPPED = {"crop": CROP, "spacing_mm": SPACING_MM}
# The largest factor first: two thirds of the time that the default order takes, most of it in the second level.
DEPTH_FACTORS = (3, 2, 2)
VARIANTS = {"imagenet": {}, "random": {"weights": "none"}, "b7": {"backbone": "efficientnetb7", "weights": "none"}}
NAME = "gpu"
LEVELS = 255  # Of a probability, as `train` writes it.


def main(arguments=None):
    """Reads the arguments and does what they ask for. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (pack, train, score):
        one = commands.add_parser(command.__name__, help=command.__doc__.splitlines()[0])
        one.set_defaults(run=command)
        if command is train:
            one.add_argument("folder", type=Path, metavar="FOLDER", help="what `pack` wrote")
        if command is pack:
            one.add_argument("training", type=Path, metavar="TRAINING", help="folder with BraTS cases to train on")
        if command is not train:
            one.add_argument("validation", type=Path, metavar="VALIDATION", help="folder with BraTS cases to predict")
        if command is pack:
            one.add_argument("--out", type=Path, required=True, dest="folder", help="the folder for the cases")
        if command is train:
            one.add_argument("--variants", nargs="+", choices=VARIANTS, default=["imagenet"])
            one.add_argument("--modality", choices=MODALITIES, default="flair")
            one.add_argument("--seeds", type=count, default=5)
            one.add_argument("--epochs", type=count, default=60)
            one.add_argument("--learning-rate", type=float, default=2e-4)
            one.add_argument("--until", type=float, default=float("inf"), help="no network starts after this time")
            one.add_argument("--commit", default="unknown", help="of this code")
            one.add_argument("--out", type=Path, default=Path("networks"), help="the folder for the label maps")
        if command is score:
            one.add_argument("--networks", type=Path, default=Path("networks"), help="what `train` wrote")
            one.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    return run_program(Path(__file__).stem, partial(given.run, given))


def pack(given):
    """Prepares all cases and writes them as arrays."""
    packed_cases.pack({part: getattr(given, part) for part in packed_cases.PARTS}, given.folder, **CROPPED)


def train(given):
    """Trains networks and writes the probabilities of the validation cases."""
    from real_scores import check_trained_alike

    data = {part: packed_cases.unpack(given.folder, part) for part in packed_cases.PARTS}
    asked = {"epochs": given.epochs, "learning_rate": given.learning_rate}
    asked |= {f"{part}_cases": ids for part, (*_, ids) in data.items()}
    given.out.mkdir(parents=True, exist_ok=True)
    for seed, variant in itertools.product(range(given.seeds), given.variants):
        path = given.out / f"{variant}-{given.modality}-{seed}.npz"
        if path.exists():
            check_trained_alike(path, asked)
        if path.exists() or time.time() > given.until:
            continue
        facts, maps = train_network(given, variant, seed, data)
        facts |= asked
        with atomic(path) as temporary:
            np.savez_compressed(temporary, facts=json.dumps(facts), **maps)
        log.info(
            f"{path.stem}: {1000 * facts['seconds_a_step']:.1f} ms a step, {facts['compile_s']:.0f} s to begin, "
            f"loss {facts['curves']['loss'][-1]:.3f}, live {facts['least_live']:.2f}"
        )


def train_network(given, variant, seed, data):
    """Trains one network: (facts, {"normal", "blinded": probabilities of each validation case, uint8})."""
    import jax_training
    import keras

    from brats_tf.models.build import build_with_weights, classifier_hash
    from brats_tf.models.losses import make_loss
    from brats_tf.models.registry import get_network

    config = _config(variant, given.modality, seed)
    (volumes, classes), (others, _) = (_of_modality(*data[name][:2], given.modality) for name in data)
    steps = given.epochs * len(volumes)
    keras.utils.clear_session()
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    network, origin = build_with_weights(config)
    facts = {"variant": variant, "modalities": [given.modality], "seed": seed, "commit": given.commit}
    facts |= {"weights": origin}
    facts |= {"classifier_sha256": classifier_hash(network), "precision": config.compute.precision}
    facts |= {"device": jax_training.jax.devices()[0].device_kind, "cases": len(volumes)}
    facts["versions"] = {"jax": jax_training.jax.__version__, "keras": keras.__version__}
    outputs = get_network(config.network.name).outputs
    recipe = Recipe(make_loss(config.training, outputs), outputs, steps, given.learning_rate)
    training, curves = jax_training.Training(network, recipe, seed), []
    volumes, classes = (jax_training.jnp.asarray(one) for one in (volumes, classes))
    for epoch in np.split(shuffled(len(volumes), steps, seed), given.epochs):
        curves.append(training.run(volumes, classes, epoch))
        if len(curves) == 1:
            compiled = time.monotonic()
    facts["seconds_a_step"] = (time.monotonic() - compiled) / max(1, steps - len(volumes))
    facts["compile_s"] = compiled - started
    names = ("loss", "planes_live", "planes_std", "squeeze_gradient")
    facts["curves"] = {name: [float(one[name].mean()) for one in curves] for name in names}
    facts["least_live"] = float(min(one["planes_live"].min() for one in curves))
    kinds = {"normal": False, "blinded": True}
    maps = {kind: _quantised(training.predict(others, blind=blind)) for kind, blind in kinds.items()}
    return facts, maps


def score(given):
    """Compares the label maps with the files and writes the results."""
    from classifier_contribution import ENSEMBLE, compared
    from provenance import provenance
    from real_scores import check_ids

    from brats_tf.data.discovery import find_cases

    paths = sorted(given.networks.glob("*.npz"))
    if not paths:
        raise InputError(f"{given.networks} must hold what `train` writes. Received: no .npz file.")
    files = [_read(path) for path in paths]
    same = ("epochs", "learning_rate", "precision", "device", "cases", "versions")
    cases = find_cases(given.validation)[0]
    for path, (facts, _) in zip(paths, files, strict=True):
        if known := facts.get("validation_cases"):  # Older files do not say.
            check_ids(path, known, [case.id for case in cases])
        others = [name for name in (*same, "training_cases") if facts.get(name) != files[0][0].get(name)]
        if others:
            raise InputError(f"{path} was trained with other {', '.join(others)} than {paths[0].name}.")
    scorer, done, members = packed_cases.CaseScorer(cases, **CROPPED), [], {}
    for facts, maps in track(files, "Scoring"):
        one = {"variant": facts["variant"], "seed": facts["seed"], "networks": facts["modalities"][0]}
        one |= {key: facts[key] for key in ("commit", "weights", "classifier_sha256", "seconds_a_step", "curves")}
        one["pulse"] = {"planes_live": [facts["least_live"]], "planes_std": [facts["curves"]["planes_std"][-1]]}
        done.append(one | {kind: _dice(scorer, values) for kind, values in maps.items()})
        members.setdefault((facts["variant"], facts["seed"]), []).append((done[-1], maps))
    for its in members.values():
        if len(its) == len(MODALITIES):
            mean = {kind: np.mean([maps[kind] for _, maps in its], axis=0) for kind in its[0][1]}
            scored = {kind: _dice(scorer, values) for kind, values in mean.items()}
            done.append(its[0][0] | {"networks": ENSEMBLE, "curves": {}} | scored)
    facts, origin = files[0][0], provenance()
    origin["versions"] |= facts["versions"]
    common = {"machine": facts["device"], "crop": format_shape(CROP), "spacing_mm": SPACING_MM, "schedule": "cosine"}
    common |= {"validation_cases": [case.id for case in cases], "depth_factors": list(DEPTH_FACTORS)}
    common |= {name: facts[name] for name in same if name not in ("versions", "device")}
    path = given.results / f"classifier_contribution-{NAME}.json"
    write_json(path, origin | common | {"runs": done, **compared(done)})
    log.info(f"Written to {path}.")


def _dice(scorer, probabilities):
    """{region: Dice of each case}, probabilities (cases, H, W, D, 3) of 0 to `LEVELS`."""
    from brats_tf.models.outputs import to_classes

    return scorer.scores([to_classes(one / np.float32(LEVELS), "regions") for one in probabilities])["dice"]


def _read(path):
    with np.load(path) as file:
        return json.loads(str(file["facts"])), {kind: file[kind] for kind in ("normal", "blinded")}


def _of_modality(volumes, classes, modality):
    channel = MODALITIES.index(modality)
    return volumes[..., channel : channel + 1], classes


def _quantised(probabilities):
    return np.round(LEVELS * probabilities).astype(np.uint8)


def _config(variant, modality, seed):
    settings = {"depth_factors": DEPTH_FACTORS, "precision": "bfloat16"} | VARIANTS[variant]
    settings |= CROPPED | {"seed": seed}
    return Config.from_preset("embedding", modalities=(modality,), **settings)


if __name__ == "__main__":
    sys.exit(main())
