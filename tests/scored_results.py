"""What `evaluate` leaves in a folder of scores."""

import csv
import json

from brats_tf.evaluation.scores import METRICS
from brats_tf.evaluation.statistics import summarise
from brats_tf.runtime.files import sha256_of


def write_results(folder, scores, rule="brats", **said):
    """`cases.csv` with {case: (dice of WT, hd95)}, TC has 0.01 less and ET 0.02; `summary.json` says what is `said`."""
    folder.mkdir()
    with open(folder / "cases.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "region", *METRICS))
        for case, (dice, hd95_mm) in scores.items():
            for number, region in enumerate(("WT", "TC", "ET")):
                writer.writerow((case, region, dice - 0.01 * number, hd95_mm, *[0.5] * (len(METRICS) - 2)))
    figures = summarise([1.0])
    summary = {region: dict.fromkeys(METRICS, figures) for region in ("WT", "TC", "ET")} | {"cases": len(scores)}
    summary |= {"left_out": {}, "made_by": {}, "without_truth": [], "truth_sha256": dict.fromkeys(scores, "0")}
    summary |= {"empty_rule": rule, "cases_sha256": sha256_of(folder / "cases.csv")}
    (folder / "summary.json").write_text(json.dumps(summary | said))
    return folder
