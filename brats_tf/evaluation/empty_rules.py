"""What a region scores where truth, prediction or both have no voxel of it."""

import math
from dataclasses import dataclass

WORST_MM = round(math.hypot(240, 240, 155), 2)  # 373.13: across a BraTS volume, its platform's HD95 of a missed region.


@dataclass(frozen=True)
class EmptyRule:
    """Scores of an empty region: shares (Dice and its like) and distances; one empty mask always shares 0."""

    sentence: str
    share_both: float
    mm_both: float
    mm_one: float


EMPTY_RULES = {
    "brats": EmptyRule(
        "a region empty in truth and prediction scores Dice 1 and HD95 0, empty in one of them Dice 0 and HD95 "
        f"{WORST_MM} mm (as the BraTS platform does)",
        share_both=1.0,
        mm_both=0.0,
        mm_one=WORST_MM,
    ),
    "nan": EmptyRule(
        "a region empty in truth and prediction has no score, empty in one of them Dice 0 and no distance",
        share_both=math.nan,
        mm_both=math.nan,
        mm_one=math.nan,
    ),
}
