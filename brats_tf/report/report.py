"""One HTML file about a set of predictions, which opens without network: numbers, pictures, slices to scroll."""

import base64
import dataclasses
import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from brats_tf import __version__
from brats_tf.config.settings import WEIGHTS_FILE, Config
from brats_tf.data import volumes
from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import TABLE_ORDER, read_scores, read_summary
from brats_tf.evaluation.scores import shown
from brats_tf.inference.prediction_record import read_record
from brats_tf.preprocessing.preprocess import prepare_case, read_classes
from brats_tf.report import html as page_parts
from brats_tf.report.html import folded, image, paragraph
from brats_tf.report.sections import (
    case_section,
    disagreement_section,
    distribution_section,
    left_out_section,
    paper_section,
    summary_section,
    training_section,
)
from brats_tf.runtime.console import say, track
from brats_tf.runtime.files import atomic, sha256_of
from brats_tf.runtime.system import machine
from brats_tf.visualisation.overlays import SAFE, save_overlay
from brats_tf.visualisation.sprite_sheet import make_atlas

FILE, PICTURES = "report.html", "pictures"
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "nibabel", "matplotlib")
OVERLAYS = 2  # Of the worst cases, and of the best.


def write_report(cases, *, runs, predictions, results, slices=8):
    """Writes `<results>/report.html` about what `evaluate` wrote there, and its pictures into `<results>/pictures`.

    Args:
        cases: `Case`s with truth; those without scores are not shown.
        runs: the folders of the networks; one that is not there is said to be missing.
        predictions: the folder of label maps.
        results: the folder that `evaluate` wrote.
        slices: how many cases can be scrolled through, from the worst and the best; each takes about a megabyte.

    Returns:
        The path of the page.

    Raises:
        InputError: when there are no scores.
    """
    results, predictions = Path(results), Path(predictions)
    scored = read_scores(results)
    summary = read_summary(results)
    record = read_record(predictions)
    _check_networks(runs, record, predictions)
    configs = {Path(run).name: Config.load(run) for run in runs if (Path(run) / "config.json").is_file()}
    order = sorted(scored, key=lambda case: np.nanmean([scored[case][region]["dice"] for region in TABLE_ORDER]))
    known = {case.id: case for case in cases}
    chosen = _ends([case for case in order if case in known], slices)
    looks = {case: _look(known[case], predictions) for case in track(chosen, "Reading cases")}
    pictures = results / PICTURES
    sections = {
        "Summary": summary_section(summary, scored),
        "Beside the paper": paper_section(summary, configs),
        "Distributions": distribution_section(scored, pictures),
        "Slices": page_parts.viewer(looks) if looks else paragraph("None of the scored cases was found in the data."),
        "Worst and best cases": _worst_and_best(looks, scored, pictures),
        "Every case": case_section(scored, order, record),
        "Networks' disagreement": disagreement_section(summary, scored, record, pictures),
        "Training": training_section([Path(run) for run in runs], pictures),
        "Left out": left_out_section(summary, record),
        "How it was made": _how(configs, record, [known[case] for case in order if case in known], predictions),
    }
    atlases = {
        case: dataclasses.asdict(look.atlas) | {"png": base64.b64encode(look.atlas.png).decode()}
        for case, look in looks.items()
    }
    title = f"{len(scored)} cases, networks {', '.join(configs) or 'unknown'}"
    html = page_parts.page(title, f"brats_tf {__version__}, {predictions}", sections, atlases)
    path = results / FILE
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    say(f"Look at {path}, {path.stat().st_size / 1e6:.1f} MB; it opens in any browser, without network.")
    return path


def _check_networks(runs, record, predictions):
    """Raises `InputError` when the predictions are told to be of other networks than those of `runs`."""
    names = [Path(run).name for run in runs]
    if record and set(names) != set(record["networks"]):
        raise InputError(
            f"{predictions} was predicted by {', '.join(record['networks'])}; say so with --networks and --runs. "
            f"Received: {', '.join(names)}."
        )
    for run in runs:
        weights = Path(run) / WEIGHTS_FILE
        if record and weights.is_file() and sha256_of(weights) != record["networks"][Path(run).name]:
            raise InputError(f"{predictions} was predicted with other weights than those of {run}. Predict again.")


@dataclasses.dataclass(frozen=True)
class Look:
    """What is shown of a case: a volume (H, W, D), two maps of classes, and all of it as an `Atlas`."""

    volume: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    atlas: object


def _look(case, predictions):
    modality = "flair" if "flair" in case.volumes else next(iter(case.volumes))
    prepared = prepare_case(case, modalities=(modality,), crop=None, with_truth=True)
    labels = volumes.read_segmentation(predictions / f"{case.id}.nii.gz", case_id=case.id)
    prediction = prepared.grid.there(read_classes(labels, case))
    volume = prepared.volume[..., 0]
    spacing_mm = _edges(prepared)
    return Look(volume, prepared.classes, prediction, make_atlas(volume, prepared.classes, prediction, spacing_mm))


def _edges(prepared):
    """The edges of a voxel along H, W, D, in mm, from those along the file's axes."""
    edges = volumes.spacing_mm(prepared.reference.affine)
    along = {"A": 0, "P": 0, "L": 1, "R": 1, "S": 2, "I": 2}
    codes = volumes.axis_codes(prepared.reference.affine)
    return tuple(edge for _, edge in sorted(zip((along[code] for code in codes), edges, strict=True)))


def _ends(order, count):
    """The first and the last of a list, turn by turn, `count` of them."""
    if len(order) <= count:
        return order
    worst = order[: (count + 1) // 2]
    return [*worst, *order[len(order) - (count - len(worst)) :]]


def _worst_and_best(looks, scored, folder):
    parts = []
    for number, case in enumerate(_ends(list(looks), 2 * OVERLAYS)):
        look = looks[case]
        dice = ", ".join(f"{region} {shown('dice', scored[case][region]['dice'])}" for region in TABLE_ORDER)
        path = folder / f"case_{number + 1}.png"
        rows = {"truth": look.truth, "prediction": look.prediction}
        save_overlay(path, look.volume, rows, title=f"{case}: Dice x 100 {dice}", colours=SAFE, errors=True)
        parts.append(image(path, f"{case}: truth, prediction and error in the slices through the tumour's middle"))
    return paragraph("By the mean Dice of ET, WT and TC, the worst first.") + "".join(parts)


def _how(configs, record, cases, predictions):
    versions = {"brats_tf": __version__, "python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }
    files = [path for case in cases for path in (case.segmentation, predictions / f"{case.id}.nii.gz")]
    about = {
        "machine": machine(),
        "versions": versions,
        "weights_sha256": record.get("networks", "unknown: no prediction.json beside the predictions"),
        "postprocessing": record.get("postprocessing", "unknown"),
        "truth_and_predictions_sha256": sha256_of(*files) if files else None,
    }
    shown = "".join(
        folded(f"Settings of {name}", json.dumps(dataclasses.asdict(config), indent=2))
        for name, config in configs.items()
    )
    return folded("Versions and hashes", json.dumps(about, indent=2), is_open=True) + shown
