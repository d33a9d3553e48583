"""Overlays of label maps on slices, as in the embedding paper's Figure 2."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from brats_tf.regions import CLASSES
from brats_tf.visualisation.plots import new_figure, save_figure

COLOURS = {"necrosis": "red", "edema": "green", "enhancing": "yellow"}  # Embedding paper, Figure 2.
# Where a prediction is wrong. These and `COLOUR_BLIND_SAFE` are colour-blind-safe (Okabe and Ito).
ERROR_COLOURS = {"missed": "#0072B2", "false": "#E69F00", "wrong class": "#CC79A7"}
COLOUR_BLIND_SAFE = {"necrosis": "#D55E00", "edema": "#009E73", "enhancing": "#F0E442"}
OPACITY = 0.45


def save_overlay(path, volume, rows, *, title, errors=False, edges_mm=(1, 1, 1)):
    """Draws the axial, coronal and sagittal slice through the tumour's centre, one row of three for each entry.

    Args:
        path: the PNG to write.
        volume: (H, W, D), H front to back, W to the patient's left, D to the head.
        rows: {caption: classes (H, W, D)}; the first with a tumour chooses the slices.
        title: one line on top.
        errors: adds a row for where the second entry differs from the first; all colours are colour-blind-safe then.
        edges_mm: of a voxel along H, W, D.
    """
    volume, colours = with_dark_background(volume), COLOUR_BLIND_SAFE if errors else COLOURS
    h, w, d = edges_mm
    aspects = {"axial": h / w, "coronal": d / w, "sagittal": d / h}  # A voxel's height over its width on each.
    centre = _centre(next((classes for classes in rows.values() if classes.any()), None), volume.shape)
    palettes = dict.fromkeys(rows, colours)
    if errors:
        rows, palettes = rows | {"error": errors_of(*rows.values())}, palettes | {"error": ERROR_COLOURS}
    figure, axes = new_figure(len(rows), 3, size=(10.5, 3.6 * len(rows) + 0.6))
    for row, (caption, classes) in zip(axes, rows.items(), strict=True):
        for axis, (name, image, mask) in zip(row, _slices(volume, classes, centre), strict=True):
            axis.imshow(_blend(image, mask, palettes[caption]), interpolation="nearest", aspect=aspects[name])
            axis.set_title(f"{caption}, {name}", fontsize=9)
            axis.axis("off")
    shown = colours | (ERROR_COLOURS if errors else {})
    handles = [Patch(color=colour, label=name) for name, colour in shown.items()]
    figure.legend(handles=handles, loc="outside lower center", ncol=len(handles), frameon=False)
    figure.suptitle(title)
    save_figure(figure, path)


def blend(image, classes):
    """A slice with its classes in the colours of the embedding paper's Figure 2: two (H, W) -> (H, W, 3), 0 to 1."""
    return _blend(image, classes, COLOURS)


def with_dark_background(volume):
    """A z-scored volume whose background is its least value: 0 is the mean of the brain, and would be grey."""
    return np.where(volume == 0, volume.min(), volume)


def centre_of_tumour(classes):
    """The index of the tumour's voxel nearest to the mean of all its voxels: of several lesions, one lies there."""
    inside = np.argwhere(classes)
    return inside[np.square(inside - inside.mean(axis=0)).sum(axis=1).argmin()].tolist()


def _centre(classes, shape):
    return [size // 2 for size in shape] if classes is None else centre_of_tumour(classes)


def _slices(volume, classes, centre):
    """(name, image, mask) of the three slices, as a radiologist hangs them: front or head on top."""
    h, w, d = centre
    yield "axial", volume[:, :, d], classes[:, :, d]
    yield "coronal", volume[h].T[::-1], classes[h].T[::-1]
    yield "sagittal", volume[:, w].T[::-1], classes[:, w].T[::-1]


def errors_of(truth, prediction):
    """Where two maps of classes differ: 0 nowhere, then 1, 2, 3 for the keys of `ERROR_COLOURS`, in order."""
    kinds = (truth > 0) & (prediction == 0), (truth == 0) & (prediction > 0), truth != prediction
    return np.select(kinds, (1, 2, 3), 0).astype(np.uint8)


def _blend(image, mask, colours):
    low, high = np.percentile(image, (1, 99.5))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for name, colour in colours.items():
        inside = mask == (CLASSES.index(name) if name in CLASSES else 1 + list(colours).index(name))
        picture[inside] = (1 - OPACITY) * picture[inside] + OPACITY * np.array(to_rgb(colour))
    return picture
