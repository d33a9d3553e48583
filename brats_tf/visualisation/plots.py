"""Plots: curves, bands, boxes, scatter plots, rows of images."""

import itertools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from brats_tf.runtime.files import atomic


def new_figure(rows, columns, *, size, sharey=False):
    """A figure with a grid of axes, (rows, columns), without the global state of pyplot; `size` in inches."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def save_curves(path, curves, *, title, x_label):
    """Draws {name: values}, one value per epoch, into one PNG."""
    figure, ((axis,),) = new_figure(1, 1, size=(7, 4))
    for name, values in curves.items():
        axis.plot(np.arange(1, len(values) + 1), values, label=name)
    axis.set(title=title, xlabel=x_label)
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def save_bands(path, curves, *, panels, title):
    """Draws {name: {panel: {"epochs", "mean", "std"}}}: one axis per panel, one line with its band per name."""
    figure, (axes,) = new_figure(1, len(panels), size=(4 * len(panels), 4), sharey=True)
    for panel, axis in zip(panels, axes, strict=True):
        for (name, curve), style in zip(curves.items(), itertools.cycle(("-", "--", "-.", ":")), strict=False):
            epochs, mean, std = (np.array(curve[panel][key]) for key in ("epochs", "mean", "std"))
            axis.plot(epochs, mean, style, marker="o", markersize=3, label=name)
            axis.fill_between(epochs, mean - std, mean + std, alpha=0.2)
        axis.set(title=panel, xlabel="epoch", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("Dice")
    axes[0].legend()
    figure.suptitle(title)
    save_figure(figure, path)


def save_boxes(path, values, *, title, y_label):
    """Draws {name: values} as boxes (quartiles, median, whiskers of 1.5 quartile distances), every value as a dot."""
    figure, ((axis,),) = new_figure(1, 1, size=(1.5 + 1.8 * len(values), 4.5))
    axis.boxplot(list(values.values()), tick_labels=list(values), showfliers=False)
    for place, points in enumerate(values.values(), start=1):
        spread = np.linspace(-0.12, 0.12, len(points)) if len(points) > 1 else np.zeros(len(points))
        axis.plot(place + spread, points, "o", markersize=3, alpha=0.6, color="tab:blue")
    axis.set(title=title, ylabel=y_label)
    axis.grid(axis="y", alpha=0.3)
    save_figure(figure, path)


def save_planes(path, rows, *, title):
    """Draws {caption: images}, each an image (H, W) to show in grey or (H, W, 3) in colour: a row for each entry."""
    most = max(len(images) for images in rows.values())
    figure, axes = new_figure(len(rows), most, size=(2.6 * most, 2.9 * len(rows)))
    for row, (caption, images) in zip(axes, rows.items(), strict=True):
        for axis in row:
            axis.axis("off")
        for number, (axis, image) in enumerate(zip(row, images, strict=False), start=1):
            axis.imshow(image, cmap="gray", interpolation="nearest")
            axis.set_title(f"{caption} {number}", fontsize=9)
    figure.suptitle(title)
    save_figure(figure, path)


def save_log(path, curves, pictures, *, title):
    """Draws a training's log: {name: [(epoch, value)]} one panel per quantity, {name: picture (H, W, 3)} below."""
    panels = {}
    for name in sorted(curves):
        panels.setdefault("dice" if "dice" in name else name, []).append(name)
    most = max(len(panels), len(pictures))
    figure, axes = new_figure(2, most, size=(4 * most, 7))
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
    save_figure(figure, path)


def save_scatter(path, panels, *, title, x_label, y_label):
    """Draws {panel: (x, y)} beside each other, one dot per pair."""
    figure, axes = new_figure(1, len(panels), size=(3.4 * len(panels), 3.4))
    for axis, (name, (x, y)) in zip(axes[0], panels.items(), strict=True):
        axis.plot(x, y, "o", markersize=4, alpha=0.7)
        axis.set(title=name, xlabel=x_label, ylabel=y_label)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)


def save_figure(figure, path):
    """Writes a figure as PNG, complete or not at all; `$` in the id of a case begins no formula."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with atomic(Path(path)) as temporary:
        figure.savefig(temporary, dpi=110)
