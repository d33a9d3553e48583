"""Predict label maps: the networks' sigmoid outputs averaged, brought back to each case's own geometry.

Paper A, Section 3: "We process the four modalities separately and average the sigmoid outputs."
"""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from brats_tf.config import Config
from brats_tf.data.preparation import prepare_case
from brats_tf.data.volumes import write_volume
from brats_tf.errors import InputError
from brats_tf.losses import to_regions
from brats_tf.models.costs import prediction_bytes
from brats_tf.models.networks import get_network
from brats_tf.regions import THRESHOLD, classes_to_labels, regions_to_classes
from brats_tf.runs import build_network, device_name, enough_memory, load_weights
from brats_tf.screen import say, track

PROBABILITIES = "probabilities"


@dataclass
class Member:
    """One trained network of an ensemble: its config, its weights as arrays, and the function that runs it."""

    config: Config
    network: keras.Model
    weights: list
    run_network: callable

    def predict(self, volume):
        """Region probabilities of one volume: (H, W, D, C) -> (H, W, D, 3)."""
        return self.run_network(self.weights, volume)


def load_ensemble(runs):
    """Loads the networks of several runs' folders; those that differ only in their weights share one network.

    So the ensemble takes the memory of one network and of everybody's weights.

    Raises:
        InputError: when a folder holds no run, or weights that do not fit its config.
    """
    members, shared = [], {}
    for run in runs:
        config = Config.load(run)
        for name in ("crop", "spacing_mm"):
            if members and getattr(config, name) != getattr(members[0].config, name):
                raise InputError(
                    f"The networks of an ensemble must share `{name}`. Received: {getattr(config, name)} in {run}, "
                    f"{getattr(members[0].config, name)} before."
                )
        key = (config.network, *config.network_settings().values())
        if key not in shared:
            network = build_network(config)
            shared[key] = (network, _runner(network, get_network(config.network).outputs))
        network, run_network = shared[key]
        load_weights(network, run)
        members.append(Member(config, network, [np.array(weight) for weight in network.get_weights()], run_network))
    return members


def predict_cases(members, cases, *, out, save_probabilities=False):
    """Writes `<out>/<case>.nii.gz` for each case; a bad case is left out and the others go on.

    Args:
        members: what `load_ensemble` returned.
        cases: `Case`s; truth is not needed.
        out: the folder for label maps. With `save_probabilities`, `<out>/probabilities/<case>.nii.gz` holds the
            averages as (X, Y, Z, 3), float32: WT, TC, ET.

    Returns:
        A list of (case id, sentence) of those that failed.
    """
    out, failures = Path(out), []
    say(_first_line(members, len(cases)))
    for case in track(cases, "Predicting"):
        try:
            prepared, probabilities = _predict_case(members, case)
            classes = regions_to_classes(probabilities > THRESHOLD)
            labels = classes_to_labels(prepared.to_file_axes(classes), case.convention)
            write_volume(out / f"{case.id}.nii.gz", labels, like=prepared.reference)
            if save_probabilities:
                path = out / PROBABILITIES / f"{case.id}.nii.gz"
                write_volume(path, prepared.to_file_axes(probabilities), like=prepared.reference)
        except InputError as error:
            failures.append((case.id, str(error)))
            older = " An older label map of it stays there." if (out / f"{case.id}.nii.gz").exists() else ""
            say(f"Left out: {error}{older}")
    say(f"{len(cases) - len(failures)} of {len(cases)} label maps written to {out}.")
    if failures:
        say(f"Left out: {', '.join(case_id for case_id, _ in failures)}.")
    return failures


def _first_line(members, cases):
    largest = max((member.network for member in members), key=lambda network: network.count_params())
    memory = prediction_bytes(largest, networks=len(members)) / 1e9
    return (
        f"Predicting {cases} cases with {len(members)} networks of {largest.count_params():,} parameters on "
        f"{device_name()}, about {memory:.1f} GB of memory."
    )


def _predict_case(members, case):
    """The average over the networks whose modalities the case has: (prepared case, (H, W, D, 3) probabilities)."""
    usable = [member for member in members if set(member.config.modalities) <= set(case.volumes)]
    wanted = sorted({modality for member in members for modality in member.config.modalities})
    missing = [modality for modality in wanted if modality not in case.volumes]
    if not usable:
        raise InputError(
            f"Case {case.id}: no network fits; expected {', '.join(wanted)} in {case.folder}, "
            f"found {', '.join(case.volumes)}."
        )
    modalities = sorted({modality for member in usable for modality in member.config.modalities})
    if missing:
        say(f"Case {case.id}: {', '.join(missing)} missing, predicted from {', '.join(modalities)}.")
    config = members[0].config
    prepared = prepare_case(
        case, modalities=modalities, crop=config.crop, spacing_mm=config.spacing_mm, with_truth=False
    )
    total = 0
    for member in usable:
        channels = [modalities.index(modality) for modality in member.config.modalities]
        with enough_memory(member.config.crop):
            total = total + member.predict(prepared.volume[..., channels])
    return prepared, total / len(usable)


def _runner(network, outputs):
    """A function (weights, (H, W, D, C) volume) -> (H, W, D, 3) region probabilities, compiled once."""

    @tf.function(reduce_retracing=True)
    def forward(volume):
        return to_regions(network(volume[None], training=False), outputs)[0]

    current = []

    def run(weights, volume):
        if current[:1] != [id(weights)]:
            network.set_weights(weights)
            current[:] = [id(weights)]
        return forward(tf.constant(volume)).numpy()

    return run
