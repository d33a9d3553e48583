"""One self-contained HTML file about a set of predictions: scores, pictures, slices to scroll through."""

import base64
import dataclasses
import json
import logging
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from brats_tf import __version__
from brats_tf.config.config import CONFIG_FILE, Config
from brats_tf.config.execution import ReportOptions
from brats_tf.config.settings import ClassifierSettings
from brats_tf.errors import InputError
from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.evaluation.results import TABLE_ORDER, check_origin, check_truth, read_scores, read_summary
from brats_tf.evaluation.scores import format_score
from brats_tf.inference.prediction_record import check_weights
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.report.blocks import Details, Image, Paragraph, Viewer, render_page
from brats_tf.report.sections import (
    case_section,
    contribution_section,
    distribution_section,
    left_out_section,
    paper_section,
    summary_section,
    training_section,
    uncertainty_section,
)
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic, sha256_of
from brats_tf.runtime.system import machine
from brats_tf.visualisation.overlays import save_overlay
from brats_tf.visualisation.sprite_sheet import SpriteSheet, make_sprite_sheet

log = logging.getLogger(__name__)
REPORT_FILE, PICTURES_FOLDER = "report.html", "pictures"
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "nibabel", "matplotlib")
CONTRIBUTION = "What the classifier contributes"
OVERLAYS = 2  # Of the worst cases, and of the best.


def write_report(cases, *, runs, predictions, results, options=None, convention=None):
    """Writes `<results>/report.html` about what `evaluate` wrote there, and its pictures into `<results>/pictures`.

    Args:
        cases: `Case`s with truth; those without scores are not shown.
        runs: the folders of the networks; a missing one is named as missing.
        predictions: the folder of label maps.
        results: the folder that `evaluate` wrote.
        options: `ReportOptions`.
        convention: of the labels in the predictions, a `regions.Convention`; None for that of each case.

    Returns:
        (the path of the page, {case id: sentence} of the cases that could not be shown).

    Raises:
        InputError: when there are no scores, or other networks made the predictions.
    """
    results, predictions = Path(results), Path(predictions)
    scored, summary = read_scores(results), read_summary(results)
    maps = LabelMaps(predictions, convention)
    record = maps.record
    if record:
        check_weights(record, runs, predictions)
    check_origin(summary["made_by"], maps, scored, results)
    check_truth(summary, [case for case in cases if case.id in scored], results)
    configs = {Path(run).name: Config.load(run) for run in runs if (Path(run) / CONFIG_FILE).is_file()}
    order = sorted(scored, key=lambda case: _mean_dice(scored[case]))
    known = {case.id: case for case in cases}
    viewer_cases = (options or ReportOptions()).viewer_cases
    chosen = _from_both_ends([case for case in order if case in known and known[case].volumes], viewer_cases)
    views, unshown = _views([known[case] for case in chosen], maps)
    pictures = results / PICTURES_FOLDER
    no_views = [Paragraph("There are no images of the scored cases to show.")]
    sections = {
        "Summary": summary_section(summary, scored),
        "Compared with the paper": paper_section(summary, configs),
        "Distributions": distribution_section(scored, pictures),
        "Slices": [Viewer(list(views)), *_about_sheets(views)] if views else no_views,
        "Worst and best cases": _worst_and_best(views, scored, pictures),
        "All cases": case_section(scored, order, record),
        "Uncertainty": uncertainty_section(summary, scored, record, pictures),
        **({CONTRIBUTION: contribution_section(results, summary, record)} if _has_planes(configs) else {}),
        "Training": training_section([Path(run) for run in runs], pictures),
        "Left out": left_out_section(summary, record, unshown, scored),
        "How it was made": _provenance(configs, record, [known[case] for case in order if case in known], maps),
    }
    sheets = {
        case: dataclasses.asdict(view.sheet) | {"png": base64.b64encode(view.sheet.png).decode()}
        for case, view in views.items()
    }
    title = f"{len(scored)} cases, networks {', '.join(configs) or 'unknown'}"
    html = render_page(title, f"brats_tf {__version__}, {predictions}", list(sections.items()), sheets)
    path = results / REPORT_FILE
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    log.info(f"Report written to {path} ({path.stat().st_size / 1e6:.1f} MB, self-contained).")
    return path, unshown


