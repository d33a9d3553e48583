"""Several networks on one case: their outputs are averaged (embedding paper, Section 3).

"We process the four modalities separately and average the sigmoid outputs." Networks that see patches predict whole
volumes in sliding windows (AlbuNet paper, Section 2.5).
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brats_tf.config.config import CONFIG_FILE, Config
from brats_tf.config.execution import ForwardOptions
from brats_tf.data.case import source_files
from brats_tf.data.splits import training_cases
from brats_tf.errors import InputError, about, enough_memory
from brats_tf.inference.ensemble_prediction import EnsemblePrediction
from brats_tf.inference.predictor import Predictor, compiled_forward
from brats_tf.models.build import build_network
from brats_tf.preprocessing.preprocess import PreparedCase, prepare_case
from brats_tf.runs.files import CHECKPOINT_FILES
from brats_tf.runs.network import explain_lack_of_memory, load_weights
from brats_tf.runs.record import read_run_record
from brats_tf.runs.stored_weights import StoredWeights
from brats_tf.runtime.tensorflow import free_graphs, no_garbage_collection, resolved_precision

DEFAULT_FORWARD = ForwardOptions()
SUBSTITUTE = {"t1": "t1ce"}  # AlbuNet paper, Section 3.2: T1c in place of a missing T1.


@free_graphs()
@no_garbage_collection()
def load_ensemble(
    runs: Sequence[str | Path],
    checkpoint: str = "last",
    *,
    forward: ForwardOptions = DEFAULT_FORWARD,
    blind: bool = False,
) -> list[Predictor]:
    """Loads the networks of several runs' folders; those that differ only in their weights share one Keras model.

    So the ensemble takes the memory of one network; the weights of the others stay in their files. `checkpoint` is
    "last", or "best" of the validation; `forward` is how they run. With `blind` the classifiers see nothing of the
    volume, see `planes.blinded`.

    Raises:
        InputError: when a folder holds no run, or weights that do not fit its config.
    """
    missing = [str(run) for run in runs if not (Path(run) / CONFIG_FILE).is_file()]
    if len(missing) > 1:  # A single one is refused where it is read.
        raise InputError(
            f"{', '.join(missing)} hold no trained networks: {CONFIG_FILE} is missing. Train them first, or choose "
            "trained networks with --networks."
        )
    precision = resolved_precision(forward.precision)
    predictors: list[Predictor] = []
    shared: dict = {}
    named: dict = {}  # By the same keys, the weights whose names in their file are those in others.
    for run in runs:
        config = Config.load(run)
        if predictors:
            _check_alike(run, config, predictors[0].config)
        key = (config.network.name, *config.network_settings().values())
        if key not in shared:
            network = build_network(config, precision=precision)
            shared[key] = (network, compiled_forward(network, blind=blind))
        network, run_network = shared[key]
        path = Path(run) / CHECKPOINT_FILES[checkpoint]
        if found := named[key].in_another(path) if key in named else None:
            weights, sha256 = found
        else:
            sha256 = load_weights(network, run, checkpoint)
            weights = StoredWeights(network, path)
            if weights.names_are_known:
                named[key] = weights
        record = read_run_record(run) or {}
        origin = record.get("initial_weights", {}).get("origin", "unknown")
        chosen = checkpoint == "best" or config.training.plateau_monitor == "validation"
        chosen_on = tuple(record.get("validation", ())) if chosen else ()
        known = {"checkpoint": checkpoint, "initial_weights": origin, "chosen_on": chosen_on}
        known |= {"precision": precision, "mirror": forward.mirror}
        known["trained_on"] = frozenset(training_cases(run) or ())
        predictors.append(Predictor(config, network, run_network, weights, sha256, Path(run), **known))
    return predictors


@dataclasses.dataclass(frozen=True)
class ReadyCase:
    """A case as the networks that fit it take it.

    Attributes:
        id: the case's.
        prepared: a `PreparedCase` of the modalities.
        predictors: the networks that fit the case.
        modalities: the channels of the prepared volume, in order.
        messages: what a person should know about the choice.
        seconds: what reading took.
        files: what `source_files` told before they were read.
    """

    id: str
    prepared: PreparedCase
    predictors: list
    modalities: list
    messages: list
    seconds: float
    files: dict = dataclasses.field(default_factory=dict)

    def volume(self, modalities):
        """What a network of these modalities sees: (H, W, D, C) float32, 0 where the case lacks one."""
        found = self.prepared.volume
        if list(modalities) == list(self.modalities):
            return found
        if set(modalities) <= set(self.modalities):
            return found[..., [self.modalities.index(modality) for modality in modalities]]
        nothing = np.zeros_like(found[..., 0])
        channels = [found[..., self.modalities.index(one)] if one in self.modalities else nothing for one in modalities]
        return np.stack(channels, axis=-1)


def read_case(predictors, case):
    """Reads a case for those networks whose modalities it has: a `ReadyCase`.

    A network trained with `modality_dropout` does without one of its modalities where no other network fits.
    A missing T1 is replaced by T1c where no network can do without it (AlbuNet paper, Section 3.2).

    Raises:
        InputError: when no network fits, or the case is bad.
    """
    started, files = time.monotonic(), source_files(case)
    usable = [one for one in predictors if set(one.config.data.modalities) <= set(case.volumes)]
    wanted = _modalities(predictors)
    missing, messages = [modality for modality in wanted if modality not in case.volumes], []
    if not usable:
        usable = [one for one in predictors if _can_do_without(one, case)]
    if not usable:
        case, usable, messages = _substitute(predictors, case)
        missing = [modality for modality in missing if modality not in case.volumes]
    if not usable:
        raise InputError(
            f"Case {case.id}: no network fits; expected {', '.join(wanted)} in {case.folder}, "
            f"found {', '.join(case.volumes)}."
        )
    modalities = [modality for modality in _modalities(usable) if modality in case.volumes]
    if missing:
        messages.append(f"Case {case.id}: {', '.join(missing)} missing, predicted from {', '.join(modalities)}.")
    settings = predictors[0].config.preprocessing() | {"modalities": modalities}
    with enough_memory(f"Case {case.id}: its volumes"):
        prepared = prepare_case(case, **settings, with_truth=False)
    return ReadyCase(case.id, prepared, usable, modalities, messages, time.monotonic() - started, files)


def predict_case(ready):
    """Runs the networks on a `ReadyCase`: an `EnsemblePrediction`.

    Raises:
        InputError: when the memory is too small, or a network's output is not finite.
    """
    started = time.monotonic()
    outputs = "classes" if all(one.outputs == "classes" for one in ready.predictors) else "regions"
    predicted = EnsemblePrediction(ready.prepared, outputs, several=len(ready.predictors) > 1)
    for predictor in ready.predictors:
        try:
            with explain_lack_of_memory(predictor.config.replace(precision=predictor.precision), training=False):
                probabilities = predictor.predict(ready.volume(predictor.config.data.modalities))
                predicted.add(predictor, _finite(probabilities, predictor))
        except InputError as error:
            raise type(error)(about(ready.id, error)) from error
        if ready.id in predictor.trained_on:
            predicted.trained.append(predictor.name)
    predicted.seconds, predicted.files = ready.seconds + time.monotonic() - started, ready.files
    return predicted


def _finite(probabilities, predictor):
    if not np.isfinite(probabilities.sum()):
        raise InputError(f"{predictor.name} must predict finite probabilities; received NaN or infinity.")
    return probabilities


def _can_do_without(predictor, case):
    """Whether a case lacks one modality of a network that has learned to do without."""
    data = predictor.config.data
    return data.modality_dropout > 0 and len(set(data.modalities) - set(case.volumes)) == 1


def _modalities(predictors):
    return sorted({modality for one in predictors for modality in one.config.data.modalities})


def _check_alike(run, config, first):
    """Raises `InputError` unless a network sees volumes as the ensemble's first one does."""
    received, expected = config.preprocessing(), first.preprocessing()
    for name in ("crop", "spacing_mm"):
        if received[name] != expected[name]:
            raise InputError(
                f"The networks of an ensemble must share `{name}`. Received: {received[name]} in {run}, "
                f"{expected[name]} before."
            )


def _substitute(predictors, case):
    """The case with T1c in place of a missing T1, the networks that can be used then, and what to say."""
    borrowed = {
        name: case.volumes[other]
        for name, other in SUBSTITUTE.items()
        if name not in case.volumes and other in case.volumes
    }
    available = {*case.volumes, *borrowed}
    usable = [one for one in predictors if len(one.config.data.modalities) > 1]
    usable = [one for one in usable if set(one.config.data.modalities) <= available]
    if not usable:
        return case, [], []
    messages = [
        f"Case {case.id}: {name} is missing; {SUBSTITUTE[name]} takes its place, as in the AlbuNet paper."
        for name in borrowed
    ]
    channels = {name: case.channels[SUBSTITUTE[name]] for name in borrowed if SUBSTITUTE[name] in case.channels}
    changed = dataclasses.replace(case, volumes=case.volumes | borrowed, channels=case.channels | channels)
    return changed, usable, messages
