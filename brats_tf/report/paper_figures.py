"""The pictures of paper A from a trained run: what its 3D encoder hands to the classifier, and what comes back."""

from pathlib import Path

import numpy as np

from brats_tf.errors import InputError
from brats_tf.inference.predictor import Member, planes_of, runner, to_classes
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.runs.folder import load_network
from brats_tf.runtime.console import say
from brats_tf.visualisation.overlays import blend, save_overlay, save_planes

FOLDER = "figures"
CAPTIONS = ("from the 3D encoder", "into the 3D decoder")
SLICES = (0.3, 0.5, 0.7)  # Of the tumour's extent, or of the crop's where there is none.


def draw_figures(run, case):
    """Writes pictures of one case into `<run>/figures`, as the run's network sees it.

    `overlay-<case>.png` is paper A's Figure 2 (truth and prediction, three planes of section). For paper A's networks
    `planes-<case>.png` is its Figures 3 and 4: three axial slices, the planes from the 3D encoder, the planes into the
    3D decoder, and the labels of those slices, from the truth where there is one and from the prediction.

    Returns:
        The paths written.

    Raises:
        InputError: when the run or the case cannot be read.
    """
    config, network = load_network(run)
    with_truth = case.segmentation is not None
    crop = None if config.patch else config.crop
    prepared = prepare_case(
        case, modalities=config.modalities, crop=crop, spacing_mm=config.spacing_mm, with_truth=with_truth
    )
    member = Member(config, network, runner(network))
    predicted = to_classes(member.predict(prepared.volume), member.outputs)
    labels = ({"truth": prepared.classes} if with_truth else {}) | {"prediction": predicted}
    folder, shown = Path(run) / FOLDER, prepared.volume[..., 0]
    title = f"{case.id}, {config.modalities[0]}, network {config.run_name}"
    paths = [folder / f"overlay-{case.id}.png"]
    save_overlay(paths[0], shown, labels, title=title)
    if config.patch is None:
        paths.append(folder / f"planes-{case.id}.png")
        where = _slices(next(iter(labels.values())))
        tapped = dict(zip(CAPTIONS, planes_of(network, prepared.volume), strict=True))
        if all(np.ptp(plane) == 0 for plane in tapped[CAPTIONS[0]]):
            say(
                f"{case.id}: the planes from the 3D encoder are constant, so the 2D classifier sees nothing "
                "of this case."
            )
        rows = {"slice": [shown[:, :, d] for d in where]} | tapped
        rows |= {name: [blend(shown[:, :, d], its[:, :, d]) for d in where] for name, its in labels.items()}
        save_planes(paths[1], rows, title=title)
    say(f"Look at {', '.join(str(path) for path in paths)}.")
    return paths


def pick_case(cases, case_id, *, parts=()):
    """The case of that id, or the first that has all `parts`. Raises `InputError`."""
    for case in cases:
        if case_id == case.id or (case_id is None and set(case.volumes) >= set(parts)):
            return case
    if case_id is None:
        raise InputError(f"One case must have {', '.join(parts)}. Received {len(cases)} cases, none of which has.")
    raise InputError(f"`--case` must be one of {', '.join(case.id for case in cases)}. Received: {case_id}.")


def _slices(classes):
    used = np.flatnonzero(classes.any(axis=(0, 1)))
    first, last = (used[0], used[-1]) if used.size else (0, classes.shape[2] - 1)
    return [round(first + share * (last - first)) for share in SLICES]
