"""One case as one image that a page can scroll through: all axial slices, with truth and prediction inside."""

import io
import math
from dataclasses import dataclass

import matplotlib.image
import numpy as np

from brats_tf.preprocessing.transforms import brain_box
from brats_tf.visualisation.overlays import centre_of_tumour

MAX_VOXELS = 1_200_000  # Of a sprite sheet; of a larger brain, voxels are left out.
CLASSES_IN_ALL = 4  # The background, and those of `regions.CLASSES`.
CLASS_LEVELS = 60  # A class as brightness: 0, 60, 120, 180, far enough apart for any decoder.


@dataclass(frozen=True)
class SpriteSheet:
    """A PNG of D slices (H, W) in rows of `columns`: red the image, green the truth, blue the prediction x 60."""

    png: bytes
    shape: tuple  # (H, W, D) of what is shown.
    columns: int
    spacing_mm: tuple  # Between the voxels shown.
    start: tuple  # The tumour's middle (h, w, d), where one wants to begin to look.


def make_sprite_sheet(volume, truth, prediction, spacing_mm):
    """Packs a volume (H, W, D) and two maps of classes (H, W, D) into a `SpriteSheet`, cut to what is not empty.

    Where voxels of the volume are left out, a voxel of the sheet has the rarest of the classes in its place, so that
    none that decides a score goes unseen.
    """
    box = brain_box((volume != 0) | (truth != 0) | (prediction != 0)) or tuple(slice(0, size) for size in volume.shape)
    sizes = [part.stop - part.start for part in box]
    share = min(1, (MAX_VOXELS / math.prod(sizes)) ** (1 / 3))
    kept = [
        part.start + np.floor((np.arange(max(1, int(size * share))) + 0.5) / share).astype(int).clip(0, size - 1)
        for part, size in zip(box, sizes, strict=True)
    ]
    image = volume[np.ix_(*kept)]
    truth, prediction = (_rarest(whole[box], image.shape, share) for whole in (truth, prediction))
    inside = image[image != 0]
    low, high = np.percentile(inside, (1, 99.5)) if inside.size else (0, 1)
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 254 + 1
    grey[image == 0] = 0
    packed = np.stack([grey.round(), truth * CLASS_LEVELS, prediction * CLASS_LEVELS], axis=-1).astype(np.uint8)
    height, width, depth = image.shape
    seen = truth if truth.any() else prediction
    start = tuple(centre_of_tumour(seen)) if seen.any() else tuple(size // 2 for size in image.shape)
    columns = math.ceil(math.sqrt(depth * height / width))
    rows = math.ceil(depth / columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for d in range(depth):
        top, left = d // columns * height, d % columns * width
        sheet[top : top + height, left : left + width] = packed[:, :, d]
    file = io.BytesIO()
    matplotlib.image.imsave(file, sheet, format="png", pil_kwargs={"optimize": True})
    return SpriteSheet(file.getvalue(), image.shape, columns, tuple(float(edge / share) for edge in spacing_mm), start)


def _rarest(classes, shape, share):
    """Classes on `share` of the voxels along each axis: in each place the rarest class there but the background."""
    if classes.shape == shape:
        return classes
    inside = np.argwhere(classes)
    found = classes[tuple(inside.T)]
    counts = np.bincount(found, minlength=CLASSES_IN_ALL)
    order = np.argsort(-counts, kind="stable")  # The rarest is written last.
    small = np.zeros(shape, classes.dtype)
    places = np.minimum(((inside + 0.5) * share).astype(int), np.array(shape) - 1)
    for number in order[counts[order] > 0]:
        small[tuple(places[found == number].T)] = number
    return small
