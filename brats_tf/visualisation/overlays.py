"""Pictures to look at: the overlay of the paper's Figure 2, and curves."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from brats_tf.regions import CLASSES
from brats_tf.runtime.files import atomic

COLOURS = {"necrosis": "red", "edema": "green", "enhancing": "yellow"}  # Paper A, Figure 2.
# Where a prediction is wrong; these and `SAFE` are told apart by colour-blind people too (Okabe and Ito).
ERRORS = {"missed": "#0072B2", "false": "#E69F00", "wrong class": "#CC79A7"}
SAFE = {"necrosis": "#D55E00", "edema": "#009E73", "enhancing": "#F0E442"}
OPACITY = 0.45


def save_overlay(path, volume, rows, *, title, colours=COLOURS, errors=False):
    """Draws the axial, coronal and sagittal slice through the tumour's centre, one row of three for each entry.

    Args:
        path: the PNG to write.
        volume: (H, W, D), H front to back, W to the patient's left, D to the head.
        rows: {caption: classes (H, W, D)}; the first with a tumour chooses the slices.
        title: one line on top.
        colours: of the classes.
        errors: adds a row for where the second entry differs from the first.
    """
    volume = np.where(volume == 0, volume.min(), volume)  # After z-scoring the background is 0, the brain's mean.
    centre = _centre(next((classes for classes in rows.values() if classes.any()), None), volume.shape)
    palettes = dict.fromkeys(rows, colours)
    if errors:
        rows, palettes = rows | {"error": errors_of(*rows.values())}, palettes | {"error": ERRORS}
    figure, axes = plt.subplots(
        len(rows), 3, figsize=(10.5, 3.6 * len(rows) + 0.6), squeeze=False, layout="constrained"
    )
    for row, (caption, classes) in zip(axes, rows.items(), strict=True):
        for axis, (name, image, mask) in zip(row, _slices(volume, classes, centre), strict=True):
            axis.imshow(_blend(image, mask, palettes[caption]), interpolation="nearest")
            axis.set_title(f"{caption}, {name}", fontsize=9)
            axis.axis("off")
    shown = colours | (ERRORS if errors else {})
    handles = [Patch(color=colour, label=name) for name, colour in shown.items()]
    figure.legend(handles=handles, loc="outside lower center", ncol=len(handles), frameon=False)
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


def save_planes(path, rows, *, title):
    """Draws {caption: images}, each an image (H, W) to show in grey or (H, W, 3) in colour: a row for each entry."""
    most = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(
        len(rows), most, figsize=(2.6 * most, 2.9 * len(rows)), squeeze=False, layout="constrained"
    )
    for row, (caption, images) in zip(axes, rows.items(), strict=True):
        for axis in row:
            axis.axis("off")
        for number, (axis, image) in enumerate(zip(row, images, strict=False), start=1):
            axis.imshow(image, cmap="gray", interpolation="nearest")
            axis.set_title(f"{caption} {number}", fontsize=9)
    figure.suptitle(title)
    _save(figure, path)


def save_log(path, curves, pictures, *, title):
    """Draws a training's log: {name: [(epoch, value)]} in panels of like names, {name: picture (H, W, 3)} below."""
    panels = {}
    for name in sorted(curves):
        panels.setdefault("dice" if "dice" in name else name, []).append(name)
    most = max(len(panels), len(pictures))
    figure, axes = plt.subplots(2, most, figsize=(4 * most, 7), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) : most]:
        axis.axis("off")
    for (panel, names), axis in zip(panels.items(), axes[0], strict=False):
        for name in names:
            axis.plot(*zip(*curves[name], strict=True), marker=".", label=name)
        axis.set(title=panel, xlabel="epoch", yscale="log" if "rate" in panel else "linear")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    for axis in axes[1]:
        axis.axis("off")
    for (name, picture), axis in zip(pictures.items(), axes[1], strict=False):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(name, fontsize=9)
    figure.suptitle(title)
    _save(figure, path)


def save_scatter(path, panels, *, title, x_label, y_label):
    """Draws {panel: (x, y)} beside each other, a dot for each pair."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.4), squeeze=False, layout="constrained")
    for axis, (name, (x, y)) in zip(axes[0], panels.items(), strict=True):
        axis.plot(x, y, "o", markersize=4, alpha=0.7)
        axis.set(title=name, xlabel=x_label, ylabel=y_label)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    _save(figure, path)


def blend(image, classes):
    """One slice with its classes in the colours of paper A's Figure 2: two (H, W) -> (H, W, 3), from 0 to 1."""
    return _blend(image, classes, COLOURS)


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


def errors_of(truth, prediction):
    """Where two maps of classes differ: 0 nowhere, then as in `ERRORS`, tumour missed, none there, another class."""
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


def _save(figure, path):
    with atomic(Path(path)) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
