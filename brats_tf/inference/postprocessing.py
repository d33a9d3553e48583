"""Steps on a predicted label map after the networks: none in the papers, each asked for by name and written down."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from brats_tf.errors import InputError
from brats_tf.evaluation.metrics import dice
from brats_tf.regions import CLASSES
from brats_tf.runtime.files import write_json

FILE, TUNED = "postprocessing.json", "drop_et_below_ml"
_CONNECTED = np.ones((3, 3, 3), bool)  # 26 neighbours, as in the lesion-wise scores.
NECROSIS, ENHANCING = CLASSES.index("necrosis"), CLASSES.index("enhancing")
# Of enhancing tumour below which it is taken for necrosis; 0 drops nothing.
THRESHOLDS_ML = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class Steps:
    """What is done to a label map, in this order; the defaults do nothing."""

    # Connected parts of the whole tumour (26 neighbours) smaller than this become background.
    remove_below_ml: float = 0.0
    # Background that the whole tumour encloses (6 neighbours) becomes edema.
    fill_holes: bool = False
    # Enhancing tumour of less volume than this, all together, becomes necrosis: it stays in the tumour core.
    drop_et_below_ml: float = 0.0

    def __post_init__(self):
        for name in ("remove_below_ml", "drop_et_below_ml"):
            if not 0 <= getattr(self, name) < 1e4:
                raise InputError(f"`{name}` must be from 0 to 10000 ml. Received: {getattr(self, name)}.")

    def __bool__(self):
        return self != Steps()


def postprocess(classes, spacing_mm, steps):
    """Applies `Steps`: classes (X, Y, Z), uint8, of voxels with the edges `spacing_mm` -> the same shape and type."""
    classes = classes.copy()
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    if steps.remove_below_ml:
        parts, _ = ndimage.label(classes > 0, structure=_CONNECTED)
        small = np.bincount(parts.ravel()) * voxel_ml < steps.remove_below_ml
        classes[small[parts]] = 0
    if steps.fill_holes:
        inside = ndimage.binary_fill_holes(classes > 0) & (classes == 0)
        classes[inside] = CLASSES.index("edema")
    if steps.drop_et_below_ml:
        enhancing = classes == ENHANCING
        if np.count_nonzero(enhancing) * voxel_ml < steps.drop_et_below_ml:
            classes[enhancing] = NECROSIS
    return classes


def tune_et_threshold(pairs):
    """The volume of ET below which dropping it scores best.

    Args:
        pairs: an iterable of (truth ET, predicted ET, spacing_mm), masks (X, Y, Z) bool, one for each case.

    Returns:
        {"drop_et_below_ml", "cases", "mean_dice": {threshold: mean ET Dice}}: of equal means the least threshold wins.
    """
    scores = []
    for truth, prediction, spacing_mm in pairs:
        volume_ml = np.count_nonzero(prediction) * float(np.prod(spacing_mm)) / 1000
        kept, dropped = dice(truth, prediction), dice(truth, np.zeros_like(prediction))
        scores.append([dropped if volume_ml < threshold else kept for threshold in THRESHOLDS_ML])
    means = np.mean(scores, axis=0)
    return {
        "drop_et_below_ml": THRESHOLDS_ML[int(np.argmax(means))],
        "cases": len(scores),
        "mean_dice": {f"{threshold:g}": float(mean) for threshold, mean in zip(THRESHOLDS_ML, means, strict=True)},
    }


def save_tuned(tuned, runs, steps):
    """Writes a tuned threshold into each run's folder, with the networks and the other steps that it belongs to."""
    others = {name: steps.get(name, default) for name, default in asdict(Steps()).items() if name != TUNED}
    for run in runs:
        write_json(Path(run) / FILE, tuned | {"networks": sorted(Path(one).name for one in runs), "steps": others})


def with_tuned(steps, runs):
    """`Steps` with the threshold that was tuned for an ensemble.

    Raises:
        InputError: when a run has none, or one that was tuned for other networks or after other steps.
    """
    networks = sorted(Path(one).name for one in runs)
    for run in runs:
        path = Path(run) / FILE
        try:
            tuned = json.loads(path.read_text())
            its, threshold, others = sorted(tuned["networks"]), float(tuned[TUNED]), dict(tuned["steps"])
        except FileNotFoundError:
            raise InputError(f"{path} is missing; `brats-tf tune` writes it.") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} must hold `networks`, `steps` and `{TUNED}`: {error!r}.") from None
        if its != networks:
            raise InputError(f"{path} was tuned for the networks {', '.join(its)}. Received: {', '.join(networks)}.")
        received = {name: value for name, value in asdict(steps).items() if name != TUNED}
        if others != received:
            raise InputError(f"{path} was tuned after the steps {others}. Received: {received}.")
    return replace(steps, **{TUNED: threshold})