def _about_sheets(views):
    """What a reader of the slices should know where not every voxel is shown."""
    shown = [max(view.sheet.spacing_mm) for view in views.values() if view.sheet.spacing_mm != view.edges_mm]
    if not shown:
        return []
    size = f"voxels of up to {max(shown):.2g} mm, fewer than their files have"
    return [
        Paragraph(f"{len(shown)} of {len(views)} cases are shown at {size}. Each shows the rarest class in its place.")
    ]


def _has_planes(configs):
    """Whether any of the networks has planes that its classifier sees, or may have."""
    return not configs or any(isinstance(config.network, ClassifierSettings) for config in configs.values())


def _mean_dice(regions):
    """The mean over the regions that have a Dice; 1 where all are empty in truth and prediction."""
    found = [regions[region]["dice"] for region in TABLE_ORDER if not np.isnan(regions[region]["dice"])]
    return float(np.mean(found)) if found else 1.0


@dataclasses.dataclass(frozen=True)
class CaseView:
    """What is shown of a case: a volume (H, W, D) and two maps of classes, where an overlay needs them, and a sheet."""

    volume: np.ndarray | None
    truth: np.ndarray | None
    prediction: np.ndarray | None
    edges_mm: tuple
    sheet: SpriteSheet


def _views(cases, maps):
    """({case id: `CaseView`}, {case id: sentence} of what cannot be read). Only cases with an overlay keep volumes."""
    views, unshown = {}, {}
    large = {case.id for case in _from_both_ends(cases, 2 * OVERLAYS)}
    for case in track(cases, "Reading cases"):
        try:
            view = _view(case, maps)
        except InputError as error:
            log.info(f"Not shown: {error}")
            unshown[case.id] = str(error)
            continue
        views[case.id] = (
            view if case.id in large else dataclasses.replace(view, volume=None, truth=None, prediction=None)
        )
    return views, unshown


def _view(case, maps):
    modality = "flair" if "flair" in case.volumes else next(iter(case.volumes))
    prepared = prepare_case(case, modalities=(modality,), crop=None, with_truth=True)
    prediction = prepared.grid.to_crop(maps.read_classes(case)[0])
    volume, edges = prepared.volume[..., 0], prepared.grid.edges_mm
    sheet = make_sprite_sheet(volume, prepared.classes, prediction, edges)
    return CaseView(volume, prepared.classes, prediction, edges, sheet)


def _from_both_ends(order, count):
    """`count` entries from the beginning and the end of a list."""
    if len(order) <= count:
        return order
    first = order[: (count + 1) // 2]
    return [*first, *order[len(order) - (count - len(first)) :]]


def _worst_and_best(views, scored, folder):
    blocks = [Paragraph("By the mean Dice of ET, WT and TC, the worst first.")]
    for number, case in enumerate(case for case, view in views.items() if view.volume is not None):
        view = views[case]
        dice = ", ".join(f"{region} {format_score('dice', scored[case][region]['dice'])}" for region in TABLE_ORDER)
        path = folder / f"case_{number + 1}.png"
        rows = {"truth": view.truth, "prediction": view.prediction}
        title = f"{case}: Dice x 100 {dice}"
        save_overlay(path, view.volume, rows, title=title, errors=True, edges_mm=view.edges_mm)
        blocks.append(Image(path, f"{case}: truth, prediction and error in the slices through the tumour's centre"))
    return blocks


def _label_map(case, maps):
    """The file of a case's label map; none where it is gone."""
    try:
        return [maps.path(case.id)]
    except InputError:
        return []


def _provenance(configs, record, cases, maps):
    versions = {"brats_tf": __version__, "python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }
    files = [path for case in cases for path in (case.segmentation, *_label_map(case, maps))]
    facts = {
        "machine": machine(),
        "versions": versions,
        "weights_sha256": record.get("networks", "unknown: no prediction.json beside the predictions"),
        "postprocessing": record.get("postprocessing", "unknown"),
        "truth_and_predictions_sha256": sha256_of(*files) if files else None,
    }
    settings = [
        Details(f"Settings of {name}", json.dumps(config.to_dict(), indent=2)) for name, config in configs.items()
    ]
    return [Details("Versions and hashes", json.dumps(facts, indent=2), is_open=True), *settings]
