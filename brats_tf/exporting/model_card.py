"""`metadata.json` and `model_card.md` beside an exported network: what it takes, what made it, what it is good for."""

import dataclasses
from importlib.metadata import version
from pathlib import Path

from brats_tf import __version__
from brats_tf.data.splits import training_cases
from brats_tf.errors import InputError, format_shape
from brats_tf.evaluation.results import TOO_GOOD, read_summary
from brats_tf.evaluation.scores import METRICS, format_score
from brats_tf.exporting.label_map import channels_of
from brats_tf.inference.prediction_record import settings_sha256
from brats_tf.preprocessing.transforms import ORIENTATION
from brats_tf.regions import CLASSES, CONVENTIONS, REGIONS
from brats_tf.runs.record import git_commit, read_run_record
from brats_tf.runtime.files import sha256_of, write_json

METADATA_FILE, CARD_FILE = "metadata.json", "model_card.md"
# What `run.json` says of a training that the card repeats; folders and machines' names are left out.
FROM_RECORD = ("status", "epochs", "seconds", "peak_memory_gb", "machine", "device", "data", "began", "version")
SCORED = ("dice", "hd95_mm")

_TENSORFLOW = ("import tensorflow as tf", "", 'model = tf.saved_model.load("this folder")')
_USES = {
    "label_map": (*_TENSORFLOW, 'labels = model.label_map(volume)["labels"]'),
    "savedmodel": (*_TENSORFLOW, "found = model.probabilities(volumes)"),
    "onnx": (
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("this folder/model.onnx")',
        'found = session.run(None, {"volume": volumes})[0]',
    ),
    "litert": (
        "from ai_edge_litert.interpreter import Interpreter",
        "",
        'model = Interpreter("this folder/model.tflite")',
        'index = model.get_input_details()[0]["index"]',
        "model.resize_tensor_input(index, volumes.shape)",
        "model.allocate_tensors()",
        "model.set_tensor(index, volumes)",
        "model.invoke()",
        'found = model.get_tensor(model.get_output_details()[0]["index"])',
    ),
}
_CARD = """# {title}

Written by brats_tf {version} beside the networks; `{metadata}` has the same for programs, and more.

## Use

{use}

Intended for research on the segmentation of gliomas in MRI. It is not a medical device: do not use it to decide about
patients.

## Input and output

{signatures}

Volumes have voxels of {voxel_mm:g} mm, the brain alone on a background of 0, growing indices to the back, to the
patient's left and to the head. Channels, in this order: {channels}.

## Networks

{networks}

## Scores

{scores}

## Limits

- It was trained on the cases that the networks' table counts, and on nothing else: other scanners, protocols, ages and
  diseases are not covered, and neither are images after surgery unless the training cases had them.
- It expects registered images without the skull, as BraTS provides them.
- It always answers. It does not notice an image that is no brain, or a modality that is another.
{more_limits}
## Licence

The code that made it is under Apache-2.0. The weights carry the terms of the data that they were trained on, and of the
ImageNet weights where they started from those; check both before you pass them on.
"""


def describe(runs, members, *, checkpoint, forward, steps, options):
    """What `metadata.json` says, as JSON can hold it, but for the comparison and the scores.

    Args:
        runs: (folder, SHA-256 of the weights that were loaded) of each network.
        members: (config, network) of each.
        checkpoint, forward, steps, options: of `export_networks`.
    """
    each = zip(runs, members, strict=True)
    configs = [config for config, _ in members]
    convention = CONVENTIONS[options.convention]
    return {
        "brats_tf": __version__,
        "commit": git_commit(),
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "channels": list(channels_of(configs)),
        "orientation": "".join(ORIENTATION),
        "voxel_mm": configs[0].data.spacing_mm or 1.0,
        "crop": list(configs[0].input_shape[:3]),
        "convention": convention.name,
        "labels": dict(zip(CLASSES, convention.labels, strict=True)),
        "format": options.format,
        "weight_type": options.weight_type,
        "precision": forward.precision,
        "mirror": forward.mirror,
        "postprocessing": dataclasses.asdict(steps),
        "networks": [_network(*one, checkpoint) for one in each],
    }


def read_results(results, facts):
    """The means with their intervals that `evaluate` found for what a card's facts describe.

    Raises:
        InputError: when they are of other networks, steps, precision or mirroring.
    """
    summary = read_summary(results)
    expected = {one["name"]: one["weights_sha256"] for one in facts["networks"]}
    received = summary["made_by"].get("networks", {})
    if received != expected:
        who = ", ".join(received) or "unknown networks"
        weights = " with other weights" if set(received) == set(expected) else ""
        raise InputError(
            f"{results} must hold the scores of {', '.join(expected)} with these weights. "
            f"Received those of {who}{weights}."
        )
    how = {
        "settings": {one["name"]: one["prediction_settings_sha256"] for one in facts["networks"]},
        "postprocessing": facts["postprocessing"],
        "forward": {name: facts[name] for name in ("precision", "mirror")},
    }
    for name, value in how.items():
        if summary["made_by"].get(name) != value:
            raise InputError(
                f"{results} must hold scores of predictions as the export makes them, with {name} {value}. Received: "
                f"{summary['made_by'].get(name, 'none; run `brats-tf evaluate` again')}."
            )
    figures = {region: {metric: summary[region][metric] for metric in SCORED} for region in REGIONS}
    known = {"cases": summary["cases"], "left_out": len(summary["left_out"]), "empty_rule": summary["empty_rule"]}
    known |= {name: len(summary.get(name, ())) for name in TOO_GOOD}
    return known | figures


