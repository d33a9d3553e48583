"""The networks of `real_cases.py` in training: how long, on what, and what they predict afterwards."""

import itertools
import time

import numpy as np
import packed_cases
from real_networks import PLUS, make_training
from recipes import shuffled

from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import track
from brats_tf.runtime.tensorflow import free_graphs

WARMUP_EPOCHS, WEIGHT_DECAY = 2, 1e-4
PROBED = 4  # Steps that are measured.


def members_of(variant):
    """The modalities of each network of a variant."""
    return [(modality,) for modality in MODALITIES] if variant == "embedding" else [MODALITIES]


@free_graphs()
def steps_of(given, variant, cases):
    """The steps of each network of a variant, all of which take equally long, for any seed."""
    from plus_parts import replaced

    members = members_of(variant)
    with replaced(variant):
        return steps_within(given.minutes / len(members), given, (variant, members[0], 0), cases)


@free_graphs()
def train_variant(given, variant, seed, cases, begun):
    """Trains the networks of a variant: (facts, {kind: classes of each validation case, uint8}).

    `begun` keeps what is compiled between the seeds.
    """
    from brats_tf.models.outputs import to_classes

    members = members_of(variant)
    facts = {"variant": variant, "seed": seed, "commit": given.commit or git_commit()} | given.cropped
    facts |= {"minutes": given.minutes} if given.minutes else {"epochs": given.epochs}
    facts |= {"fold": cases.fold} if cases.fold else {}
    facts |= {"learning_rate": given.learning_rate, "networks": [], "cases": cases.steps}
    facts |= {f"{part}_cases": cases.ids_of(part) for part in packed_cases.PARTS}
    total, steps = {}, given.steps[variant] if given.minutes else given.epochs * cases.steps
    for modalities in members:
        about, found = train_network(given, (variant, modalities, seed), steps, cases, begun)
        facts["networks"].append(about)
        for kind, probabilities in found.items():
            total[kind] = total.get(kind, 0) + probabilities / len(members)
    facts |= {name: facts["networks"][0][name] for name in ("device", "versions", "curves", "steps", "seconds_a_step")}
    outputs = facts["networks"][0]["outputs"]
    return facts, {kind: np.stack([to_classes(one, outputs) for one in values]) for kind, values in total.items()}


def steps_within(minutes, given, network, cases):
    """How many steps of a network's training fit into so many minutes here, what comes before the first included."""
    started = time.monotonic()
    training, _, (volumes, classes), _ = begin(given, network, PROBED, cases, {})
    probe = np.resize(cases.training, PROBED)
    training.run(volumes, classes, probe)  # Compiles; JAX does so for each number of steps.
    first = time.monotonic()
    training.run(volumes, classes, probe)
    step = (time.monotonic() - first) / PROBED
    steps = int((60 * minutes - (first - started)) / step)
    steps -= steps % cases.steps  # Each case equally often, and no last part of another length to compile.
    if steps < 2 * cases.steps:  # The first part also compiles: the others tell how long a step takes.
        raise InputError(
            f"--minutes must be enough for each of {cases.steps} cases twice: {network[0]} takes {step:.1f} s a step "
            f"here. Received: {given.minutes:g}."
        )
    return steps


def begin(given, network, steps, cases, begun):
    """A training: (training, facts about it, (volumes, classes) on its device, volumes to predict)."""
    variant, modalities, seed = network
    channels = [MODALITIES.index(modality) for modality in modalities]
    volumes = cases.volumes[..., channels]
    settings = {"steps": steps, "learning_rate": given.learning_rate, "weight_decay": WEIGHT_DECAY}
    settings |= {"warmup": min(steps // 4, WARMUP_EPOCHS * cases.steps), "mirror": (0, 1, 2), "brightness": True}
    training, about = make_training(variant, modalities, seed, settings, given.cropped, begun)
    return training, about, training.on_device(volumes, cases.classes), volumes[cases.validation]


def train_network(given, network, steps, cases, begun):
    """Trains one network: (facts, {kind: probabilities of each validation case})."""
    variant, modalities, seed = network
    training, about, (volumes, classes), others = begin(given, network, steps, cases, begun)
    order = cases.training[shuffled(len(cases.training), steps, seed)]
    parts = np.split(order, range(cases.steps, steps, cases.steps))
    curves, started = [], time.monotonic()
    for part in track(parts, f"Training {variant}, {' '.join(modalities)}, seed {seed}"):
        curves.append(training.run(volumes, classes, part))
        if len(curves) == 1:
            compiled = time.monotonic()
    about |= {"begin_s": compiled - started, "steps": steps}
    about["seconds_a_step"] = (time.monotonic() - compiled) / max(1, steps - cases.steps)
    about["curves"] = {name: [np.round(one[name].mean(axis=0), 4).tolist() for one in curves] for name in curves[0]}
    return about, dict(predictions(training, others, given.kinds, blind=variant in PLUS))


def predictions(training, volumes, kinds, *, blind):
    """(kind, probabilities): as it is, by eight mirrored volumes, without each modality, and with planes blinded."""
    if "normal" in kinds:
        yield "normal", training.predict(volumes)
    if "mirrored" in kinds:
        flips = [axes for count in range(4) for axes in itertools.combinations((1, 2, 3), count)]
        mirrored = (np.flip(training.predict(np.flip(volumes, axes).copy()), axes) for axes in flips)
        yield "mirrored", sum(mirrored) / len(flips)
    for channel, modality in enumerate(MODALITIES if volumes.shape[-1] > 1 else ()):
        if f"without-{modality}" in kinds:
            yield f"without-{modality}", training.predict(volumes * (np.arange(len(MODALITIES)) != channel))
    if blind and "blinded" in kinds:
        yield "blinded", training.predict(volumes, blind=True)


def is_possible(kind, variant):
    """Whether a network of a variant has a prediction of a kind, see `predictions`."""
    if kind == "blinded":
        return variant in PLUS
    return variant != "embedding" or not kind.startswith("without-")
