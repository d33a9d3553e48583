"""The report: what stands in it, what its sprite sheets hold, and how it behaves in a real browser."""

import base64
import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from prediction_records import write_record

from brats_tf.config.config import Config
from brats_tf.config.execution import ReportOptions
from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import evaluate
from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.evaluation.results import read_scores
from brats_tf.inference.prediction_record import settings_sha256
from brats_tf.report.blocks import Viewer, render_page
from brats_tf.report.report import CaseView, _about_sheets, _from_both_ends, _mean_dice, _view, write_report
from brats_tf.report.sections import SUMMARY_METRICS, left_out_section, paper_section, summary_section
from brats_tf.runs.history import VALIDATION_COLUMNS
from brats_tf.runtime.files import sha256_of
from brats_tf.visualisation.sprite_sheet import CLASS_LEVELS, SpriteSheet, make_sprite_sheet

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def reported(phantoms, tmp_path_factory):
    """A report on four phantoms: three predicted well, one badly and one missing; two networks that disagree."""
    folder = tmp_path_factory.mktemp("report")
    predictions, run = folder / "predictions", folder / "runs" / "flair"
    predictions.mkdir()
    run.mkdir(parents=True)
    for number, case in enumerate(phantoms[1:], start=1):
        image = nib.load(case.segmentation)
        labels = np.roll(np.asanyarray(image.dataobj), number, axis=0)
        nib.save(nib.Nifti1Image(labels, image.affine), predictions / f"{case.id}.nii.gz")
    (run / "best.weights.h5").write_bytes(b"weights of the best epoch")
    networks = {"flair": sha256_of(run / "best.weights.h5"), "gone": "4567def"}
    left_out = {"X&1": "has no <b>FLAIR</b>", phantoms[0].id: "Case Phantom_001: no modality."}
    config = Config.from_preset("embedding", modalities=("flair",))
    facts = {"networks": networks, "settings": {"flair": settings_sha256(config), "gone": "0"}, "left_out": left_out}
    record = write_record(predictions, [case.id for case in phantoms[1:]], **facts)
    for number, facts in enumerate(record["cases"].values(), start=1):
        facts["uncertainty"] = dict.fromkeys(("WT", "TC", "ET"), 0.1 * number)
    (predictions / "prediction.json").write_text(json.dumps(record))
    config.save(run)
    (run / "history.csv").write_text("epoch,dice_et,dice_tc,dice_wt,loss\n0,0.1,0.2,0.3,1.0\n1,0.2,0.3,0.4,0.5\n")
    with open(run / "validation.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [VALIDATION_COLUMNS, *((epoch, "A", r, 0.1 * epoch) for epoch in (1, 2) for r in ("WT", "TC", "ET"))]
        )
    evaluate(phantoms, predictions=predictions, results=folder / "results")
    path, _ = write_report(
        phantoms,
        runs=[run, folder / "gone"],
        predictions=predictions,
        results=folder / "results",
        options=ReportOptions(viewer_cases=2),
    )
    return path