def write_model_card(folder, facts, *, with_label_map):
    """Writes both files into the folder of a SavedModel, with the SHA-256 of each file that is there."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_json(folder / METADATA_FILE, facts | {"sha256": hashes})
    (folder / CARD_FILE).write_text(_card(facts, with_label_map=with_label_map), encoding="utf-8")


def _network(run, member, checkpoint):
    (run, sha256), (config, network) = run, member
    record = read_run_record(run) or {}
    training, trained_on = {name: record[name] for name in FROM_RECORD if name in record}, training_cases(run)
    return {
        "name": Path(run).name,
        "checkpoint": checkpoint,
        "weights_sha256": sha256,
        "parameters": network.count_params(),
        "training": training | {"initial_weights": record.get("initial_weights", {}).get("origin", "unknown")},
        "training_cases": None if trained_on is None else len(trained_on),
        "validation_cases": len(record.get("validation", ())),
        "settings": config.to_dict(),
        "prediction_settings_sha256": settings_sha256(config),
    }


def _card(facts, *, with_label_map):
    names = ", ".join(one["name"] for one in facts["networks"])
    crop = format_shape(facts["crop"])
    also = "`probabilities` (also `serving_default`)" if facts["format"] == "savedmodel" else "probabilities"
    signatures = [f"- {also}: `volume` (B, {crop}, {len(facts['channels'])}), z-scored"]
    signatures[0] += " and cropped, to probabilities."
    if with_label_map:
        labels = ", ".join(f"{number} {name}" for name, number in facts["labels"].items())
        signatures.append(
            f"- `label_map`: `volume` (H, W, D, {len(facts['channels'])}), raw intensities of any size, float32; a "
            f"channel of zeros is a modality that is missing. `labels` (H, W, D) uint8: {labels}."
        )
    return _CARD.format(
        title=names,
        version=facts["brats_tf"],
        metadata=METADATA_FILE,
        use=_use(facts, with_label_map=with_label_map),
        signatures="\n".join(signatures),
        voxel_mm=facts["voxel_mm"],
        channels=", ".join(facts["channels"]),
        networks=_networks_table(facts["networks"]),
        scores=_scores_table(facts.get("scores")),
        more_limits=_more_limits(facts, with_label_map=with_label_map),
    )


def _use(facts, *, with_label_map):
    lines = _USES["label_map" if with_label_map else facts["format"]]
    return "\n".join(["```python", *lines, "```"])


def _networks_table(networks):
    lines = ["| network | parameters | training cases | epochs | minutes | initial weights | SHA-256 of the weights |"]
    lines.append("|---|--:|--:|--:|--:|---|---|")
    for one in networks:
        training = one["training"]
        minutes = f"{training['seconds'] / 60:.0f}" if "seconds" in training else "not recorded"
        cases, epochs = one["training_cases"] or "not recorded", training.get("epochs", "not recorded")
        values = (one["name"], f"{one['parameters']:,}", cases, epochs, minutes, training["initial_weights"])
        lines.append(f"| {' | '.join(str(value) for value in values)} | `{one['weights_sha256'][:16]}…` |")
    return "\n".join(lines)


def _scores_table(scores):
    if scores is None:
        return "None were given (`brats-tf export --results`)."
    lines = [f"Mean over {scores['cases']} case(s), with the 95 % bootstrap interval.", ""]
    lines += [f"| region | {' | '.join(METRICS[metric].title for metric in SCORED)} |", "|---|--:|--:|"]
    for region in REGIONS:
        cells = [_interval(metric, scores[region][metric]) for metric in SCORED]
        lines.append(f"| {region} | {' | '.join(cells)} |")
    for name, did in TOO_GOOD.items():
        if scores[name]:
            lines += ["", f"{scores[name]} of them {did} that predicted them, so the scores are too good."]
    return "\n".join(lines)


def _interval(metric, figures):
    mean, low, high = (format_score(metric, figures[name]) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _more_limits(facts, *, with_label_map):
    limits = []
    if with_label_map:
        limits.append(
            "- `label_map` counts a voxel as 1 mm³, and replaces no modality by another: `brats-tf predict` puts T1ce "
            "in place of a missing T1 where no network fits."
        )
    if facts["weight_type"] != "float32":
        limits.append(f"- The weights are kept in {facts['weight_type']}.")
    if facts["precision"] != "float32":
        limits.append(f"- The layers compute in {facts['precision']}, but for the classifier if a CPU exported them.")
    return "".join(f"{limit}\n" for limit in limits)
