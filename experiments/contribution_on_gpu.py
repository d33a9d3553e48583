"""The networks of `classifier_contribution.py` trained with JAX, on a GPU or any device that JAX has.

`pack` prepares the cases here, `train` needs neither TensorFlow nor the cases' files, `score` compares the label maps
with the files here. Dice is that of whole files, as there.

Command:  python experiments/contribution_on_gpu.py pack TRAINING VALIDATION --out FOLDER
          python experiments/contribution_on_gpu.py train FOLDER --variants imagenet random --seeds 5 --epochs 60
          python experiments/contribution_on_gpu.py score FOLDER TRAINING VALIDATION --results RESULTS
Time:     some ten seconds for each network on an H100.
Expected: whatever it is; WT of at least 0.8 says that a training was long enough.

`train` goes on where it stopped, one file for each network; several processes may share the variants.
"""

import argparse
import hashlib
import json
import logging
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from brats_tf.config.config import Config
from brats_tf.regions import MODALITIES, REGIONS
from brats_tf.runtime.files import write_json

log = logging.getLogger("brats_tf.experiments")
CROP, DEPTHS, SPACING_MM, DEPTH_FACTORS = (64, 64, 48), {"embedding": 36, "embedding-authors": 48}, 3.0, (3, 2, 2)
VARIANTS = {
    "imagenet": {},
    "random": {"weights": "none"},
    "authors": {"preset": "embedding-authors", "depth_factors": (4, 2, 2)},
    "b7": {"backbone": "efficientnetb7", "weights": "none"},
}
NAME = "gpu"


