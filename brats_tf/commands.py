"""The commands of `brats-tf`: each imports its run inside, so that `--help` never loads TensorFlow.

A command's docstring is its help text. It takes the parsed arguments and returns an exit code, or None for 0.
"""

from brats_tf.config import PRESETS, Config
from brats_tf.regions import MODALITIES

FAILED_CASES = 2


def train(given):
    """Train one network, or with `--modality all` four of them one after another.

    A run lies in RUNS/<modality>: config.json, network.weights.h5, history.csv.
    Without --data, made-up cases are used, at a small crop.

    brats-tf train --data BraTS2020 --modality flair
    """
    from brats_tf.screen import import_tensorflow

    import_tensorflow()
    from brats_tf import demo, training
    from brats_tf.models.embedding import check_shape

    defaults = {} if given.data else demo.SETTINGS
    names = MODALITIES if given.modality == "all" else (given.modality,)
    configs = [_config(given, defaults, modalities=(name,) if name else None) for name in names]
    for config in configs:
        check_shape(config.network_settings()["shape"], config.depth_factors, config.planes)
    cases = _cases(given, "training", configs[0])
    training.train(configs, cases, runs=given.runs, store=given.store or given.runs / "store", skip_bad=given.skip_bad)


def predict(given):
    """Predict label maps with the average of the trained networks.

    Writes OUT/<case>.nii.gz with each case's own geometry and label convention. A case that lacks a modality is
    predicted from the others. Without --data, phantoms that training has not seen are used.

    brats-tf predict --data BraTS2020_validation --runs runs --out predictions
    """
    from brats_tf.screen import import_tensorflow

    import_tensorflow()
    from brats_tf.inference import load_ensemble, predict_cases

    runs = [given.runs / name for name in given.networks]
    members = load_ensemble(runs)
    cases = _cases(given, "unseen", members[0].config)
    failures = predict_cases(members, cases, out=given.out, save_probabilities=given.save_probabilities)
    return FAILED_CASES if failures else 0


def evaluate(given):
    """Score label maps against the truth: Dice of ET, WT and TC.

    Writes RESULTS/cases.csv and RESULTS/summary.json, and prints the paper's table. A region that is empty in truth
    and prediction scores 1, empty in one of them 0, as on the BraTS platform.

    brats-tf evaluate --data BraTS2020 --out predictions --results results
    """
    from brats_tf.evaluation import evaluate as score
    from brats_tf.evaluation import show_table

    config = None if given.data else Config.load(given.runs / given.networks[0])
    cases = _cases(given, "unseen", config)
    summary, failures = score(cases, predictions=given.out, results=given.results)
    show_table({"ours": summary})
    return FAILED_CASES if failures else 0


def summary(given):
    """Print the network: every layer with its shape, and what a pass costs.

    Paper A's Table 1 reads off the layers stem_conv, squeeze1 ... squeeze4, planes_conv and planes.

    brats-tf summary --preset paper --modality flair
    """
    from brats_tf.screen import import_tensorflow, say

    import_tensorflow()
    from brats_tf.models.costs import multiply_adds
    from brats_tf.runs import build_network

    config = _one_config(given)
    network = build_network(config)
    network.summary(line_length=130)
    say(f"One pass over one volume: {2 * multiply_adds(network) / 1e9:.0f} GFLOP in convolutions.")


def export(given):
    """Write one trained network as a SavedModel, reload it and compare.

    Its `serve` takes (B, H, W, D, C) float32, cropped and z-scored, and needs TensorFlow alone.

    brats-tf export --run runs/flair --out exported/flair
    """
    from brats_tf.screen import import_tensorflow

    import_tensorflow()
    from brats_tf.export import export_saved_model

    export_saved_model(given.run, out=given.out)


def cases(given):
    """List the cases of a data folder, and what was skipped and why.

    brats-tf cases --data BraTS2020
    """
    from brats_tf.listing import show_cases

    show_cases(given.data)


def demo(given):
    """See the whole job on made-up cases, in minutes on a CPU: nothing to prepare.

    Trains the four networks, predicts cases that they have not seen, prints the paper's table and writes
    RESULTS/overlay.png. Where ImageNet weights cannot be had it goes on with random ones, and says so first.
    """
    from brats_tf.screen import import_tensorflow

    import_tensorflow()
    from brats_tf import demo as whole

    whole.demo(runs=given.runs, out=given.out, results=given.results, **_given_settings(given))


def bench(given):
    """Measure a pass, a training step, their peak memory and the machine's own matrix product, in one run.

    brats-tf bench --results results
    """
    from brats_tf.bench import bench as measure

    measure(_one_config(given), results=given.results)


def backbones(given):
    """List the 2D classifiers that `--backbone` takes: source, weights, channels per scale, parameters, cost.

    Parameters are the classifier's; GFLOP and seconds are of a pass of the whole network (preset paper), measured on
    the machine that the table names. With --measure they are measured here, one after another (half an hour for all,
    or one --backbone), and written to RESULTS/backbones.json.

    brats-tf backbones --backbone convnext_tiny
    """
    from brats_tf.listing import BACKBONES_FILE, show_backbones

    path = BACKBONES_FILE
    if given.measure:
        from brats_tf.bench import bench_backbones

        bench_backbones((given.backbone,) if given.backbone else None, results=given.results)
        path = given.results / "backbones.json"
    show_backbones(given.backbone, path=path)


def _config(given, defaults, **changes):
    """The run that the arguments describe."""
    settings = defaults | _given_settings(given) | {name: value for name, value in changes.items() if value}
    return Config.from_preset(given.preset, **settings)


def _one_config(given):
    """The run that the arguments describe, on FLAIR where neither they nor the preset name a modality."""
    modality = given.modality or (None if "modalities" in PRESETS[given.preset] else MODALITIES[0])
    return _config(given, {}, modalities=(modality,) if modality else None)


def _given_settings(given):
    names = (
        "crop",
        "backbone",
        "depth_factors",
        "planes",
        "input_scaling",
        "batch_norm",
        "weights",
        "epochs",
        "learning_rate",
        "seed",
    )
    return {name: getattr(given, name) for name in names if getattr(given, name, None) is not None}


def _cases(given, part, config):
    """The cases of --data, or phantoms for the crop of `config`; says which, and what was skipped."""
    from brats_tf.data.cases import find_cases
    from brats_tf.data.phantom import phantom_cases
    from brats_tf.screen import say

    if not given.data:
        say(f"No --data (make: DATA=) given: using made-up cases, the {part} phantoms.")
        return phantom_cases(given.runs, part, crop=config.crop, seed=config.seed)
    found, skipped = find_cases(given.data)
    for path, reason in skipped:
        say(f"Skipped {path}: {reason}.")
    return found
