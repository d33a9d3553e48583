"""Sliding-window prediction: any network, any patch, any step, on volumes of any size (paper B, Section 2.5).

Windows run in batches; sums live on the host, in double precision and only for the box around the brain, so that the
device holds one batch of windows and its outputs, whatever the volume.
"""

import itertools

import numpy as np

from brats_tf.preprocessing.transforms import brain_box

GAUSSIAN_SIGMA = 1 / 8  # Of a window's edge, as in nnU-Net.
LOWEST_WEIGHT = 1e-3  # Of a window's corner: a voxel that only corners cover still has a value.
BATCH_VOXELS = 2**19  # Of a batch of windows: one of 128x128x24, or 32 slices of 128x128.


def slide(predict, volume, *, patch, step, outside, weighting="uniform", batch_size=None):
    """Predicts a volume window by window and averages where windows overlap: (H, W, D, C) -> (H, W, D, K), float32.

    Args:
        predict: a function (n, *patch, C) -> (n, *patch, K), float32.
        volume: float32, background 0.
        patch: the size of a window, (h, w, d).
        step: from one window to the next, (h, w, d), at most the patch. The last window of an axis ends with the brain.
        outside: (K,), what windows without any brain predict, for which the network is not asked, and what lies
            outside the brain's box.
        weighting: "uniform", or "gaussian": the middle of a window counts more than its rim.
        batch_size: windows at once; None for as many as make some hundred thousand voxels.

    Raises:
        ValueError: when a step is not between 1 and the patch.
    """
    if not all(1 <= one <= size for one, size in zip(step, patch, strict=True)):
        raise ValueError(f"`step` must be from 1 to the patch {tuple(patch)} in each axis. Received: {tuple(step)}.")
    outside = np.asarray(outside, dtype=np.float64)
    whole = np.empty((*volume.shape[:3], len(outside)), np.float32)
    whole[:] = outside
    box = brain_box(volume.any(axis=-1))
    if box is None:
        return whole
    inside = volume[box]
    padded = _pad(inside, patch)
    starts = [window_starts(length, size, one) for length, size, one in zip(padded.shape[:3], patch, step, strict=True)]
    axes = [window_weights(size, weighting) for size in patch]
    weight = _outer(axes)[..., None]
    sums = np.zeros((*padded.shape[:3], len(outside)))
    batch_size = batch_size or max(1, BATCH_VOXELS // int(np.prod(patch)))
    waiting = []
    for corner in itertools.product(*starts):
        where = tuple(slice(first, first + size) for first, size in zip(corner, patch, strict=True))
        if not padded[where].any():
            sums[where] += weight * outside
            continue
        waiting.append(where)
        if len(waiting) == batch_size:
            _add(sums, predict, padded, waiting, weight)
            waiting = []
    if waiting:
        _add(sums, predict, padded, waiting, weight)
    sums /= _outer(_totals(starts, axes, padded.shape[:3]))[..., None]
    whole[box] = sums[tuple(slice(0, size) for size in inside.shape[:3])]
    return whole


def window_starts(length, size, step):
    """Where windows begin on an axis, so that they cover all of it: a list of ints.

    >>> window_starts(240, 128, 32)
    [0, 32, 64, 96, 112]
    """
    return [*range(0, length - size, step), length - size]


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
