"""What does the ImageNet classifier contribute? Networks with their classifier blinded, and from random weights.

Trains networks at reduced size on the cases of one folder, predicts those of another, and predicts once more with each
plane replaced by its mean, so that the classifier sees nothing of the case (`brats-tf evaluate --blind-classifier`).
Dice is that of whole files. With several modalities each network is scored alone, and the average of all.

Variants: `imagenet` is preset `embedding`; `random` the same from random weights, whose frozen batch norm has the
statistics of random images; `authors` is preset `embedding-authors` (four stacked modalities, 64x64x48); `b7` has
EfficientNet-B7 from random weights, so `random` is what it compares with.

Command:  python experiments/classifier_contribution.py TRAINING VALIDATION --variants imagenet random --seeds 5
          python experiments/classifier_contribution.py TRAINING VALIDATION --modalities flair t1 t1ce t2 --seeds 3 \
              --name modalities
Time:     0.6 to 0.9 s a step (one case) on two CPU cores with bfloat16, 1.2 s with B7; 600 steps for each network.
Expected: whatever it is; WT of at least 0.8 says that a training was long enough.

Run it again to continue. Writes RESULTS/classifier_contribution-NAME.json; the intervals are bootstrapped over seeds
and cases.
"""

import argparse
import itertools
import logging
import sys
from functools import partial
from pathlib import Path

from arguments import count

from brats_tf.runtime.tensorflow import import_tensorflow

import_tensorflow()

import keras
import numpy as np
from contribution_on_gpu import CROP, DEPTH_FACTORS, SPACING_MM
from contribution_on_gpu import VARIANTS as OWN_VARIANTS
from intervals import over_seeds_and_cases
from provenance import continued, provenance

from brats_tf.cli import options
from brats_tf.config.config import Config
from brats_tf.config.settings import ComputeSettings
from brats_tf.data.discovery import find_cases
from brats_tf.errors import format_shape
from brats_tf.evaluation.contribution import classifier_contribution
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.regions import MODALITIES, REGIONS
from brats_tf.runs.record import read_run_record
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program
from brats_tf.runtime.tensorflow import resolved_precision
from brats_tf.training.train import train

log = logging.getLogger("brats_tf.experiments")
AUTHORS = {"preset": "embedding-authors", "crop": (*CROP[:2], 48), "depth_factors": (4, 2, 2)}
VARIANTS = OWN_VARIANTS | {"authors": AUTHORS}
ENSEMBLE = "ensemble"


