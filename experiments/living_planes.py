"""Do the planes live? What the classifier gets in the first steps of a training, by scaling, batch norm and seed.

The 3D encoder hands three planes to the ImageNet classifier. If they become constant, the classifier sees nothing and
what trains is a 3D U-Net. Measured at every step on real cases in turn, batch 1, Adam as the preset says: the share of
plane pixels that are not 0, the planes' standard deviation, and the norm of the loss's gradient over the last block of
the 3D encoder; at the end also the mean loss of the last fifth of the steps.

Command:  python experiments/living_planes.py DIR --modality flair --seeds 3 --steps 100
          python experiments/living_planes.py DIR --variants none-frozen none-batch standardise-frozen --crop 64x64x36 \
              --spacing-mm 3 --steps 40 --name small
Time:     at full size 10-18 s a step on two CPU cores and 8 GB of memory; at 64x64x36 about 1 s.
Expected: with the preset's choices the standard deviation stays above 0.3 of its start and the gradient is never 0.

Run it again to continue. Writes RESULTS/living_planes-NAME.json.
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from arguments import count

from brats_tf.runtime.console import track
from brats_tf.runtime.tensorflow import free_graphs, import_tensorflow

tf = import_tensorflow()

import keras
import numpy as np
from provenance import continued, provenance

from brats_tf.cli import options
from brats_tf.config.config import Config
from brats_tf.config.presets import PRESETS
from brats_tf.config.settings import ClassifierSettings, ComputeSettings, DataSettings
from brats_tf.data.discovery import find_cases
from brats_tf.errors import format_shape
from brats_tf.models.build import build_with_weights, classifier_hash
from brats_tf.models.planes import with_planes
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import MODALITIES
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program
from brats_tf.runtime.tensorflow import make_deterministic, resolved_precision
from brats_tf.training.loop import make_trainer
from brats_tf.training.pulse import DEVIATION, GRADIENT, LIVE

log = logging.getLogger("brats_tf.experiments")


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with BraTS cases")
    parser.add_argument("--preset", default="embedding", choices=[name for name in PRESETS if "embedding" in name])
    parser.add_argument("--modality", default="flair", choices=MODALITIES)
    variants = "input scaling and batch norm, such as none-batch (default: the preset's)"
    parser.add_argument("--variants", nargs="+", metavar="SCALING-NORM", help=variants)
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--steps", type=count, default=100)
    options.add_settings(parser, DataSettings, ("crop", "spacing_mm"))
    options.add_settings(parser, ClassifierSettings, ("weights",))
    options.add_settings(parser, ComputeSettings, ("precision",))
    parser.add_argument("--name", help="of the results file (default: the modality)")
    parser.add_argument("--results", type=Path, default=Path("results"))
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments)))


def run(given):
    """Does what the arguments ask for, run by run, and writes after each."""
    path = given.results / f"{Path(__file__).stem}-{given.name or given.modality}.json"
    stacked = PRESETS[given.preset].get("modalities", (given.modality,))
    base = Config.from_preset(
        given.preset,
        modalities=stacked,
        crop=given.crop,
        spacing_mm=given.spacing_mm,
        weights=given.weights,
        precision=given.precision and resolved_precision(given.precision),
    )
    facts = {"preset": given.preset, "modalities": list(stacked), "crop": format_shape(base.data.crop)}
    facts |= {"precision": base.compute.precision, "spacing_mm": base.data.spacing_mm, "steps": given.steps}
    found = find_cases(given.data)[0]
    facts |= {"weights": base.network.weights, "case_ids": [case.id for case in found]}
    done = continued(path, facts)
    variants = given.variants or [f"{base.network.input_scaling}-{base.network.batch_norm}"]
    cases = [_prepared(case, base) for case in track(found, "Reading cases")]
    for seed in range(given.seeds):
        for variant in variants:
            if any((one["seed"], one["variant"]) == (seed, variant) for one in done):
                continue
            scaling, _, norm = variant.partition("-")
            config = base.replace(seed=seed, input_scaling=scaling, batch_norm=norm)
            commit = provenance()["commit"]
            done.append({"seed": seed, "variant": variant, "commit": commit, **measure(config, cases, given.steps)})
            write_json(path, provenance() | facts | {"cases": len(cases), "runs": done})
            log.info(summary_of(done[-1]))
    log.info(f"Written to {path}.")


@free_graphs()
def measure(config, cases, steps):
    """Trains `steps` steps and returns the pulse of each, with where the classifier's weights are from."""
    keras.utils.clear_session()
    make_deterministic(config.seed)
    network, origin = build_with_weights(config)
    found = {"weights": origin, "classifier_sha256": classifier_hash(network), "loss": []}
    trainer = make_trainer(with_planes(network), config)
    trainer.prepare(tf.distribute.get_strategy(), jit=False)
    order = np.random.default_rng(config.seed).permutation(len(cases))
    pulses = {name: [] for name in (LIVE, DEVIATION, GRADIENT)}
    for step in track(range(steps), f"seed {config.seed}, {config.network.input_scaling}, {config.network.batch_norm}"):
        volume, classes = cases[order[step % len(cases)]]
        trainer.reset_metrics()
        trainer.step((tf.constant(volume), tf.constant(classes), tf.zeros((1, 2), tf.int64)))
        logs = trainer.logs()
        found["loss"].append(logs["loss"])
        for name, values in pulses.items():
            values.append(logs[name])
    return found | pulses


def summary_of(one):
    """One line about a run."""
    start, last = one[DEVIATION][0], one[DEVIATION][-1]
    tail = one["loss"][-max(1, len(one["loss"]) // 5) :]
    return (
        f"seed {one['seed']}, {one['variant']}: live {min(one[LIVE]):.2g} at least, deviation {start:.2g} at first, "
        f"{min(one[DEVIATION]):.2g} at least, {last:.2g} at last; gradient {min(one[GRADIENT]):.2g} at least; "
        f"loss {np.mean(tail):.3f} at last"
    )


def _prepared(case, config):
    prepared = prepare_case(case, **config.preprocessing(), with_truth=True)
    return prepared.volume[None], prepared.classes[None]


if __name__ == "__main__":
    sys.exit(main())
