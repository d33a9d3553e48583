"""The sections of the report that are made of numbers: blocks from what `evaluate` and `predict` wrote."""

import json
import math
from pathlib import Path

import numpy as np

from brats_tf.data.layouts import stem
from brats_tf.evaluation.contribution import read_contribution
from brats_tf.evaluation.metrics import EMPTY_MASK_RULES
from brats_tf.evaluation.results import TABLE_ORDER, TOO_GOOD
from brats_tf.evaluation.scores import METRICS, format_score
from brats_tf.evaluation.statistics import format_correlation
from brats_tf.inference.ensemble_prediction import POSSIBLE_PROBABILITY
from brats_tf.inference.prediction_record import origin_of, uncertainties
from brats_tf.report.blocks import Image, Paragraph, Table
from brats_tf.runs.files import HISTORY_FILE, VALIDATION_FILE
from brats_tf.runs.history import read_history, read_validation
from brats_tf.visualisation.plots import save_bands, save_boxes, save_curves, save_scatter

SUMMARY_METRICS = (
    "dice",
    "hd95_mm",
    "sensitivity",
    "specificity",
    "nsd",
    "lesion_dice",
    "lesion_hd95_mm",
    "volume_error_ml",
)
CASE_METRICS = ("dice", "hd95_mm", "sensitivity", "specificity")
PUBLISHED_RESULTS = Path(__file__).parent / "published_results.json"
PAPER_TITLES = {
    "embedding": "Embedding paper (Messaoudi, Belaid et al.)",
    "albunet": "AlbuNet paper (Wacker, Ladeira, Nascimento)",
}


def summary_section(summary, scored):
    """Mean, interval and quartiles of every region and score."""
    rows = []
    for metric in SUMMARY_METRICS:
        for region in TABLE_ORDER:
            figures = summary[region][metric]
            low, high = (format_score(metric, figures[name]) for name in ("low", "high"))
            interval = "–" if figures["low"] is None else f"{low} to {high}"
            spread = [format_score(metric, figures[name]) for name in ("std", "quartile1", "median", "quartile3")]
            title = f"{METRICS[metric].title}, {region}"
            rows.append((title, format_score(metric, figures["mean"]), interval, *spread, figures["n"]))
    left_out = summary["left_out"]
    warnings = [
        Paragraph(f"{len(summary[name])} of these cases {did} that predicted them; scores are too good.")
        for name, did in TOO_GOOD.items()
        if name in summary
    ]
    listed = f", {len(left_out)} left out ({', '.join(left_out)})" if left_out else ""
    return [
        *warnings,
        Paragraph(
            f"{len(scored)} cases{listed}. Empty regions: {EMPTY_MASK_RULES[summary['empty_rule']].sentence}.", "note"
        ),
        Table(("", "mean", "95 % interval", "std", "1st quartile", "median", "3rd quartile", "n"), rows),
        Paragraph(
            "Intervals of the mean by bootstrap over cases. HD95 as MedPy defines it; lesion-wise scores as in BraTS "
            "2023. Standard deviations divide by n."
        ),
    ]


def paper_section(summary, configs):
    """The rows of the paper that describes these networks, and ours below."""
    paper = next((config.network.paper for config in configs.values()), "embedding")
    published = json.loads(PUBLISHED_RESULTS.read_text())[paper]
    metrics = ("dice", "hd95_mm") if "hd95_mm" in next(iter(published.values()))["WT"] else ("dice",)
    rows = []
    for title, figures in (published | {"these predictions": summary}).items():
        for metric in metrics:
            cells = [_mean_and_median(metric, figures[region][metric]) for region in TABLE_ORDER]
            rows.append((f"{title}: {METRICS[metric].title}", *cells))
    text = (
        f"{PAPER_TITLES[paper]}: mean (median). The paper's rows are of BraTS 2020, scored by its online platform, "
        "whose Hausdorff distance is the 95th percentile."
    )
    if summary["empty_rule"] != "brats":
        text += f" Unlike there, of these predictions: {EMPTY_MASK_RULES[summary['empty_rule']].sentence}."
    return [Paragraph(text), Table(("", *TABLE_ORDER), rows)]


def distribution_section(scored, folder):
    """Boxes of Dice and HD95; draws into `folder`."""
    images = []
    for metric in ("dice", "hd95_mm"):
        values = {region: _values(scored, region, metric) for region in TABLE_ORDER}
        if not any(scores.size for scores in values.values()):
            continue
        path = folder / f"distribution_{metric}.png"
        title = METRICS[metric].title.removesuffix(" x 100")
        save_boxes(path, values, title=title, y_label="Dice" if metric == "dice" else "mm")
        images.append(Image(path, f"{title}: quartiles and median; each dot is a case"))
    return images


def case_section(scored, order, record):
    """A sortable table, the case with the lowest Dice first."""
    uncertainty = uncertainties(record)
    head = ["case", *(f"{METRICS[metric].title} {region}" for metric in CASE_METRICS for region in TABLE_ORDER)]
    rows = []
    for case in order:
        scores = [(metric, scored[case][region][metric]) for metric in CASE_METRICS for region in TABLE_ORDER]
        cells = [(format_score(metric, value), _sortable(value)) for metric, value in scores]
        if uncertainty:
            known = uncertainty.get(case)
            cells.append((f"{known['WT']:.3f}", known["WT"]) if known else ("", ""))
        rows.append((case, *cells))
    columns = [*head, "uncertainty WT"] if uncertainty else head
    return [Paragraph("Click a column's name to sort."), Table(columns, rows, sortable=True)]