def main(arguments=None):
    """Reads the arguments and does what they ask for. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (pack, train, score):
        one = commands.add_parser(command.__name__, help=command.__doc__.splitlines()[0])
        one.set_defaults(run=command)
        if command is not pack:
            one.add_argument("folder", type=Path, metavar="FOLDER", help="what `pack` wrote")
        if command is not train:
            one.add_argument("training", type=Path, metavar="TRAINING", help="folder with BraTS cases to train on")
            one.add_argument("validation", type=Path, metavar="VALIDATION", help="folder with BraTS cases to predict")
        if command is pack:
            one.add_argument("--out", type=Path, required=True, dest="folder", help="the folder for the cases")
        if command is train:
            one.add_argument("--variants", nargs="+", choices=VARIANTS, default=["imagenet"])
            one.add_argument("--modality", choices=MODALITIES, default="flair")
            one.add_argument("--seeds", type=int, default=5)
            one.add_argument("--epochs", type=int, default=60)
            one.add_argument("--learning-rate", type=float, default=2e-4)
            one.add_argument("--until", type=float, default=float("inf"), help="no network starts after this time")
            one.add_argument("--commit", default="unknown", help="of this code")
            one.add_argument("--out", type=Path, default=Path("networks"), help="the folder for the label maps")
        if command is score:
            one.add_argument("--networks", type=Path, default=Path("networks"), help="what `train` wrote")
            one.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from brats_tf.runtime.program import run_program

    return run_program(Path(__file__).stem, partial(given.run, given))


def pack(given):
    """Prepares all cases and writes them as arrays."""
    from brats_tf.data.discovery import find_cases
    from brats_tf.preprocessing.preprocess import prepare_case
    from brats_tf.runtime.console import track

    given.folder.mkdir(parents=True, exist_ok=True)
    for name in ("training", "validation"):
        cases = find_cases(getattr(given, name))[0]
        settings = {"modalities": MODALITIES, "crop": CROP, "spacing_mm": SPACING_MM, "with_truth": True}
        prepared = [prepare_case(case, **settings) for case in track(cases, "Preparing")]
        volumes = np.stack([one.volume for one in prepared]).astype(np.float16)
        classes = np.stack([one.classes for one in prepared])
        np.savez_compressed(
            given.folder / f"{name}.npz", volumes=volumes, classes=classes, ids=[case.id for case in cases]
        )


def train(given):
    """Trains networks and writes the probabilities of the validation cases."""
    import jax_training
    import keras

    from brats_tf.models.losses import make_loss
    from brats_tf.models.registry import get_network

    data = {name: _packed(given.folder, name) for name in ("training", "validation")}
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in range(given.seeds):
        for variant in given.variants:
            config = _config(variant, given.modality, seed)
            path = given.out / f"{variant}-{'-'.join(config.data.modalities)}-{seed}.npz"
            if path.exists() or time.time() > given.until:
                continue
            keras.utils.clear_session()
            started = time.monotonic()
            network, origin = jax_training.build(config)
            outputs = get_network(config.network.name).outputs
            steps = given.epochs * len(data["training"][0])
            recipe = jax_training.Recipe(make_loss(config.training, outputs), outputs, steps, given.learning_rate)
            training = jax_training.Training(network, recipe, seed)
            (volumes, classes), (others, _) = (_cut(*data[name], config) for name in data)
            order, curves = jax_training.shuffled(len(volumes), steps, seed), []
            volumes, classes = (jax_training.jnp.asarray(one) for one in (volumes, classes))
            digest = hashlib.sha256(
                b"".join(one.tobytes() for one in network.get_layer(config.network.backbone).get_weights())
            )
            for epoch in np.split(order, given.epochs):
                curves.append(training.run(volumes, classes, epoch))
                if len(curves) == 1:
                    compiled = time.monotonic()
            seconds = time.monotonic() - compiled
            facts = {
                "variant": variant,
                "modalities": list(config.data.modalities),
                "seed": seed,
                "commit": given.commit,
            }
            facts |= {"epochs": given.epochs, "learning_rate": given.learning_rate, "weights": origin}
            facts |= {"classifier_sha256": digest.hexdigest(), "precision": config.compute.precision}
            facts |= {"device": jax_training.jax.devices()[0].device_kind, "cases": len(volumes)}
            facts["versions"] = {"jax": jax_training.jax.__version__, "keras": keras.__version__}
            facts["seconds_a_step"] = seconds / (steps - len(volumes))
            facts["compile_s"] = compiled - started
            names = ("loss", "planes_live", "planes_std", "squeeze_gradient")
            facts["curves"] = {name: [float(one[name].mean()) for one in curves] for name in names}
            facts["least_live"] = float(min(one["planes_live"].min() for one in curves))
            maps = {
                kind: np.stack([_quantised(training.predict(volume, blind=kind == "blinded")) for volume in others])
                for kind in ("normal", "blinded")
            }
            temporary = path.with_suffix(".part.npz")
            np.savez_compressed(temporary, facts=json.dumps(facts), **maps)
            temporary.rename(path)
            last = curves[-1]
            log.info(
                f"{path.stem}: {1000 * facts['seconds_a_step']:.1f} ms a step, {facts['compile_s']:.0f} s to begin, loss "
                f"{last['loss'].mean():.3f}, Dice {np.round(last['dice'].mean(0), 3)}, live {facts['least_live']:.2f}"
            )


def score(given):
    """Compares the label maps with the files and writes the results."""
    from classifier_contribution import ENSEMBLE, compared
    from provenance import provenance

    from brats_tf.data import volumes
    from brats_tf.data.discovery import find_cases
    from brats_tf.evaluation.metrics import dice
    from brats_tf.models.outputs import to_classes
    from brats_tf.preprocessing.preprocess import prepare_case
    from brats_tf.regions import classes_to_regions
    from brats_tf.runtime.console import track

    paths = sorted(given.networks.glob("*.npz"))
    cases, done, ensembles = find_cases(given.validation)[0], [], {}
    references, truths = [], []
    for case in track(cases, "Reading truth"):
        references.append(prepare_case(case, modalities=("flair",), crop=CROP, spacing_mm=SPACING_MM, with_truth=False))
        truth = volumes.read_label_classes(volumes.read_segmentation(case.require("seg"), case_id=case.id), case)
        truths.append(classes_to_regions(truth))

    def scores(probabilities, outputs):
        found = {region: [] for region in REGIONS}
        for one, reference, truth in zip(probabilities, references, truths, strict=True):
            whole = np.zeros((*CROP, one.shape[-1]), np.float32)
            if outputs == "classes":
                whole[..., 0] = 1
            margin = (CROP[2] - one.shape[2]) // 2
            whole[:, :, margin : margin + one.shape[2]] = one / 255
            predicted = classes_to_regions(reference.to_file_axes(to_classes(whole, outputs)))
            for channel, region in enumerate(REGIONS):
                found[region].append(dice(truth[..., channel], predicted[..., channel], "brats"))
        return found

    for path in track(paths, "Scoring"):
        with np.load(path) as file:
            facts, kinds = json.loads(str(file["facts"])), {kind: file[kind] for kind in ("normal", "blinded")}
        outputs = "classes" if facts["variant"] == "authors" else "regions"
        name = "-".join(facts["modalities"])
        one = {"variant": facts["variant"], "seed": facts["seed"], "commit": facts["commit"], "networks": name}
        one |= {key: facts[key] for key in ("weights", "classifier_sha256", "seconds_a_step", "curves")}
        one["pulse"] = {"planes_live": [facts["least_live"]], "planes_std": [facts["curves"]["planes_std"][-1]]}
        done.append(one | {kind: scores(values, outputs) for kind, values in kinds.items()})
        if facts["variant"] == "imagenet":
            ensembles.setdefault(facts["seed"], []).append((one, kinds))
    for seed, members in ensembles.items():
        if len(members) == len(MODALITIES):
            mean = {kind: np.mean([its[kind] for _, its in members], axis=0) for kind in ("normal", "blinded")}
            one = members[0][0] | {"networks": ENSEMBLE, "curves": {}}
            done.append(one | {kind: scores(values, "regions") for kind, values in mean.items()})
    settings = ("epochs", "learning_rate", "precision", "device", "cases")
    same = {name: facts[name] for name in settings}
    origin = provenance()
    origin["versions"] |= facts["versions"]
    common = {"crop": "64x64x36 (authors 64x64x48)", "spacing_mm": SPACING_MM, "schedule": "cosine"}
    common |= {"validation_cases": [case.id for case in cases], "depth_factors": list(DEPTH_FACTORS)}
    path = given.results / f"classifier_contribution-{NAME}.json"
    write_json(path, origin | {"machine": facts["device"]} | common | same | {"runs": done, **compared(done)})
    log.info(f"Written to {path}.")


def _packed(folder, name):
    with np.load(folder / f"{name}.npz") as file:
        return file["volumes"], file["classes"]


def _cut(volumes, classes, config):
    """The modalities and the depth that a network sees."""
    channels = [MODALITIES.index(name) for name in config.data.modalities]
    depth = config.data.crop[2]
    first = (CROP[2] - depth) // 2
    return volumes[:, :, :, first : first + depth, channels], classes[:, :, :, first : first + depth]


def _quantised(probabilities):
    return np.round(255 * probabilities).astype(np.uint8)


def _config(variant, modality, seed):
    settings = {"preset": "embedding", "depth_factors": DEPTH_FACTORS, "precision": "bfloat16"} | VARIANTS[variant]
    preset = settings.pop("preset")
    modalities = MODALITIES if preset == "embedding-authors" else (modality,)
    crop = (*CROP[:2], DEPTHS[preset])
    return Config.from_preset(preset, modalities=modalities, crop=crop, spacing_mm=SPACING_MM, seed=seed, **settings)


if __name__ == "__main__":
    sys.exit(main())
