"""Two traps of an ImageNet classifier inside another network, in numbers: its hidden input scaling and its batch norm.

Scaling: Keras's EfficientNet divides its input by 255. The planes that the 3D encoder hands over are of order 1, so
that what the first convolution then sees is nearly constant. Measured on one real FLAIR volume at the paper's crop,
with untrained 3D layers (one set for each seed) and the ImageNet weights: the variance over the image of the first
convolution's output (mean of its channels), and the norm of the loss's gradient over the weights of the 3D encoder,
without (`--input-scaling none`) and with (`imagenet`) the scaling. Most of the encoder has a second way to the loss, by
the 3D skips; its last block (`squeeze4`) and the planes have none but through the classifier, so it is shown by itself.

Batch norm: with one case a batch, batch statistics make training and prediction two different functions. Measured by
learning one case (half the resolution in plane, Adam 1e-4) with `--batch-norm frozen` and `batch` from the same seeds:
Dice of the same weights in prediction mode and in training mode.

Command:  python experiments/scaling_and_batch_norm.py DIR --case ID --seeds 3 --steps 60
Time:     about half an hour on two CPU cores; 8 GB of memory.
Expected: the variance and the last block's gradient fall by orders of magnitude with the scaling; frozen gives one
          Dice, batch gives two.

Writes into RESULTS/scaling_and_batch_norm: `summary.json` and `figure.png`.
"""

import argparse
import logging
import math
import sys
from functools import partial
from pathlib import Path

from arguments import count

from brats_tf.runtime.console import track
from brats_tf.runtime.tensorflow import import_tensorflow

tf = import_tensorflow()

import keras
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from overfit_one_case import pick, what_the_classifier_does
from provenance import provenance

from brats_tf.config.config import Config
from brats_tf.config.fields import choices_of
from brats_tf.config.settings import ClassifierSettings
from brats_tf.data.discovery import find_cases
from brats_tf.evaluation.metrics import dice
from brats_tf.models.build import build_with_weights, classifier_hash
from brats_tf.models.losses import CrossEntropyMinusDice
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import REGION_THRESHOLD, REGIONS, classes_to_regions
from brats_tf.runtime.files import atomic, write_json
from brats_tf.runtime.program import run_program
from brats_tf.runtime.tensorflow import device_name
from brats_tf.training.optimisation import compile_network

log = logging.getLogger("brats_tf.experiments")

# How the layers of the 3D encoder, and of its last block, begin.
GRADIENTS = {"encoder_gradient": ("stem_conv", "squeeze", "planes_"), "last_gradient": ("squeeze4", "planes_")}
MODES = ("prediction", "training")
SCALINGS = ("none", "imagenet")  # `standardise` would hide the difference.
BATCH_NORMS = choices_of(ClassifierSettings, "batch_norm")


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with BraTS cases")
    parser.add_argument("--case", help="id of the case (default: the first)")
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--steps", type=count, default=60)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    return run_program(Path(__file__).stem, partial(run, given))


def run(given):
    """Does what the arguments ask for."""
    case = pick(find_cases(given.data)[0], given.case)
    config = Config.from_preset("embedding", modalities=("flair",), weights=given.weights)
    measure(case, config, seeds=given.seeds, steps=given.steps, folder=given.results / Path(__file__).stem)


def measure(case, config, *, seeds, steps, folder):
    """Measures both traps on one case and writes summary and figure."""
    volume, target = prepared(case, config)
    doubled = (
        *(math.ceil(size / 64) * 64 for size in config.data.crop[:2]),
        config.data.crop[2],
    )  # Halves are multiples of 32.
    small_volume, small_target = halved(*prepared(case, config.replace(crop=doubled)))
    log.info(f"{case.id} on {device_name()}: {seeds} seeds, 2 x {steps} steps for each.")
    scaling, batch_norm = [], []
    for seed in range(seeds):
        for choice in SCALINGS:
            network, origin = seeded(config.replace(input_scaling=choice, seed=seed))
            found = {"variance": stem_variance(network, volume)} | gradients(network, volume, target)
            scaling.append({"seed": seed, "input_scaling": choice, **found})
            log.info(
                f"seed {seed}, scaling {choice}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items())
            )
        for choice in BATCH_NORMS:
            learned_config = config.replace(batch_norm=choice, seed=seed, crop=small_volume.shape[1:4])
            scores = learn(seeded(learned_config)[0], learned_config, small_volume, small_target, steps)
            batch_norm.append({"seed": seed, "batch_norm": choice, **scores})
            log.info(f"seed {seed}, batch norm {choice}: {scores}")
    summary = provenance() | {"case": case.id, "device": device_name(), "weights": origin, "steps": steps}
    summary["classifier_sha256"] = classifier_hash(network)
    summary |= {"crop": config.data.crop, "learned_crop": small_volume.shape[1:4]}
    write_json(folder / "summary.json", summary | {"scaling": scaling, "batch_norm": batch_norm})
    draw(folder / "figure.png", scaling, batch_norm)
    log.info(f"Look at {folder}.")