def main(arguments=None):
    """Reads the arguments, trains, scores, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", type=Path, metavar="TRAINING", help="folder with BraTS cases to train on")
    parser.add_argument("validation", type=Path, metavar="VALIDATION", help="folder with BraTS cases to predict")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["imagenet"])
    parser.add_argument("--modalities", nargs="+", choices=MODALITIES, default=["flair"], help="one network for each")
    parser.add_argument("--seeds", type=count, default=5)
    parser.add_argument("--epochs", type=count, default=30)
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="of the first epoch; a cosine follows")
    options.add_settings(parser, ComputeSettings, ("precision",))
    parser.add_argument("--name", default="variants", help="of the results file (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/classifier_contribution"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments)))


def run(given):
    """Does what the arguments ask for, seed by seed, and writes after each network."""
    path = given.results / f"{Path(__file__).stem}-{given.name}.json"
    training, validation = (find_cases(folder)[0] for folder in (given.training, given.validation))
    facts = {"crop": format_shape(CROP), "spacing_mm": SPACING_MM, "epochs": given.epochs, "cases": len(training)}
    facts |= {"training_cases": [case.id for case in training], "validation_cases": [case.id for case in validation]}
    facts |= {"learning_rate": given.learning_rate}
    facts |= {"precision": _configs(given, "imagenet", 0)[0].compute.precision, "depth_factors": list(DEPTH_FACTORS)}
    facts |= {"modalities": list(given.modalities)}
    facts |= {"schedule": "cosine"}  # A constant rate of 3e-4 or more ends in an explosion after some hundred steps.
    done = continued(path, facts)
    for seed, variant in itertools.product(range(given.seeds), given.variants):
        if any((one["seed"], one["variant"]) == (seed, variant) for one in done):
            continue
        keras.utils.clear_session()
        folder = given.runs / given.name / f"{variant}-{seed}"
        for scored in measure(_configs(given, variant, seed), training, validation, folder):
            done.append({"variant": variant, "seed": seed, "commit": provenance()["commit"], **scored})
        write_json(path, provenance() | facts | {"runs": done, **compared(done)})
    log.info(f"Written to {path}.")


def measure(configs, training, validation, folder):
    """Trains a network per config and yields the scores of each, and of their average: {"networks", "normal",
    "blinded": {region: Dice of each case}, "weights", "classifier_sha256", "pulse"}."""
    runs = train(configs, training, runs=folder, cache_dir=folder.parent / "cache")
    sets = {run.name: [run] for run in runs} | ({ENSEMBLE: runs} if len(runs) > 1 else {})
    for name, its in sets.items():
        records = [read_run_record(run) for run in its]
        initial = records[0]["initial_weights"]
        pulse = {key: [record["last"][key] for record in records] for key in ("planes_live", "planes_std")}
        found = {"networks": name, "weights": initial["origin"], "classifier_sha256": initial["classifier_sha256"]}
        out = folder / "predictions" / name
        predict_cases(load_ensemble(its), validation, out=out)
        pairs = classifier_contribution(validation, runs=its, predictions=out, results=out)["cases"]
        for kind in ("normal", "blinded"):
            found[kind] = {region: [pairs[case.id][region][kind] for case in validation] for region in REGIONS}
        yield found | {"pulse": pulse}


def compared(done):
    """{"rows": one per variant and networks, "differences": between them}; means, intervals over seeds and cases."""
    groups = {}
    for one in done:
        groups.setdefault((one["variant"], one["networks"]), {})[one["seed"]] = one
    rows = [
        {"variant": variant, "networks": networks, "seeds": sorted(its), **_contribution(list(its.values()))}
        for (variant, networks), its in groups.items()
    ]
    differences = []
    for (first, its), (second, others) in itertools.combinations(groups.items(), 2):
        seeds = sorted(set(its) & set(others))
        with_ensemble = first[0] == second[0] and ENSEMBLE in (first[1], second[1])
        if seeds and (first[1] == second[1] or with_ensemble):
            pairs = {region: _array(its, seeds, region) - _array(others, seeds, region) for region in REGIONS}
            dice = {region: over_seeds_and_cases(values) for region, values in pairs.items()}
            differences.append({"first": first, "second": second, "seeds": seeds, "dice": dice})
    return {"rows": rows, "differences": differences}


def _contribution(runs):
    """Normal and blinded Dice and their difference, by region."""
    found = {}
    for region in REGIONS:
        normal, blinded = (np.array([one[kind][region] for one in runs], float) for kind in ("normal", "blinded"))
        kinds = {"normal": normal, "blinded": blinded, "difference": normal - blinded}
        found[region] = {kind: over_seeds_and_cases(values) for kind, values in kinds.items()}
    live = min(value for one in runs for value in one["pulse"]["planes_live"])
    return {"dice": found, "planes_live": live}


def _array(its, seeds, region):
    return np.array([its[seed]["normal"][region] for seed in seeds], float)


def _configs(given, variant, seed):
    settings = {"preset": "embedding", "crop": CROP, "depth_factors": DEPTH_FACTORS} | VARIANTS[variant]
    preset = settings.pop("preset")
    settings |= {"spacing_mm": SPACING_MM, "seed": seed, "epochs": given.epochs, "learning_rate": given.learning_rate}
    settings |= {"schedule": "cosine", "precision": given.precision and resolved_precision(given.precision)}
    stacked = [MODALITIES] if preset == "embedding-authors" else [(modality,) for modality in given.modalities]
    return [Config.from_preset(preset, modalities=modalities, **settings) for modalities in stacked]


if __name__ == "__main__":
    sys.exit(main())
