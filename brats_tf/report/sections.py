"""The sections of the report that are made of numbers: HTML from what `evaluate` and `predict` wrote."""

import json
import math
from pathlib import Path

import numpy as np

from brats_tf.evaluation.empty_rules import EMPTY_RULES
from brats_tf.evaluation.evaluate import TABLE_ORDER
from brats_tf.evaluation.scores import METRICS, shown
from brats_tf.inference.prediction_record import disagreements
from brats_tf.report.html import image, paragraph, table
from brats_tf.runs.history import HISTORY_FILE, VALIDATION_FILE, read_history, read_validation
from brats_tf.visualisation.overlays import save_bands, save_boxes, save_curves, save_scatter

SHOWN = ("dice", "hd95_mm", "sensitivity", "specificity", "nsd", "lesion_dice", "lesion_hd95_mm", "volume_error_ml")
PER_CASE = ("dice", "hd95_mm", "sensitivity", "specificity")
PAPERS = Path(__file__).parent / "published_results.json"


def summary_section(summary, scored):
    """Mean, interval and quartiles of every region and score."""
    rows = []
    for metric in SHOWN:
        for region in TABLE_ORDER:
            its = summary[region][metric]
            interval = "–" if its["low"] is None else f"{shown(metric, its['low'])} to {shown(metric, its['high'])}"
            figures = (shown(metric, its[name]) for name in ("std", "quartile1", "median", "quartile3"))
            rows.append(
                (f"{METRICS[metric].title}, {region}", shown(metric, its["mean"]), interval, *figures, its["n"])
            )
    left_out = (
        f", {len(summary['left_out'])} left out ({', '.join(summary['left_out'])})" if summary["left_out"] else ""
    )
    return (
        paragraph(
            f"{len(scored)} cases{left_out}. Empty regions: {EMPTY_RULES[summary['empty_rule']].sentence}.", kind="note"
        )
        + table(("", "mean", "95 % interval", "std", "1st quartile", "median", "3rd quartile", "n"), rows)
        + paragraph(
            "Intervals of the mean by bootstrap over cases. HD95 as MedPy defines it; lesion-wise scores as in BraTS "
            "2023. Std is that of the population."
        )
    )


def paper_section(summary, configs):
    """The rows of the paper whose networks these are, and ours below."""
    paper = "B" if any(config.network == "albunet" for config in configs.values()) else "A"
    rows = []
    everything = json.loads(PAPERS.read_text())[paper] | {"these predictions": summary}
    metrics = ("dice", "hd95_mm") if paper == "B" else ("dice",)
    for title, its in everything.items():
        for metric in metrics:
            cells = [_mean_median(metric, its[region][metric]) for region in TABLE_ORDER]
            rows.append((f"{title}: {METRICS[metric].title}", *cells))
    return paragraph(
        f"Paper {paper}: mean (median). The paper's rows are of BraTS 2020, by its online platform."
    ) + table(("", *TABLE_ORDER), rows)


def _mean_median(metric, figures):
    return f"{shown(metric, figures['mean'])} ({shown(metric, figures['median'])})"


def distribution_section(scored, folder):
    """Boxes of Dice and HD95; draws into `folder`."""
    parts = []
    for metric in ("dice", "hd95_mm"):
        values = {region: _values(scored, region, metric) for region in TABLE_ORDER}
        if not any(its.size for its in values.values()):
            continue
        path = folder / f"distribution_{metric}.png"
        unit = "Dice" if metric == "dice" else "mm"
        save_boxes(path, values, title=METRICS[metric].title.removesuffix(" x 100"), y_label=unit)
        parts.append(
            image(path, f"{METRICS[metric].title.removesuffix(' x 100')}: quartiles, median, every case a dot")
        )
    return "".join(parts)


def case_section(scored, order, record):
    """A table to sort, the case with the lowest Dice first."""
    disagreement = disagreements(record)
    head = ["case", *(f"{METRICS[metric].title} {region}" for metric in PER_CASE for region in TABLE_ORDER)]
    more = bool(disagreement)
    rows = []
    for case in order:
        cells = [(shown(metric, value), _sortable(value)) for metric in PER_CASE for value in _of(scored[case], metric)]
        if more:
            its = disagreement.get(case)
            cells.append((f"{its['WT']:.3f}", its["WT"]) if its else ("", ""))
        rows.append((case, *cells))
    return paragraph("A click on a column's name sorts.") + table(
        [*head, "disagreement WT"] if more else head, rows, sortable=True
    )


def _of(regions, metric):
    return [regions[region][metric] for region in TABLE_ORDER]


def disagreement_section(summary, scored, record, folder):
    """How the networks' disagreement goes with Dice; draws into `folder`."""
    if not (summary.get("disagreement") and record):
        return paragraph("One network, or predictions without a record: there is nothing to compare.")
    told = disagreements(record)
    both = [case for case in scored if case in told]
    panels = {
        region: ([told[case][region] for case in both], [scored[case][region]["dice"] for case in both])
        for region in TABLE_ORDER
    }
    path = folder / "disagreement.png"
    save_scatter(path, panels, title="Disagreement of the networks and Dice", x_label="disagreement", y_label="Dice")
    said = "; ".join(
        f"{region} {its['spearman']:.2f} (p {its['p']:.2g}, n {its['n']})"
        if its["spearman"] is not None
        else f"{region} –"
        for region, its in summary["disagreement"].items()
    )
    return paragraph(
        "Standard deviation of the networks' probabilities, averaged where the region is possible (average above "
        f"0.05). Rank correlation (Spearman) with Dice: {said}."
    ) + image(path, "Each dot is a case")


def training_section(runs, folder):
    """Loss and Dice of each run, and its validation where there was one; draws into `folder`."""
    parts = []
    for run in runs:
        if not (run / HISTORY_FILE).is_file():
            parts.append(paragraph(f"{run}: no {HISTORY_FILE}."))
            continue
        path = folder / f"training_{run.name}.png"
        save_curves(path, read_history(run), title=f"{run.name}: training", x_label="epoch")
        parts.append(image(path, f"{run.name}: loss and Dice of the training cases after each epoch"))
        if (run / VALIDATION_FILE).is_file():
            parts.append(_validation(run, folder))
    return "".join(parts) or paragraph("No run was named.")


def _validation(run, folder):
    curves = {
        region: {
            "epochs": list(its),
            "mean": [float(np.mean(dice)) for dice in its.values()],
            "std": [float(np.std(dice)) for dice in its.values()],
        }
        for region, its in read_validation(run).items()
    }
    path = folder / f"validation_{run.name}.png"
    save_bands(path, {run.name: curves}, panels=TABLE_ORDER, title=f"{run.name}: validation")
    return image(path, f"{run.name}: Dice of whole validation cases, mean and deviation over the cases")


def left_out_section(summary, record):
    """Cases without prediction or without score, and why."""
    said = [(case, sentence) for part in (record, summary) for case, sentence in part.get("left_out", {}).items()]
    return table(("case", "why"), said) if said else paragraph("No case was left out.")


def _values(scored, region, metric):
    values = np.array([regions[region][metric] for regions in scored.values()])
    return values[~np.isnan(values)]


def _sortable(value):
    return "" if math.isnan(value) else f"{value:.6g}"