def seeded(config):
    """A network with the seed's random layers and the classifier's weights, and where these are from."""
    keras.utils.set_random_seed(config.seed)
    return build_with_weights(config)


def prepared(case, config):
    """The case's volume (1, H, W, D, 1) and its regions (1, H, W, D, 3), float32."""
    ready = prepare_case(case, modalities=config.data.modalities, crop=config.data.crop, with_truth=True)
    return ready.volume[None], classes_to_regions(ready.classes)[None].astype(np.float32)


def halved(volume, target):
    """Both at half the resolution in plane: means of the volume, every second voxel of the regions."""
    batch, height, width, depth, channels = volume.shape
    means = volume.reshape(batch, height // 2, 2, width // 2, 2, depth, channels).mean(axis=(2, 4))
    return means, target[:, ::2, ::2]


def stem_variance(network, volume):
    """Variance over the image, without its padded rim, of the classifier's first convolution, mean of its channels."""
    names = [layer.name for layer in network.layers]
    image = network.get_layer("planes_scaling" if "planes_scaling" in names else "planes").output
    planes = keras.Model(network.input, image).predict(volume, verbose=0)
    classifier = network.get_layer("efficientnetb0")
    stem = classifier.get_layer("stem_conv")(classifier.get_layer("stem_conv_pad")(planes))
    return float(np.var(stem[:, 1:-1, 1:-1], axis=(1, 2)).mean())


def gradients(network, volume, target):
    """Norms of the loss's gradient over the weights of the 3D encoder, and of its last block."""
    weights = {
        name: [
            weight.value
            for layer in network.layers
            if layer.name.startswith(beginnings)
            for weight in layer.trainable_weights
        ]
        for name, beginnings in GRADIENTS.items()
    }

    @tf.function
    def norms():
        with tf.GradientTape() as tape:
            loss = CrossEntropyMinusDice()(target, network(volume, training=True))
        found = tape.gradient(loss, weights)
        return {name: tf.linalg.global_norm(found[name]) for name in weights}

    return {name: float(norm) for name, norm in norms().items()}


def learn(network, config, volume, target, steps):
    """Learns one case; returns the Dice of the learned weights in both modes, and what the classifier does for it."""
    compile_network(network, config)
    for _ in track(range(steps), f"batch norm {config.network.batch_norm}, seed {config.seed}"):
        network.train_on_batch(volume, target)
    scores = {}
    for mode in MODES:
        regions = np.array(network(volume, training=mode == "training"))[0] > REGION_THRESHOLD
        scores[mode] = {region: float(dice(target[0, ..., i] > 0, regions[..., i])) for i, region in enumerate(REGIONS)}
    return scores | what_the_classifier_does(network, volume, target[0])


def draw(path, scaling, batch_norm):
    """Variance and gradients with and without the scaling, Dice in both modes."""
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 2.2))
    titles = ("variance of the first\nconvolution", "gradient,\n3D encoder", "gradient,\nits last block")
    for axis, name, title in zip(axes[:3], ("variance", *GRADIENTS), titles, strict=True):
        for row in scaling:
            axis.plot(SCALINGS.index(row["input_scaling"]), row[name], "o", color=f"C{row['seed']}")
        axis.set(yscale="log", xlim=(-0.5, 1.5), title=title, xlabel="input scaling")
        axis.set_xticks(range(len(SCALINGS)), SCALINGS)
    ticks = [(choice, mode) for choice in BATCH_NORMS for mode in MODES]
    for row in batch_norm:
        for index, (choice, mode) in enumerate(ticks):
            if choice == row["batch_norm"]:
                for region, marker in zip(REGIONS, "osv", strict=True):
                    place = index + 0.15 * (row["seed"] - 1)
                    axes[3].plot(place, row[mode][region], marker, color=f"C{row['seed']}")
    axes[3].set(ylim=(0, 1), title="Dice of the case learned (colour: seed)", xlabel="batch norm, mode")
    axes[3].set_xticks(range(len(ticks)), [f"{choice},\n{mode}" for choice, mode in ticks])
    handles = [Line2D([], [], marker=marker, color="grey", linestyle="") for marker in "osv"]
    axes[3].legend(handles, REGIONS, loc="lower left", frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
