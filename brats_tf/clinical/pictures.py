"""Pictures to check cases by: the brain mask's outline, modalities against the reference, regions on a series."""

import numpy as np
import SimpleITK as sitk

from brats_tf.clinical.grids import brats_grid, grid_of, resample, to_array
from brats_tf.regions import REGIONS
from brats_tf.visualisation.overlays import COLOUR_BLIND_SAFE
from brats_tf.visualisation.plots import new_figure, save_figure

SQUARES = 8  # Of a checkerboard, along an axis.
CUTS = (("axial", 2), ("coronal", 1), ("sagittal", 0))  # The axis that a cut is across, of left, back, head.
REGION_COLOURS = dict(
    zip(REGIONS, (COLOUR_BLIND_SAFE[name] for name in ("edema", "necrosis", "enhancing")), strict=True)
)
HEIGHTS = (0.25, 0.5, 0.75)  # Of the slices shown, as shares of the tumour's.


def save_checks(folder, reference, mask, arrays, brain, name):
    """Writes `<folder>/mask.png`, and `<folder>/<modality>.png` for each modality but the reference.

    Args:
        folder: created.
        reference: SimpleITK image as the scanner made it, skull and all.
        mask: of the brain, on the same grid.
        arrays: {modality: (X, Y, Z)} on the grid of the case, X to the left, Y to the back, Z to the head.
        brain: mask on the grid of the case.
        name: the reference's modality.
    """
    folder.mkdir(parents=True, exist_ok=True)
    upright = _upright(reference)
    _save(
        folder / "mask.png",
        f"Brain mask on {name}",
        to_array(resample(reference, upright, sitk.Transform(), kind="linear")),
        outline=to_array(resample(mask, upright, sitk.Transform(), kind="nearest")) > 0,
    )
    for modality, array in arrays.items():
        if modality != name:
            title = f"{modality} (bright squares) in {name}; the line is the edge of the brain mask"
            _save(folder / f"{modality}.png", title, arrays[name], other=array, outline=brain)


def save_segments(path, image, regions, *, grid, title):
    """Draws the regions' outlines on three slices of a series, or on its middle slices where there is no tumour.

    Slices are hung as a radiologist does, whatever the order of the file: front or head on top, left on the right.

    Args:
        path: the .png to write.
        image: (X, Y, Z) intensities of the series, slices along Z.
        regions: (X, Y, Z, 3) bool, WT, TC, ET on the same voxels.
        grid: their `Grid`.
        title: above the picture.
    """
    filled = np.flatnonzero(regions.any(axis=(0, 1, 3)))
    filled = filled if filled.size else np.arange(image.shape[2])
    slices = [int(filled[int(height * (filled.size - 1))]) for height in HEIGHTS]
    figure, (axes,) = new_figure(1, len(slices), size=(12, 4.6))
    window, (hung, aspect) = _window(image), _hanging(grid)
    for axis, number in zip(axes, slices, strict=True):
        cut = _scaled(hung(image[:, :, number]), *window)
        axis.imshow(cut, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=aspect)
        for region, (name, colour) in enumerate(REGION_COLOURS.items()):
            line = hung(regions[:, :, number, region])
            if line.any():
                axis.contour(line.astype(float), levels=[0.5], colors=colour, linewidths=1.0)
            axis.plot([], [], color=colour, label=name)
        axis.set_title(f"slice {number + 1} of {image.shape[2]}", fontsize=9)
        axis.axis("off")
    axes[0].legend(loc="lower left", fontsize=8)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _hanging(grid):
    """(a function that turns a slice (i, j) into rows and columns, a pixel's height over its width)."""
    directions, spacing = grid.matrix[:3, :2] / grid.spacing[:2], grid.spacing[:2]
    leads = np.abs(directions).argmax(axis=0)  # To the left or right, back or front, head or feet.
    across = int(leads[1] < leads[0])  # The axis of the columns; the other is that of the rows.
    wanted = np.where(leads == 2, -1, 1)  # To the left, to the back, to the feet.
    signs = np.sign(directions[leads, [0, 1]]) * wanted
    flips = tuple(slice(None, None, int(sign)) for sign in signs)

    def hung(cut):
        return cut[flips].T if across == 0 else cut[flips]

    return hung, spacing[1 - across] / spacing[across]


def _upright(image):
    """A grid of 1 mm along left, back and head that holds an image."""
    corners = grid_of(image).corners()
    size = np.ceil(np.ptp(corners, axis=0)).astype(int) + 1
    return brats_grid((corners.min(axis=0) + corners.max(axis=0)) / 2, tuple(int(n) for n in size))


def _save(path, title, array, *, other=None, outline):
    figure, (axes,) = new_figure(1, 3, size=(12, 4.6))
    centre = np.argwhere(outline[::2, ::2, ::2]).mean(axis=0).round().astype(int) * 2
    windows = [_window(one) for one in (array, other) if one is not None]
    for axis, (cut, across) in zip(axes, CUTS, strict=True):
        image = _scaled(_cut(array, across, centre), *windows[0])
        if other is not None:
            squares = _checkerboard(image.shape)
            image = np.where(squares, _scaled(_cut(other, across, centre), *windows[1]), image * 0.7)
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.contour(_cut(outline, across, centre).astype(float), levels=[0.5], colors="#E69F00", linewidths=0.8)
        axis.set_title(cut, fontsize=9)
        axis.axis("off")
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _cut(array, across, centre):
    """A slice (rows, columns) as a radiologist hangs it: front or head on top, the patient's left on the right."""
    index = [slice(None)] * 3
    index[across] = centre[across]
    cut = array[tuple(index)].T
    return cut if across == 2 else cut[::-1]


def _window(array):
    """The intensities that are black and white."""
    some = array[::2, ::2, ::2]
    inside = some[some > 0]
    return tuple(float(one) for one in np.percentile(inside, (1, 99.5))) if inside.size else (0.0, 1.0)


def _scaled(cut, low, high):
    return np.clip((cut - low) / max(high - low, 1e-6), 0, 1) * (cut > 0)


def _checkerboard(shape):
    rows, columns = (np.arange(size) * SQUARES // size for size in shape)
    return (rows[:, None] + columns[None]) % 2 == 0