def test_it_says_everything_and_asks_nobody(reported):
    html = reported.read_text()
    for words in (
        "3 cases, 1 left out (Phantom_001)",
        "embedding paper, BraTS 2020 validation (Table 2)",
        "these predictions: Dice x 100",
        "Rank correlation (Spearman) with Dice: WT",
        "gone: no history.csv",
        "4567def",
        "&#34;spacing_mm&#34;: null",
        "X&amp;1",
        "has no &lt;b&gt;FLAIR&lt;/b&gt;",
        "its prediction was left out",
        "Phantom_002",
    ):
        assert words in html, words
    assert "<b>" not in html
    # Self-contained: every picture is inside, nothing is fetched.
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', html)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "http" not in re.sub(r'data:image/png;base64,[^"]+|"png": "[^"]+"', "", html)
    assert len(html) < 25e6


def test_a_report_on_other_networks_than_those_that_predicted_is_refused(reported, phantoms, tmp_path):
    folder = reported.parents[1]
    arguments = {"predictions": folder / "predictions", "results": folder / "results"}
    with pytest.raises(InputError, match="was predicted by flair, gone. Received: the networks t2"):
        write_report(phantoms, runs=[tmp_path / "t2"], **arguments)
    copy = shutil.copytree(folder / "runs" / "flair", tmp_path / "edited" / "flair")
    Config.load(copy).replace(spacing_mm=2.0).save(copy)
    with pytest.raises(InputError, match="was predicted with other settings than those of .*flair. Predict again"):
        write_report(phantoms, runs=[copy, folder / "gone"], **arguments)
    for name in ("flair", "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "network.weights.h5").write_bytes(b"other")
    with pytest.raises(InputError, match="was predicted with other weights than those of .*flair. Predict again"):
        write_report(phantoms, runs=[tmp_path / "flair", tmp_path / "gone"], **arguments)


@pytest.mark.parametrize("change", ["postprocessing", "label map"])
def test_a_report_on_the_scores_of_earlier_predictions_is_refused(reported, phantoms, tmp_path, change):
    shutil.copytree(reported.parent.parent, tmp_path / "copy")
    folder = tmp_path / "copy"
    record = json.loads((folder / "predictions" / "prediction.json").read_text())
    if change == "postprocessing":
        record["postprocessing"] = {"drop_et_below_ml": 1.0}
    else:
        record["cases"][phantoms[1].id]["sha256"] = "0" * 64
    (folder / "predictions" / "prediction.json").write_text(json.dumps(record))
    with pytest.raises(
        InputError, match="results must hold the scores of these predictions; received those of earlier"
    ):
        runs = [folder / "runs" / "flair", folder / "gone"]
        write_report(phantoms, runs=runs, predictions=folder / "predictions", results=folder / "results")


def test_a_report_on_the_scores_of_another_truth_is_refused(reported, phantoms, tmp_path):
    shutil.copytree(reported.parent.parent, tmp_path / "copy")
    folder = tmp_path / "copy"
    changed = tmp_path / "corrected_seg.nii.gz"
    shutil.copy(phantoms[2].segmentation, changed)
    cases = [phantoms[0], dataclasses.replace(phantoms[1], segmentation=changed), *phantoms[2:]]
    runs = [folder / "runs" / "flair", folder / "gone"]
    with pytest.raises(InputError, match=f"Case {phantoms[1].id}: the scores in .* must be of {changed}; it has"):
        write_report(cases, runs=runs, predictions=folder / "predictions", results=folder / "results")


def test_a_page_may_name_a_folder_that_is_no_utf8():
    assert "fold?er" in render_page("t", "fold\udcfcer", [], {})


def test_a_file_that_is_gone_costs_its_own_pictures_alone(reported, phantoms, tmp_path, capsys):
    shutil.copytree(reported.parent.parent, tmp_path / "copy")
    folder = tmp_path / "copy"
    (folder / "predictions" / f"{phantoms[1].id}.nii.gz").unlink()
    runs = [folder / "runs" / "flair", folder / "gone"]
    path, unshown = write_report(phantoms, runs=runs, predictions=folder / "predictions", results=folder / "results")
    assert list(unshown) == [phantoms[1].id]
    assert f"Not shown: Case {phantoms[1].id}: expected its label map" in " ".join(capsys.readouterr().out.split())
    page = path.read_text()
    assert f"Case {phantoms[1].id}: expected its label map" in page
    assert page.count("truth, prediction and error") == 2 * 2  # Caption and description of the two others' pictures.


def test_a_case_is_left_out_once_with_all_reasons():
    summary = {"left_out": {"a": "bad."}, "without_truth": ["b.nii.gz"]}
    record = {"left_out": {"a": "bad."}, "cases": {case: {} for case in "abcd"}}
    (table,) = left_out_section(summary, record, {"a": "no picture."}, {"d": {}})
    assert table.rows == [
        ("a", "bad. no picture."),
        ("b", "Its label map has no truth."),
        ("c", "It was predicted after the evaluation: run `brats-tf evaluate` again."),
    ]


def test_without_scores_it_is_refused(phantoms, tmp_path):
    with pytest.raises(InputError, match=r"cases.csv is missing; `brats-tf evaluate` writes it"):
        write_report(phantoms, runs=[], predictions=tmp_path, results=tmp_path)


def unpacked(sheet):
    image = (matplotlib.image.imread(io.BytesIO(sheet.png)) * 255).round().astype(int)
    height, width, depth = sheet.shape
    places = [divmod(d, sheet.columns) for d in range(depth)]
    slices = [image[row * height : (row + 1) * height, at * width : (at + 1) * width] for row, at in places]
    return np.stack(slices, axis=2)


def test_a_sprite_sheet_holds_every_voxel_of_the_brain():
    random = np.random.default_rng(0)
    volume = np.zeros((20, 18, 16))
    volume[2:15, 3:17, 1:14] = random.uniform(1, 2, (13, 14, 13))
    truth, prediction = random.integers(0, 4, (2, *volume.shape)) * (volume > 0)
    sheet = make_sprite_sheet(volume, truth, prediction, (1, 2, 3))
    assert (sheet.shape, sheet.spacing_mm) == ((13, 14, 13), (1, 2, 3))
    got, box = unpacked(sheet), np.s_[2:15, 3:17, 1:14]
    np.testing.assert_array_equal(got[..., 1], truth[box] * CLASS_LEVELS)
    np.testing.assert_array_equal(got[..., 2], prediction[box] * CLASS_LEVELS)
    assert np.corrcoef(got[..., 0].ravel(), volume[box].ravel())[0, 1] > 0.99


def test_a_sheet_shows_what_lies_outside_of_the_brain():
    volume, truth, prediction = np.zeros((20, 18, 16)), np.zeros((20, 18, 16), int), np.zeros((20, 18, 16), int)
    volume[5:10, 5:10, 5:10] = 1
    prediction[15, 12, 2] = 3
    got = unpacked(make_sprite_sheet(volume, truth, prediction, (1, 1, 1)))
    assert got.shape[:3] == (11, 8, 8) and got[10, 7, 0, 2] == 3 * CLASS_LEVELS


def test_no_voxel_that_decides_a_score_is_left_out(monkeypatch):
    monkeypatch.setattr("brats_tf.visualisation.sprite_sheet.MAX_VOXELS", 20**3)
    for place in np.random.default_rng(0).integers(0, 40, (20, 3)):
        prediction = np.full((40, 40, 40), 2, np.uint8)
        prediction[tuple(place)] = 3
        got = unpacked(make_sprite_sheet(np.ones(prediction.shape), prediction * 0, prediction, (1, 1, 1)))
        assert (got[..., 2] == 3 * CLASS_LEVELS).sum() == 1
        assert got[(*(place // 2), 2)] == 3 * CLASS_LEVELS


def test_the_page_says_where_voxels_are_left_out():
    def view(spacing):
        return CaseView(None, None, None, (1.0, 1.0, 1.0), SpriteSheet(b"", (1, 1, 1), 1, spacing, (0, 0, 0)))

    assert _about_sheets({"a": view((1.0, 1.0, 1.0))}) == []
    (said,) = _about_sheets({"a": view((1.0, 1.0, 1.0)), "b": view((1.4, 1.4, 1.4))})
    assert said.text.startswith("1 of 2 cases are shown at voxels of up to 1.4 mm")


def test_classes_lie_on_the_image_where_voxels_are_left_out():
    volume = np.zeros((170, 140, 145))
    volume[...] = 0.1
    for low in (20, 43, 71):
        mask = np.zeros(volume.shape, np.uint8)
        mask[low : low + 21, low + 3 : low + 30, low + 7 : low + 33] = 1
        got = unpacked(make_sprite_sheet(volume + mask, mask, mask, (1, 1, 1)))
        edges = [[(np.flatnonzero(one.any(axis=(1, 2)))[[0, -1]]) for one in (got[..., 0] > 200, got[..., 1] > 0)]]
        for image, classes in edges:
            assert 0 <= image[0] - classes[0] <= 1 and 0 <= classes[1] - image[1] <= 1
        middle = [np.argwhere(one).mean(axis=0) for one in (got[..., 0] > 200, got[..., 1] > 0)]
        np.testing.assert_allclose(middle[0], middle[1], atol=0.51)


def test_a_large_brain_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr("brats_tf.visualisation.sprite_sheet.MAX_VOXELS", 20**3)
    truth = np.zeros((40, 40, 40), np.uint8)
    truth[10:30, 10:30, 10:30] = 2
    sheet = make_sprite_sheet(np.ones(truth.shape), truth, truth, (1, 1, 1))
    assert sheet.shape == (20, 20, 20) and sheet.spacing_mm == pytest.approx((2, 2, 2))
    assert (unpacked(sheet)[..., 1] > 0).sum() == 1000
    assert sheet.start == pytest.approx((9.5, 9.5, 9.5), abs=0.6)


SCRIPT = """
<script>
const said = {errors: window.problems, sorted: []};
const pixels = () => {
  const canvas = document.getElementById("canvas");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.reduce((sum, value, place) => (sum * 31 + value * (place % 7)) % 1000000007, 0);
};
const set = (id, value, event) => {
  const input = document.getElementById(id);
  input.value = value;
  input.dispatchEvent(new Event(event));
};
const choose = (name, value) => document.querySelector(`input[name=${name}][value=${value}]`).click();
async function act() {
  for (let tries = 0; tries < 50 && !document.getElementById("where").textContent; tries++)
    await new Promise((done) => setTimeout(done, 100));
  const table = document.querySelector("table.sortable");
  const column = () => [...table.tBodies[0].rows].map((row) => row.cells[2].dataset.value);
  const button = table.tHead.rows[0].cells[2].querySelector("button");
  for (let click = 0; click < 2; click++) { button.click(); said.sorted.push(column()); }
  said.aria = table.tHead.rows[0].cells[2].getAttribute("aria-sort");
  said.where = [document.getElementById("where").textContent];
  said.pixels = {start: pixels()};
  const slider = document.getElementById("slice");
  set("slice", +slider.value + 1, "input");
  said.where.push(document.getElementById("where").textContent);
  said.pixels.next = pixels();
  set("slice", +slider.value - 1, "input");
  said.pixels.back = pixels();
  set("opacity", 0, "input"); said.pixels.transparent = pixels();
  set("opacity", 100, "input"); said.pixels.opaque = pixels();
  choose("mode", "truth"); said.pixels.truth = pixels();
  choose("mode", "error"); said.pixels.error = pixels();
  choose("mode", "prediction");
  for (const region of ["enhancing", "necrosis", "edema"]) choose("region", region);
  said.pixels.none = pixels();
  choose("axis", "sagittal");
  said.where.push(document.getElementById("where").textContent);
  document.getElementById("canvas").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowUp"}));
  said.where.push(document.getElementById("where").textContent);
  const cases = document.getElementById("case");
  said.cases = [...cases.options].map((option) => option.text);
  set("case", cases.options[1].value, "change");
  await new Promise((done) => setTimeout(done, 500));
  said.where.push(document.getElementById("where").textContent);
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = btoa(JSON.stringify(said));
  document.body.append(result);
}
act().catch((error) => window.problems.push(String(error)));
</script>
"""
WATCH = """<script>
window.problems = [];
window.addEventListener("error", (event) => problems.push(event.message));
window.addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
console.error = (...words) => problems.push(words.join(" "));
</script>"""


def in_browser(tmp_path, html, script):
    """Opens a page with a script at its end, which leaves <pre id="result">: base64 of JSON."""
    page = tmp_path / "page.html"
    page.write_text(html.replace("<head>", f"<head>{WATCH}").replace("</body>", f"{script}</body>"))
    arguments = "--headless --no-sandbox --disable-gpu --enable-logging=stderr --virtual-time-budget=20000 --dump-dom"
    ran = subprocess.run(
        [CHROMIUM, *arguments.split(), f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not re.findall(r"(?:WARNING|ERROR):CONSOLE.*", ran.stderr)
    (result,) = re.findall(r'<pre id="result">([^<]+)</pre>', ran.stdout)
    return json.loads(base64.b64decode(result))


def test_a_case_that_is_empty_in_all_regions_ranks_as_the_right_answer_that_it_is():
    none = {region: {"dice": float("nan")} for region in ("WT", "TC", "ET")}
    assert _mean_dice(none) == 1
    assert _mean_dice(none | {"WT": {"dice": 0.5}}) == 0.5


def test_weights_that_are_gone_are_not_shown_as_those_of_the_predictions(reported, phantoms):
    """As after a training with other settings that has not saved any yet."""
    runs, predictions = reported.parents[1] / "runs", reported.parents[1] / "predictions"
    run = runs.parent / "later" / "flair"
    shutil.copytree(runs / "flair", run)
    (run / "best.weights.h5").unlink()
    with pytest.raises(InputError, match="predicted with other weights than those of"):
        write_report(phantoms, runs=[run, run.parent / "gone"], predictions=predictions, results=reported.parent)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium is not installed")
def test_in_a_real_browser_tables_sort_and_slices_turn(reported, tmp_path):
    said = in_browser(tmp_path, reported.read_text(), SCRIPT)
    assert said["errors"] == []
    up, down = ([float(value) for value in values] for values in said["sorted"])
    assert up == sorted(up) and down == up[::-1] and len(set(up)) == 3
    assert said["aria"] == "descending"
    pixels, where = said["pixels"], said["where"]
    assert pixels["start"] == pixels["back"]
    distinct = [pixels[name] for name in ("start", "next", "opaque", "truth", "error", "transparent")]
    assert len(set(distinct)) == len(distinct)
    assert pixels["none"] == pixels["transparent"]  # Without a region, and without opacity: the bare image.
    numbers = [re.fullmatch(r"(\S+), slice (\d+) of (\d+)", text).groups() for text in where]
    assert int(numbers[1][1]) == int(numbers[0][1]) + 1
    found = re.search(r'id="sprite-sheets">(.*?)</script>', reported.read_text(), re.DOTALL).group(1)
    shape = json.loads(found)[numbers[0][0]]["shape"]
    assert [int(numbers[0][2]), int(numbers[2][2])] == [shape[2], shape[1]]  # Axial, sagittal.
    assert int(numbers[3][1]) == int(numbers[2][1]) + 1
    assert numbers[4][0] == said["cases"][1] != numbers[0][0]


PLACES = """
<script>
const found = {};
const at = (x, y) => [...document.getElementById("canvas").getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
async function look() {
  for (let tries = 0; tries < 50 && !document.getElementById("where").textContent; tries++)
    await new Promise((done) => setTimeout(done, 100));
  const put = (id, value) => {
    document.getElementById(id).value = value;
    document.getElementById(id).dispatchEvent(new Event("input"));
  };
  const canvas = document.getElementById("canvas");
  for (const [axis, slice, x, y, across, down] of WANTED) {
    document.querySelector(`input[name=axis][value=${axis}]`).click();
    put("slice", slice);
    put("opacity", 100);
    for (const mode of ["truth", "prediction", "error"]) {
      document.querySelector(`input[name=mode][value=${mode}]`).click();
      const place = [Math.floor((x + 0.5) / across * canvas.width), Math.floor((y + 0.5) / down * canvas.height)];
      found[`${axis} ${slice} ${mode}`] = at(...place);
    }
    found[`${axis} size`] = [canvas.width, canvas.height];
  }
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = btoa(JSON.stringify(found));
  document.body.append(result);
}
look();
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium is not installed")
def test_the_viewer_shows_each_voxel_where_it_is(tmp_path):
    shape, spacing_mm = (12, 14, 16), (1.0, 2.0, 3.0)
    volume, truth, prediction = np.ones(shape), np.zeros(shape, int), np.zeros(shape, int)
    # A block of 3 voxels, so that smoothing leaves its middle alone: necrosis missed, enhancing tumour added.
    missed, added = (3, 4, 5), (8, 10, 12)
    truth[tuple(slice(i - 1, i + 2) for i in missed)] = 1
    prediction[tuple(slice(i - 1, i + 2) for i in added)] = 3
    sheet = make_sprite_sheet(volume, truth, prediction, spacing_mm)
    packed = dataclasses.asdict(sheet) | {"png": base64.b64encode(sheet.png).decode()}
    html = render_page("x", "y", [("Slices", [Viewer(["case"])])], {"case": packed})
    wanted = []
    for h, w, d in (missed, added):  # Front and head on top, as a radiologist hangs them.
        wanted += [("axial", d, w, h, 14, 12), ("coronal", h, w, 15 - d, 14, 16), ("sagittal", w, h, 15 - d, 12, 16)]
    said = in_browser(tmp_path, html, PLACES.replace("WANTED", json.dumps(wanted)))
    red, yellow, blue, orange = [213, 94, 0], [240, 228, 66], [0, 114, 178], [230, 159, 0]
    for axis, index in (("axial", 2), ("coronal", 0), ("sagittal", 1)):
        at_missed, at_added = f"{axis} {missed[index]}", f"{axis} {added[index]}"
        assert said[f"{at_missed} truth"] == red and said[f"{at_missed} error"] == blue
        assert said[f"{at_added} prediction"] == yellow and said[f"{at_added} error"] == orange
        grey = {tuple(said[f"{at_missed} prediction"]), tuple(said[f"{at_added} truth"])}
        assert all(len(set(colour)) == 1 for colour in grey)
    # In mm: 14 x 2 across and 12 x 1 down, and so on.
    for axis, across, down in (("axial", 28, 12), ("coronal", 28, 48), ("sagittal", 12, 48)):
        width, height = said[f"{axis} size"]
        assert height / width == pytest.approx(down / across, rel=0.01)


def summary_of(figures, empty_rule="brats"):
    regions = {region: dict.fromkeys(SUMMARY_METRICS, figures) for region in ("ET", "WT", "TC")}
    return regions | {"left_out": {}, "empty_rule": empty_rule}


FIGURES = dict(mean=0.1, low=0.2, high=0.3, std=0.4, quartile1=0.5, median=0.6, quartile3=0.7, n=9)  # noqa: C408


def test_every_figure_stands_below_its_title():
    table = summary_section(summary_of(FIGURES), {})[-2]
    titles = ("", "mean", "95 % interval", "std", "1st quartile", "median", "3rd quartile", "n")
    row = ("Dice x 100, ET", "10.00", "20.00 to 30.00", "40.00", "50.00", "60.00", "70.00", 9)
    assert (tuple(table.head), table.rows[0]) == (titles, row)


def test_the_paper_s_rows_are_those_of_the_networks_and_another_rule_is_said():
    note, table = paper_section(summary_of(FIGURES), {})
    assert "Unlike there" not in note.text
    assert dict(row[:2] for row in table.rows)["these predictions: Dice x 100"] == "10.00 (60.00)"
    assert "Unlike there" in paper_section(summary_of(FIGURES, "nan"), {})[0].text
    albunet = {"albunet3d": Config.from_preset("albunet3d", modalities=("flair", "t1ce", "t2"))}
    other, its_table = paper_section(summary_of(FIGURES), albunet)
    assert other.text != note.text and its_table.rows[0] != table.rows[0]


def test_cases_are_taken_from_both_ends():
    assert _from_both_ends(list("abcde"), 3) == ["a", "b", "e"]
    assert _from_both_ends(list("abcde"), 4) == ["a", "b", "d", "e"]
    assert _from_both_ends(list("ab"), 3) == ["a", "b"]


def test_truth_and_prediction_of_a_case_lie_alike(phantoms, tmp_path):
    shutil.copyfile(phantoms[1].segmentation, tmp_path / f"{phantoms[1].id}.nii.gz")
    view = _view(phantoms[1], LabelMaps(tmp_path))
    assert view.truth.any()
    np.testing.assert_array_equal(view.prediction, view.truth)


def test_as_many_cases_are_shown_as_asked_for_and_all_are_listed_from_the_worst(reported):
    html = reported.read_text()
    listed = re.findall(r"<td[^>]*>(Phantom_\d+)</td>", html[html.index("All cases") :])[:3]
    scored = read_scores(reported.parent)
    assert listed == sorted(scored, key=lambda case: _mean_dice(scored[case]))
    sheets = json.loads(re.search(r'id="sprite-sheets">(.*?)</script>', html, re.DOTALL).group(1))
    assert set(sheets) == {listed[0], listed[-1]}
