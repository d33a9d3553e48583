"""Sliding-window inference: any network, window and stride, on volumes of any size (AlbuNet paper, Section 2.5).

Windows run in batches; sums live on the host, in double precision and only for the box around the brain, so that the
device holds one batch of windows and its outputs, whatever the volume.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from brats_tf.preprocessing.transforms import brain_box

GAUSSIAN_SIGMA = 1 / 8  # Of a window's edge, as in nnU-Net.
LOWEST_WEIGHT = 1e-3  # Of a window's edge, along one axis: a voxel that only corners cover still has a value.
BATCH_VOXELS = 2**19  # Of a batch of windows: one of 128x128x24, or 32 slices of 128x128.


@dataclass(frozen=True)
class Windows:
    """The windows that cover a volume.

    Attributes:
        size: of a window, (h, w, d) in voxels. stride: from one window to the next, (h, w, d), at most the size. The
        last window of an axis ends with the brain. weighting: "uniform", or "gaussian": the centre of a window counts
        more than its border. batch_size: windows at once; None for as many as make some hundred thousand voxels.
    """

    size: tuple
    stride: tuple
    weighting: str = "uniform"
    batch_size: int | None = None

    def __post_init__(self):
        if not all(1 <= stride <= size for stride, size in zip(self.stride, self.size, strict=True)):
            raise ValueError(
                f"The stride must be from 1 to the window {tuple(self.size)} in each axis. "
                f"Received: {tuple(self.stride)}."
            )

    @property
    def per_batch(self):
        """How many go through the network at once."""
        return self.batch_size or max(1, BATCH_VOXELS // int(np.prod(self.size)))


def sliding_window_inference(predict, volume, windows, *, outside):
    """Predicts a volume window by window and averages where windows overlap: (H, W, D, C) -> (H, W, D, K), float32.

    Args:
        predict: a function (n, *size, C) -> (n, *size, K), float32.
        volume: float32, background 0.
        windows: a `Windows`.
        outside: (K,), the prediction outside the brain's box and in windows without any brain, for which the network
            is not asked.
    """
    outside = np.asarray(outside, dtype=np.float64)
    whole = np.empty((*volume.shape[:3], len(outside)), np.float32)
    whole[:] = outside
    box = brain_box(volume.any(axis=-1))
    if box is None:
        return whole
    inside = volume[box]
    padded = _pad(inside, windows.size)
    sizes = padded.shape[:3]
    starts = [window_starts(*axis) for axis in zip(sizes, windows.size, windows.stride, strict=True)]
    axes = [window_weights(size, windows.weighting) for size in windows.size]
    weight = _outer(axes)[..., None]
    sums = np.zeros((*sizes, len(outside)))
    with_brain = []
    for corner in itertools.product(*starts):
        window = tuple(slice(first, first + size) for first, size in zip(corner, windows.size, strict=True))
        if padded[window].any():
            with_brain.append(window)
        else:
            sums[window] += weight * outside
    for first in range(0, len(with_brain), windows.per_batch):
        _add(sums, predict, padded, with_brain[first : first + windows.per_batch], weight)
    sums /= _outer(_totals(starts, axes, sizes))[..., None]
    whole[box] = sums[tuple(slice(0, size) for size in inside.shape[:3])]
    return whole


def window_starts(length, size, stride):
    """Where windows begin on an axis, so that they cover all of it: a list of ints.

    >>> window_starts(240, 128, 32)
    [0, 32, 64, 96, 112]
    """
    return [*range(0, length - size, stride), length - size]


def window_weights(size, weighting):
    """How much each place of a window counts along one axis: (size,), float64."""
    if weighting == "uniform":
        return np.ones(size)
    place = np.arange(size) - (size - 1) / 2
    return np.maximum(np.exp(-0.5 * (place / (size * GAUSSIAN_SIGMA)) ** 2), LOWEST_WEIGHT)


def _add(sums, predict, volume, windows, weight):
    predicted = predict(np.stack([volume[where] for where in windows]))
    for where, one in zip(windows, predicted, strict=True):
        sums[where] += weight * one


def _pad(volume, patch):
    """Adds background behind each axis that is shorter than the patch."""
    missing = [(0, max(0, size - length)) for length, size in zip(volume.shape[:3], patch, strict=True)]
    return np.pad(volume, [*missing, (0, 0)]) if any(after for _, after in missing) else volume


def _totals(starts, axes, shape):
    """The sum of all windows' weights along each axis."""
    totals = [np.zeros(length) for length in shape]
    for total, firsts, weights in zip(totals, starts, axes, strict=True):
        for first in firsts:
            total[first : first + len(weights)] += weights
    return totals


def _outer(axes):
    h, w, d = axes
    return h[:, None, None] * w[None, :, None] * d[None, None, :]
