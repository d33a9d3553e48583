"""Pictures to look at: the overlay of the paper's Figure 2, and curves."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from brats_tf.files import atomic
from brats_tf.regions import CLASSES

COLOURS = {"necrosis": "red", "edema": "green", "enhancing": "yellow"}  # Paper A, Figure 2.
OPACITY = 0.45


def save_overlay(path, volume, rows, *, title):
    """Draws the axial, coronal and sagittal slice through the tumour's centre, one row of three for each entry.

    Args:
        path: the PNG to write.
        volume: (H, W, D), H front to back, W to the patient's left, D to the head.
        rows: {caption: classes (H, W, D)}; the first with a tumour chooses the slices.
        title: one line on top.
    """
    volume = np.where(volume == 0, volume.min(), volume)  # After z-scoring the background is 0, the brain's mean.
    centre = _centre(next((classes for classes in rows.values() if classes.any()), None), volume.shape)
    figure, axes = plt.subplots(
        len(rows), 3, figsize=(10.5, 3.6 * len(rows) + 0.6), squeeze=False, layout="constrained"
    )
    for row, (caption, classes) in zip(axes, rows.items(), strict=True):
        for axis, (name, image, mask) in zip(row, _slices(volume, classes, centre), strict=True):
            axis.imshow(_blend(image, mask), interpolation="nearest")
            axis.set_title(f"{caption}, {name}", fontsize=9)
            axis.axis("off")
    handles = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncol=3, frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def save_curves(path, curves, *, title, x_label):
    """Draws {name: values}, one value a step, into one PNG."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, values in curves.items():
        axis.plot(np.arange(1, len(values) + 1), values, label=name)
    axis.set(title=title, xlabel=x_label)
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def save_bands(path, curves, *, panels, title):
    """Draws {name: {panel: {"epochs", "mean", "std"}}}: panels beside each other, a line and its band for each name."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 4), sharey=True, layout="constrained")
    for panel, axis in zip(panels, np.atleast_1d(axes), strict=True):
        for (name, curve), style in zip(curves.items(), ("-", "--", "-.", ":"), strict=False):
            epochs, mean, std = (np.array(curve[panel][key]) for key in ("epochs", "mean", "std"))
            axis.plot(epochs, mean, style, marker="o", markersize=3, label=name)
            axis.fill_between(epochs, mean - std, mean + std, alpha=0.2)
        axis.set(title=panel, xlabel="epoch", ylim=(0, 1))
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("Dice")
    np.atleast_1d(axes)[0].legend()
    figure.suptitle(title)
    _save(figure, path)


def save_boxes(path, values, *, title, y_label):
    """Draws {name: values} as boxes (quartiles, median, whiskers of 1.5 quartile distances), every value as a dot."""
    figure, axis = plt.subplots(figsize=(1.5 + 1.8 * len(values), 4.5), layout="constrained")
    axis.boxplot(list(values.values()), tick_labels=list(values), showfliers=False)
    for place, its in enumerate(values.values(), start=1):
        spread = np.linspace(-0.12, 0.12, len(its)) if len(its) > 1 else [0]
        axis.plot(place + np.asarray(spread), its, "o", markersize=3, alpha=0.6, color="tab:blue")
    axis.set(title=title, ylabel=y_label)
    axis.grid(axis="y", alpha=0.3)
    _save(figure, path)


def _centre(classes, shape):
    if classes is None:
        return [size // 2 for size in shape]
    return [round(index) for index in np.argwhere(classes).mean(axis=0)]


def _slices(volume, classes, centre):
    """(name, image, mask) of the three slices, as a radiologist hangs them: front or head on top."""
    h, w, d = centre
    yield "axial", volume[:, :, d], classes[:, :, d]
    yield "coronal", volume[h].T[::-1], classes[h].T[::-1]
    yield "sagittal", volume[:, w].T[::-1], classes[:, w].T[::-1]


def _blend(image, mask):
    low, high = np.percentile(image, (1, 99.5))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for name, colour in COLOURS.items():
        inside = mask == CLASSES.index(name)
        picture[inside] = (1 - OPACITY) * picture[inside] + OPACITY * np.array(to_rgb(colour))
    return picture


def _save(figure, path):
    with atomic(Path(path)) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
