"""What is scored of a region: the columns of `cases.csv`, in order, and which of them are better when larger."""

import math
from dataclasses import dataclass

import numpy as np

from brats_tf.evaluation.lesionwise import lesion_wise
from brats_tf.evaluation.metrics import (
    EMPTY_MASK_RULES,
    TOLERANCE_MM,
    dice,
    hausdorff95_from_distances,
    normalised_surface_dice,
    sensitivity,
    specificity,
    surface_distances,
)


@dataclass(frozen=True)
class Metric:
    """One column: how people read it, whether more is better (None: neither), decimals, and a factor to show it by."""

    title: str
    better: str | None
    decimals: int = 2
    shown_by: float = 1.0


METRICS = {
    "dice": Metric("Dice x 100", "larger", shown_by=100),
    "hd95_mm": Metric("HD95, mm", "smaller"),
    "sensitivity": Metric("sensitivity x 100", "larger", shown_by=100),
    "specificity": Metric("specificity x 100", "larger", shown_by=100),
    "nsd": Metric(f"surface within {TOLERANCE_MM:g} mm, x 100", "larger", shown_by=100),
    "lesion_dice": Metric("lesion-wise Dice x 100", "larger", shown_by=100),
    "lesion_hd95_mm": Metric("lesion-wise HD95, mm", "smaller"),
    "lesions_found": Metric("lesions found", None, 1),
    "lesions_missed": Metric("lesions missed", "smaller", 1),
    "lesions_false": Metric("false lesions", "smaller", 1),
    "truth_ml": Metric("truth, ml", None, 1),
    "prediction_ml": Metric("prediction, ml", None, 1),
    "volume_error_ml": Metric("volume error, ml", None, 1),
}


def score_region(truth, prediction, spacing_mm, empty="brats", *, voxels=None):
    """All `METRICS` of two masks (X, Y, Z), bool: {column: float}.

    Args:
        spacing_mm: the edges of a voxel along the three axes.
        empty: what an empty region scores, a key of `metrics.EMPTY_MASK_RULES`.
        voxels: the size of the whole volume where the masks are cut out of it, with `lesionwise.DILATION` around them.
    """
    rule = EMPTY_MASK_RULES[empty]
    distances = surface_distances(truth, prediction, spacing_mm)
    hd95_mm = hausdorff95_from_distances(distances, rule)
    lesions = lesion_wise(truth, prediction, spacing_mm, empty, hd95_mm=hd95_mm)
    truth_ml, prediction_ml = (np.count_nonzero(mask) * np.prod(spacing_mm) / 1000 for mask in (truth, prediction))
    values = (
        dice(truth, prediction, empty),
        hd95_mm,
        sensitivity(truth, prediction, empty),
        specificity(truth, prediction, voxels=voxels),
        normalised_surface_dice(distances, rule),
        lesions.dice,
        lesions.hd95_mm,
        lesions.found,
        lesions.missed,
        lesions.false,
        truth_ml,
        prediction_ml,
        prediction_ml - truth_ml,
    )
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}


def format_score(metric, value):
    """A score as people read it: times 100 or in mm, with its column's decimals; a dash where there is none."""
    scale = METRICS[metric]
    return "–" if value is None or math.isnan(value) else f"{scale.shown_by * value:.{scale.decimals}f}"