def uncertainty_section(summary, scored, record, folder):
    """How the networks' uncertainty relates to Dice; draws into `folder`."""
    if not (summary.get("uncertainty") and record):
        return [Paragraph("A single network, or predictions without a record: there is nothing to compare.")]
    known = uncertainties(record)
    shared = [case for case in scored if case in known]
    panels = {
        region: ([known[case][region] for case in shared], [scored[case][region]["dice"] for case in shared])
        for region in TABLE_ORDER
    }
    path = folder / "uncertainty.png"
    save_scatter(path, panels, title="Uncertainty of the networks and Dice", x_label="uncertainty", y_label="Dice")
    correlations = "; ".join(
        f"{region} {'–' if found['spearman'] is None else format_correlation(found)}"
        for region, found in summary["uncertainty"].items()
    )
    text = (
        "Standard deviation of the networks' probabilities, averaged where the region is possible (average above "
        f"{POSSIBLE_PROBABILITY:g}). Rank correlation (Spearman) with Dice: {correlations}."
    )
    return [Paragraph(text), Image(path, "Each dot is a case")]


def training_section(runs, folder):
    """Loss and Dice of each run, and its validation where there was one; draws into `folder`."""
    blocks = []
    for run in runs:
        if not (run / HISTORY_FILE).is_file():
            blocks.append(Paragraph(f"{run}: no {HISTORY_FILE}."))
            continue
        path = folder / f"training_{run.name}.png"
        save_curves(path, read_history(run), title=f"{run.name}: training", x_label="epoch")
        blocks.append(Image(path, f"{run.name}: loss and Dice of the training cases after each epoch"))
        if (run / VALIDATION_FILE).is_file():
            blocks.append(_validation(run, folder))
    return blocks or [Paragraph("No run was named.")]


def contribution_section(results, summary, record):
    """Dice with and without what the classifier sees."""
    found = read_contribution(results)
    if found is None:
        return [Paragraph("Not measured: `brats-tf evaluate --blind-classifier` measures it.")]
    origin = origin_of(record, found["cases"])
    if record and (found["made_by"], found["empty_rule"]) != (origin, summary["empty_rule"]):
        return [Paragraph("Measured for other predictions: run `brats-tf evaluate --blind-classifier` again.")]
    rows = []
    for region in TABLE_ORDER:
        figures = found[region]
        cells = [_with_interval(figures[name]) for name in ("normal", "blinded", "difference")]
        rows.append((region, *cells, f"{figures['p']:.3g}", figures["normal"]["n"]))
    text = (
        "Mean Dice x 100 with 95 % intervals. Blinded: each plane from the 3D encoder is replaced by its mean, so that "
        f"the ImageNet classifier sees nothing of the case. p: Wilcoxon's signed-rank test. Empty regions: "
        f"{EMPTY_MASK_RULES[found['empty_rule']].sentence}."
    )
    return [Paragraph(text), Table(("", "normal", "blinded", "difference", "p", "n"), rows)]


def left_out_section(summary, record, unshown, scored):
    """Cases without prediction, without score or, {case id: sentence}, without pictures, and why."""
    without = dict.fromkeys(map(stem, summary["without_truth"]), "Its label map has no truth.")
    parts = [record.get("left_out", {}), summary["left_out"], without, unshown]
    later = record.get("cases", {}).keys() - scored - {case for part in parts for case in part}
    parts.append(dict.fromkeys(sorted(later), "It was predicted after the evaluation: run `brats-tf evaluate` again."))
    reasons = {}
    for case, reason in (item for part in parts for item in part.items()):
        if reason not in reasons.setdefault(case, reason):
            reasons[case] += f" {reason}"
    rows = list(reasons.items())
    return [Table(("case", "reason"), rows) if rows else Paragraph("No case was left out.")]


def _validation(run, folder):
    curves = {
        region: {
            "epochs": list(scores),
            "mean": [float(np.mean(dice)) for dice in scores.values()],
            "std": [float(np.std(dice)) for dice in scores.values()],
        }
        for region, scores in read_validation(run).items()
    }
    path = folder / f"validation_{run.name}.png"
    save_bands(path, {run.name: curves}, panels=TABLE_ORDER, title=f"{run.name}: validation")
    return Image(path, f"{run.name}: Dice of the validation cases, mean and standard deviation over the cases")


def _mean_and_median(metric, figures):
    return f"{format_score(metric, figures['mean'])} ({format_score(metric, figures['median'])})"


def _with_interval(figures):
    mean, low, high = (format_score("dice", figures[name]) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})" if figures["low"] is not None else mean


def _values(scored, region, metric):
    values = np.array([regions[region][metric] for regions in scored.values()])
    return values[~np.isnan(values)]


def _sortable(value):
    return "" if math.isnan(value) else f"{value:.6g}"
