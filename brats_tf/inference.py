"""Predict label maps: the networks' outputs averaged, brought back to each case's own geometry.

Paper A, Section 3: "We process the four modalities separately and average the sigmoid outputs." Networks that see
patches predict whole volumes in sliding windows (paper B, Section 2.5).
"""

import dataclasses
from pathlib import Path

import numpy as np

from brats_tf.config import Config
from brats_tf.data.preparation import prepare_case
from brats_tf.data.volumes import write_volume
from brats_tf.errors import InputError
from brats_tf.losses import to_regions
from brats_tf.members import Member, runner, to_classes
from brats_tf.models.costs import prediction_bytes
from brats_tf.regions import classes_to_labels
from brats_tf.runs import build_network, device_name, enough_memory, load_weights
from brats_tf.screen import say, track

PROBABILITIES = "probabilities"
SUBSTITUTE = {"t1": "t1ce"}  # Paper B, Section 3.2: T1c in the place of a T1 that is missing.


def load_ensemble(runs):
    """Loads the networks of several runs' folders; those that differ only in their weights share one network.

    So the ensemble takes the memory of one network and of everybody's weights.

    Raises:
        InputError: when a folder holds no run, or weights that do not fit its config.
    """
    members, shared = [], {}
    for run in runs:
        config = Config.load(run)
        if members:
            _check_alike(run, config, members[0].config)
        key = (config.network, *config.network_settings().values())
        if key not in shared:
            network = build_network(config)
            shared[key] = (network, runner(network))
        network, run_network = shared[key]
        load_weights(network, run)
        members.append(Member(config, network, run_network, [np.array(weight) for weight in network.get_weights()]))
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
            prepared, average, outputs = _predict_case(members, case)
            classes = prepared.to_file_axes(to_classes(average, outputs))
            labels = classes_to_labels(classes, case.convention)
            write_volume(out / f"{case.id}.nii.gz", labels, like=prepared.reference)
            if save_probabilities:
                path = out / PROBABILITIES / f"{case.id}.nii.gz"
                regions = prepared.to_file_axes(np.asarray(to_regions(average, outputs)))
                write_volume(path, regions, like=prepared.reference)
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


def _check_alike(run, config, first):
    """Raises `InputError` unless a network sees volumes as the ensemble's first one does."""
    for name, its, before in (
        ("crop", None if config.patch else config.crop, None if first.patch else first.crop),
        ("spacing_mm", config.spacing_mm, first.spacing_mm),
    ):
        if its != before:
            raise InputError(
                f"The networks of an ensemble must share `{name}`. Received: {its} in {run}, {before} before."
            )


def _predict_case(members, case):
    """The average over the networks whose modalities the case has.

    Returns:
        (prepared case, probabilities (H, W, D, K), what their channels are: "classes" when they are every network's).
    """
    usable = [member for member in members if set(member.config.modalities) <= set(case.volumes)]
    if not usable:
        case, usable = _substitute(members, case)
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
    crop = None if config.patch else config.crop
    prepared = prepare_case(case, modalities=modalities, crop=crop, spacing_mm=config.spacing_mm, with_truth=False)
    outputs = "classes" if all(member.outputs == "classes" for member in usable) else "regions"
    total = 0
    for member in usable:
        channels = [modalities.index(modality) for modality in member.config.modalities]
        with enough_memory(member.config):
            predicted = member.predict(prepared.volume[..., channels])
        total = total + (predicted if member.outputs == outputs else np.asarray(to_regions(predicted, member.outputs)))
    return prepared, total / len(usable), outputs


def _substitute(members, case):
    """The case with T1c in the place of a missing T1, and the networks that can be used then."""
    borrowed = {
        name: case.volumes[other]
        for name, other in SUBSTITUTE.items()
        if name not in case.volumes and other in case.volumes
    }
    usable = [
        member
        for member in members
        if len(member.config.modalities) > 1 and set(member.config.modalities) <= {*case.volumes, *borrowed}
    ]
    if not usable:
        return case, []
    for name in borrowed:
        say(f"Case {case.id}: {name} is missing; {SUBSTITUTE[name]} takes its place, as in paper B.")
    channels = {name: case.channels[SUBSTITUTE[name]] for name in borrowed if SUBSTITUTE[name] in case.channels}
    changed = dataclasses.replace(case, volumes=case.volumes | borrowed, channels=case.channels | channels)
    return changed, usable
