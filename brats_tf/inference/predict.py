"""Predict label maps: the networks' outputs averaged, brought back to each case's own geometry.

Paper A, Section 3: "We process the four modalities separately and average the sigmoid outputs." Networks that see
patches predict whole volumes in sliding windows (paper B, Section 2.5).
"""

import dataclasses
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from brats_tf import __version__
from brats_tf.config.settings import EPOCHS, Config
from brats_tf.data.volumes import spacing_mm, write_volume
from brats_tf.errors import InputError
from brats_tf.inference.postprocessing import Steps, postprocess
from brats_tf.inference.prediction_record import RECORD, read_record
from brats_tf.inference.predictor import Member, runner, to_classes
from brats_tf.models.cost import prediction_bytes
from brats_tf.models.losses import to_regions
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import REGIONS, classes_to_labels
from brats_tf.runs.folder import build_network, device_name, enough_memory, load_weights
from brats_tf.runtime.console import say, track
from brats_tf.runtime.files import sha256_of, write_json

PROBABILITIES, UNCERTAINTY = "probabilities", "uncertainty"
POSSIBLE = 0.05  # Where a region's average probability is above this, the networks' disagreement counts.
NO_STEPS = Steps()
SUBSTITUTE = {"t1": "t1ce"}  # Paper B, Section 3.2: T1c in the place of a T1 that is missing.


class Predicted:
    """What the networks say of one case: the sum of their probabilities (H, W, D, K), and of the regions' squares.

    The channels are regions, or classes when they are every network's.
    """

    def __init__(self, prepared, outputs, *, several):
        self.prepared, self.outputs, self.networks = prepared, outputs, []
        self._sum, self._squares = 0, 0 if several else None

    def add(self, member, probabilities):
        """Takes one network's answer."""
        self.networks.append(member.name)
        regions = None
        if self._squares is not None or member.outputs != self.outputs:
            regions = np.asarray(to_regions(probabilities, member.outputs))
        self._sum = self._sum + (probabilities if member.outputs == self.outputs else regions)
        if self._squares is not None:
            self._squares = self._squares + np.square(regions)

    @property
    def average(self):
        """Mean over the networks, (H, W, D, K), float32."""
        return self._sum / len(self.networks)

    def regions(self):
        """Mean over the networks as regions, (H, W, D, 3), float32."""
        return np.asarray(to_regions(self.average, self.outputs))

    def disagreement(self):
        """Standard deviation over the networks, (H, W, D, 3), float32, from 0 to 0.5; None for a single one."""
        if self._squares is None:
            return None
        return np.sqrt(np.maximum(self._squares / len(self.networks) - np.square(self.regions()), 0))


def load_ensemble(runs, epoch="last"):
    """Loads the networks of several runs' folders; those that differ only in their weights share one network.

    So the ensemble takes the memory of one network and of everybody's weights. `epoch` is "last", or "best" of the
    validation.

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
        load_weights(network, run, epoch)
        weights = [np.array(weight) for weight in network.get_weights()]
        members.append(
            Member(config, network, run_network, weights, sha256_of(Path(run) / EPOCHS[epoch]), Path(run).name)
        )
    return members


def predict_cases(members, cases, *, out, steps=NO_STEPS, save_probabilities=False, save_uncertainty=False):
    """Writes `<out>/<case>.nii.gz` for each case, and `<out>/prediction.json`; a bad case is left out, others go on.

    Args:
        members: what `load_ensemble` returned.
        cases: `Case`s; truth is not needed.
        out: the folder for label maps. With `save_probabilities`, `<out>/probabilities/<case>.nii.gz` holds the
            averages as (X, Y, Z, 3), float32: WT, TC, ET; with `save_uncertainty`, `<out>/uncertainty/<case>.nii.gz`
            the networks' disagreement likewise: their standard deviation, from 0 to 0.5.
        steps: what is done to the label maps, see `postprocessing.Steps`.

    Returns:
        A list of (case id, sentence) of those that failed.
    """
    out, failures, told = Path(out), [], {}
    say(_first_line(members, len(cases)))
    if save_uncertainty and len(members) < 2:
        raise InputError("Disagreement needs at least two networks. Received: 1.")
    for case in track(cases, "Predicting"):
        started = time.monotonic()
        try:
            predicted = _predict_case(members, case)
            told[case.id] = _write(predicted, case, out, steps, save_probabilities, save_uncertainty)
        except InputError as error:
            failures.append((case.id, str(error)))
            older = " An older label map of it stays there." if (out / f"{case.id}.nii.gz").exists() else ""
            say(f"Left out: {error}{older}")
        else:
            told[case.id]["seconds"] = round(time.monotonic() - started, 2)
    write_json(out / RECORD, _record(members, steps, told, failures, before=read_record(out)))
    say(f"{len(cases) - len(failures)} of {len(cases)} label maps written to {out}.")
    if failures:
        say(f"Left out: {', '.join(case_id for case_id, _ in failures)}.")
    return failures


def _write(predicted, case, out, steps, save_probabilities, save_uncertainty):
    """Writes what was predicted of a case. Returns what is told of it."""
    prepared, told = predicted.prepared, {"networks": predicted.networks}
    reference = prepared.reference
    classes = prepared.to_file_axes(to_classes(predicted.average, predicted.outputs))
    if steps:
        before, classes = classes, postprocess(classes, spacing_mm(reference.affine), steps)
        told["voxels_changed"] = int(np.count_nonzero(before != classes))
    disagreement = predicted.disagreement()
    if disagreement is not None:
        told["disagreement"] = mean_disagreement(disagreement, predicted.regions())
    write_volume(out / f"{case.id}.nii.gz", classes_to_labels(classes, case.convention), like=reference)
    if save_probabilities:
        path = out / PROBABILITIES / f"{case.id}.nii.gz"
        write_volume(path, prepared.to_file_axes(predicted.regions()), like=reference)
    if save_uncertainty and disagreement is not None:
        write_volume(out / UNCERTAINTY / f"{case.id}.nii.gz", prepared.to_file_axes(disagreement), like=reference)
    return told


def mean_disagreement(disagreement, regions):
    """One figure a region: the mean disagreement where the average probability is above 0.05; 0 where it never is."""
    figures = {}
    for i, region in enumerate(REGIONS):
        where = regions[..., i] > POSSIBLE
        figures[region] = float(disagreement[..., i][where].mean()) if where.any() else 0.0
    return figures


def _record(members, steps, told, failures, before):
    """What `prediction.json` says: which networks with which weights, which steps, and each case.

    Cases of the record `before` stay where the same networks and steps made them.
    """
    made = {"networks": {member.name: member.weights_sha256 for member in members}, "postprocessing": asdict(steps)}
    failed = dict(failures)
    if all(before.get(name) == its for name, its in made.items()):
        told = {case: its for case, its in before["cases"].items() if case not in failed} | told
        failed = {case: its for case, its in before["left_out"].items() if case not in told} | failed
    return {"brats_tf": __version__, **made, "cases": told, "left_out": failed}


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
        A `Predicted`.
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
    predicted = Predicted(prepared, outputs, several=len(usable) > 1)
    for member in usable:
        channels = [modalities.index(modality) for modality in member.config.modalities]
        with enough_memory(member.config):
            predicted.add(member, member.predict(prepared.volume[..., channels]))
    return predicted


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
