"""The embedding paper's figures from a trained run: the planes that its classifier sees, and those that come back."""

import logging
from pathlib import Path

import numpy as np

from brats_tf.errors import InputError
from brats_tf.inference.predictor import Predictor, compiled_forward, compiled_planes
from brats_tf.models.outputs import to_classes
from brats_tf.models.planes import has_planes, with_planes
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.runs.files import FIGURES_FOLDER
from brats_tf.runs.network import load_network
from brats_tf.runtime.tensorflow import free_graphs
from brats_tf.visualisation.overlays import blend, save_overlay, with_dark_background
from brats_tf.visualisation.plots import save_planes

log = logging.getLogger(__name__)

CAPTIONS = ("from the 3D encoder", "into the 3D decoder")
IMAGE_CAPTION = "image of its slab"
SLICES = (0.3, 0.5, 0.7)  # Of the tumour's extent, or of the crop's where there is none.


@free_graphs()
def draw_figures(run, case, checkpoint="last"):
    """Writes pictures of one case into `<run>/figures`, as the run's network sees it.

    `overlay-<case>.png` is the embedding paper's Figure 2 (truth and prediction, orthogonal views), on the network's
    first modality. For its networks `planes-<case>.png` is its Figures 3 and 4, in Figure 2's colours: three axial
    slices, the planes from the 3D encoder, the planes into the 3D decoder, and the labels of those slices, from the
    truth where there is one and from the prediction. Of `embedding-plus` it has the images that the classifier sees of
    those slices.

    Returns:
        The paths written.

    Raises:
        InputError: when the run or the case cannot be read.
    """
    config, network = load_network(run, checkpoint)
    with_truth = case.segmentation is not None
    prepared = prepare_case(case, **config.preprocessing(), with_truth=with_truth)
    predictor = Predictor(config, network, compiled_forward(network))
    predicted = to_classes(predictor.predict(prepared.volume), predictor.outputs)
    labels = ({"truth": prepared.classes} if with_truth else {}) | {"prediction": predicted}
    folder, volume = Path(run) / FIGURES_FOLDER, prepared.volume[..., 0]
    title = f"{case.id}, {config.data.modalities[0]}, network {Path(run).name}"
    paths = [folder / f"overlay-{case.id}.png"]
    save_overlay(paths[0], volume, labels, title=title, edges_mm=prepared.grid.edges_mm)
    if has_planes(network):
        paths.append(folder / f"planes-{case.id}.png")
        where = _slices(next(iter(labels.values())))
        planes = _planes(network, prepared.volume, where)
        if all(np.ptp(plane) == 0 for plane in next(iter(planes.values()))):
            log.info(f"{case.id}: the planes are constant, so the 2D classifier sees nothing of this case.")
        shown = with_dark_background(volume)
        rows = {"slice": [shown[:, :, d] for d in where]} | planes
        rows |= {name: [blend(shown[:, :, d], classes[:, :, d]) for d in where] for name, classes in labels.items()}
        save_planes(paths[1], rows, title=title)
    log.info(f"Figures written to {', '.join(str(path) for path in paths)}.")
    return paths


def _planes(network, volume, where):
    """{caption: images}: the planes of the case, or the image of each slice's slab, its planes in red, green, blue."""
    planes_of = compiled_planes(with_planes(network))
    found = [planes_of(volume, depth) for depth in where]
    if len(found[0]) == len(CAPTIONS):
        return dict(zip(CAPTIONS, found[0], strict=True))
    return {IMAGE_CAPTION: [_in_colour(planes) for (planes,) in found]}


def _in_colour(planes):
    image = np.stack(planes, axis=-1)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    return (image - low) / np.maximum(high - low, np.finfo(np.float32).tiny)


def pick_case(cases, case_id, *, parts=()):
    """The case with that id, or the first that has all `parts`. Raises `InputError`."""
    for case in cases:
        if case_id == case.id or (case_id is None and set(case.volumes) >= set(parts)):
            return case
    if case_id is None:
        raise InputError(f"None of the {len(cases)} cases has {', '.join(parts)}.")
    raise InputError(f"`--case` must be one of {', '.join(case.id for case in cases)}. Received: {case_id}.")


def _slices(classes):
    used = np.flatnonzero(classes.any(axis=(0, 1)))
    first, last = (used[0], used[-1]) if used.size else (0, classes.shape[2] - 1)
    return [round(first + share * (last - first)) for share in SLICES]
