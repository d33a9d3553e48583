"""The commands that take PREDICTIONS: of this program, which know their data, and of any other."""

import csv
import json
import math
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from prediction_records import write_record
from repository import REPOSITORY
from untrained_runs import untrained

from brats_tf.cli.main import main
from brats_tf.data.splits import Split
from brats_tf.evaluation import contribution
from brats_tf.runtime.lock import lock


def call(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def bare(phantoms, tmp_path):
    """Two folders of label maps, `truth` and `other`, with no image and no record."""
    for name in ("truth", "other"):
        (tmp_path / name).mkdir()
    for number, case in enumerate(phantoms):
        shutil.copy(case.segmentation, tmp_path / "truth" / f"{case.id}.nii.gz")
        image = nib.load(case.segmentation)
        labels = np.roll(np.asanyarray(image.dataobj), number, axis=0)
        nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "other" / f"{case.id}-seg.nii.gz")
    return tmp_path


def test_two_bare_folders_are_scored_reported_and_compared(bare, phantom_folder, capsys):
    truth, other = bare / "truth", bare / "other"
    assert call("evaluate", other, "--truth", truth) == 0
    summary = json.loads((other / "results" / "summary.json").read_text())
    assert summary["cases"] == 4 and 0 < summary["WT"]["dice"]["mean"] < 1
    assert call("report", other, "--truth", truth) == 0
    assert "There are no images of the scored cases to show." in (other / "results" / "report.html").read_text()
    assert call("evaluate", other, "--truth", phantom_folder, "--results", bare / "with_images") == 0
    assert (bare / "with_images" / "cases.csv").read_bytes() == (other / "results" / "cases.csv").read_bytes()
    assert call("report", other, "--truth", phantom_folder, "--results", bare / "with_images") == 0
    assert call("compare", other, bare / "with_images", "--results", bare) == 0
    assert json.loads((bare / "comparison.json").read_text())["mean_ranks"] == [1.5, 1.5]


def test_folds_are_scored_together(bare, capsys):
    """The scores of two halves, joined, are those of all label maps at once."""
    for number, path in enumerate(sorted((bare / "other").iterdir())):
        (bare / f"fold{number % 2}").mkdir(exist_ok=True)
        shutil.copy(path, bare / f"fold{number % 2}")
    for name in ("fold0", "fold1", "other"):
        assert call("evaluate", bare / name, "--truth", bare / "truth") in (0, 2)  # Without the other half.
    capsys.readouterr()
    assert call("pool", bare / "fold0", bare / "fold1", "--results", bare / "all") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("fold0", "fold1", "all"))
    pooled, whole = (json.loads((bare / name / "summary.json").read_text()) for name in ("all", "other/results"))
    assert pooled["left_out"] == {}
    for region in ("WT", "TC", "ET"):
        assert pooled[region]["dice"] == pytest.approx(whole[region]["dice"], abs=1e-6)
    assert call("compare", bare / "all", bare / "other", "--results", bare) == 0
    assert call("pool", bare / "fold0", bare / "all", "--results", bare / "twice") == 2
    assert "must be scored in one of the folders" in capsys.readouterr().err


def test_labels_of_the_predictions_may_differ_from_those_of_the_truth(bare):
    for path in (bare / "other").iterdir():
        image = nib.load(path)
        labels = np.asanyarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(labels == 4, 3, labels).astype(np.uint8), image.affine), path)
    assert call("evaluate", bare / "other", "--truth", bare / "truth") == 2
    arguments = ["evaluate", bare / "other", "--truth", bare / "truth", "--prediction-labels", "brats2023"]
    assert call(*arguments) == 0


def test_what_is_missing_on_either_side_is_said(bare, capsys):
    (bare / "truth" / "Phantom_001.nii.gz").unlink()
    (bare / "other" / "Phantom_002-seg.nii.gz").rename(bare / "other" / "nobody.nii.gz")
    shutil.copy(bare / "other" / "Phantom_003-seg.nii.gz", bare / "other" / "Phantom_003.nii.gz")
    assert call("evaluate", bare / "other", "--truth", bare / "truth") == 2
    said = capsys.readouterr().out
    assert "2 label maps have no truth: Phantom_001-seg.nii.gz, nobody.nii.gz." in said
    left_out = json.loads((bare / "other" / "results" / "summary.json").read_text())["left_out"]
    assert "expected its label map" in left_out["Phantom_002"] and "received none" in left_out["Phantom_002"]
    assert "received Phantom_003.nii.gz, Phantom_003-seg.nii.gz" in left_out["Phantom_003"]


def test_a_folder_that_knows_its_data_asks_for_nothing(phantom_folder, phantoms, tmp_path, capsys):
    for case in phantoms[:3]:
        shutil.copy(case.segmentation, tmp_path / f"{case.id}.nii.gz")
    ids = [case.id for case in phantoms]
    write_record(tmp_path, ids[:2], data=[str(phantom_folder)], left_out={ids[2]: "no FLAIR."}, pending=[ids[3]])
    assert call("evaluate", tmp_path) == 2
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert summary["cases"] == 2 and summary["WT"]["dice"]["mean"] == 1
    assert summary["left_out"] == {
        ids[2]: f"Case {ids[2]}: its prediction was left out: no FLAIR.",
        ids[3]: f"Case {ids[3]}: the prediction stopped before it; predict it again.",
    }
    shutil.copy(phantoms[2].segmentation, tmp_path / f"{ids[0]}.nii.gz")
    assert call("evaluate", tmp_path) == 2
    assert "is not the label map that prediction.json records: expected the SHA-256" in capsys.readouterr().out
    with lock(tmp_path / "elsewhere"):
        shutil.copy(tmp_path / "elsewhere" / ".lock", tmp_path / ".lock")
    (tmp_path / ".lock").write_text(json.dumps({"host": "elsewhere", "process": 1, "began": 0.0, "command": "x"}))
    assert call("evaluate", tmp_path) == 2
    assert "is in use by process 1 on elsewhere" in capsys.readouterr().err


def test_cases_that_fail_when_blinded_count_as_left_out(phantom_folder, phantoms, tmp_path, monkeypatch):
    shutil.copy(phantoms[0].segmentation, tmp_path / f"{phantoms[0].id}.nii.gz")
    write_record(tmp_path, [phantoms[0].id], data=[str(phantom_folder)])
    monkeypatch.setattr("brats_tf.cli.predictions.runs_of", lambda *given: [])
    for left_out, code in (({}, 0), ({phantoms[0].id: "bad."}, 2)):
        found = {"left_out": left_out}
        monkeypatch.setattr(contribution, "classifier_contribution", lambda *given, found=found, **named: found)
        assert call("evaluate", tmp_path, "--blind-classifier") == code


@pytest.mark.parametrize(
    ("changes", "command", "sentence"),
    [
        ({"data": ["/nowhere"]}, ["evaluate"], "was predicted from /nowhere, which is not there: say with --truth"),
        ({"data": []}, ["package-submission"], "data that its record does not name: say with --data"),
        ({}, ["tune-postprocessing"], "predicted by /nowhere/flair, which is not there: say with --runs where it is"),
        ({}, ["paper-figures"], "predicted by /nowhere/flair, which is not there"),
    ],
)
def test_what_has_moved_is_named(phantom_folder, phantoms, tmp_path, capsys, changes, command, sentence):
    shutil.copy(phantoms[0].segmentation, tmp_path / f"{phantoms[0].id}.nii.gz")
    write_record(tmp_path, [phantoms[0].id], **({"data": [str(phantom_folder)]} | changes))
    assert call(*command, tmp_path) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "{0}", "--runs", "x"], "--runs is for --blind-classifier. Received: --runs x without it."),
        (["report", "{0}", "--truth", "{1}", "--runs", "x"], "--runs is for predictions of this package."),
        (["predict", "{1}", "--networks", "a", "--preset", "albunet3d"], "--networks names the networks already."),
        (["predict", "{1}", "--networks", "a", "--name", "b"], "--networks names the networks already."),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(bare, phantom_folder, capsys, arguments, sentence):
    assert main([one.format(bare / "other", phantom_folder) for one in arguments]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_labels_without_a_record_cannot_be_tuned_or_drawn(bare, capsys):
    assert call("tune-postprocessing", bare / "other", "--truth", bare / "truth") == 2
    assert "without a record of any" in capsys.readouterr().err
    assert call("paper-figures", bare / "other") == 2
    assert "must be the folder of a run, or one that `brats-tf predict` wrote" in capsys.readouterr().err


def test_folders_that_hold_the_same_case_count_it_once_and_one_without_truth_is_no_obstacle(
    phantom_folder, phantoms, tmp_path, capsys
):
    images = tmp_path / "images" / "New_001"
    images.mkdir(parents=True)
    for modality, path in phantoms[0].volumes.items():
        shutil.copy(path, images / f"New_001_{modality}.nii.gz")
    out = tmp_path / "out"
    out.mkdir()
    for case in phantoms[:2]:
        shutil.copy(case.segmentation, out / f"{case.id}.nii.gz")
    part = str(phantoms[0].folder)
    write_record(out, [case.id for case in phantoms[:2]], data=[part, str(phantom_folder), str(images.parent)])
    assert call("evaluate", out) == 0
    said = capsys.readouterr().out
    assert "images must hold truth: a segmentation for each case" in said
    assert "2 of the 4 cases with truth were not to be predicted." in said
    shutil.copytree(phantoms[0].folder, tmp_path / "copy" / phantoms[0].id)
    write_record(out, [phantoms[0].id], data=[part, str(tmp_path / "copy")])
    assert call("evaluate", out) == 2
    assert f"Case {phantoms[0].id} is in {part} and, with other files, in" in capsys.readouterr().err


def test_a_record_remembers_the_labels_of_its_maps(phantoms, tmp_path):
    """Scored against truth of another convention, the maps of this program keep their own."""
    for name in ("truth", "out"):
        (tmp_path / name).mkdir()
    image = nib.load(phantoms[0].segmentation)
    labels = np.asanyarray(image.dataobj)
    nib.save(image, tmp_path / "truth" / "a.nii.gz")
    nib.save(
        nib.Nifti1Image(np.where(labels == 4, 3, labels).astype(np.uint8), image.affine), tmp_path / "out" / "a.nii.gz"
    )
    record = write_record(tmp_path / "out", ["a"])
    record["cases"]["a"]["convention"] = "BraTS 2023"
    (tmp_path / "out" / "prediction.json").write_text(json.dumps(record))
    assert call("evaluate", tmp_path / "out", "--truth", tmp_path / "truth") == 0
    summary = json.loads((tmp_path / "out" / "results" / "summary.json").read_text())
    assert summary["ET"]["dice"]["mean"] == summary["TC"]["dice"]["mean"] == 1


@pytest.mark.parametrize("count", [2, pytest.param(15, marks=pytest.mark.large)])
def test_bare_folders_give_the_reference_values_of_other_tools(tmp_path, count):
    folder = REPOSITORY / "../shared/metrics"
    if not (folder / "reference.tsv").is_file():
        pytest.skip(f"needs reference values of other tools: {folder}/reference.tsv is not there")
    with open(folder / "reference.tsv", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if "brats20/" in row["prediction"]]
    for system in ("baseline_attention", "baseline_no_attention", "waveloss_no_attention"):
        names = sorted(path.name for path in (folder / "pairs" / "brats20" / system).iterdir())[:count]
        (tmp_path / system).mkdir()
        for name in names:
            shutil.copy(folder / "pairs" / "brats20" / system / name, tmp_path / system / name)
        arguments = ["evaluate", tmp_path / system, "--truth", folder / "pairs" / "brats20" / "truth"]
        assert call(*arguments) == (0 if len(names) == 15 else 2)  # The truth of 15 cases.
        with open(tmp_path / system / "results" / "cases.csv", newline="") as file:
            scored = {(row["case"], row["region"]): row for row in csv.DictReader(file)}
        checked = 0
        for row in rows:
            if f"/{system}/" in row["prediction"] and row["prediction"].rpartition("/")[2] in names:
                mine = scored[row["prediction"].rpartition("/")[2].removesuffix(".nii.gz"), row["region"]]
                if row["dice"] != "None":
                    assert math.isclose(float(mine["dice"]), float(row["dice"]), abs_tol=1e-6)
                if row["hd95_medpy"] != "None":
                    assert math.isclose(float(mine["hd95_mm"]), float(row["hd95_medpy"]), abs_tol=1e-5)
                checked += 1
        assert checked == 3 * len(names)
        if system == "baseline_attention" and count == 2:
            break


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_after_predict_one_folder_is_enough(phantom_folder, phantoms, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    training = ["--modality", "flair", "--crop", "32x32x24", "--weights", "none", "--epochs", 1]
    training += ["--validation-split", 0.5, "--runs", runs, "--name", "mine"]
    assert call("train", phantom_folder, *training) == 0
    command = ["predict", phantom_folder, "--runs", runs, "--networks", "mine-flair", "--cases", "validation"]
    assert call(*command, "--out", out) == 0
    record = json.loads((out / "prediction.json").read_text())
    assert record["data"] == [str(phantom_folder)] and len(record["cases"]) == 2 and record["pending"] == []
    assert record["checkpoints"]["mine-flair"]["run"] == str(runs / "mine-flair")
    assert call("evaluate", out) == 0
    assert json.loads((out / "results" / "summary.json").read_text())["cases"] == 2
    assert call("report", out) == 0
    assert call("paper-figures", out, "--checkpoint", "best") == 2
    assert "was predicted with --checkpoint last. Received: best" in " ".join(capsys.readouterr().err.split())
    assert call("paper-figures", out) == 0
    assert list((runs / "mine-flair" / "figures").glob("planes-*.png"))
    assert call("tune-postprocessing", out) == 0
    assert call(*command, "--out", tmp_path / "tuned", "--tuned") == 0
    said = capsys.readouterr().out
    assert "2 of the 4 cases with truth were not to be predicted." in said
    runs.rename(tmp_path / "moved")
    assert call("report", out) == 2
    assert call("report", out, "--runs", tmp_path / "moved") == 0
    assert call("package-submission", out, "--archive", tmp_path / "a.zip") == 2  # Phantoms are none of BraTS.
    assert "must be named as its case" in capsys.readouterr().out


def test_label_maps_are_not_their_own_truth(bare, phantom_folder, phantoms, tmp_path, capsys):
    assert call("evaluate", bare / "other", "--truth", bare / "other") == 2
    assert "its truth must be another file than its label map" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "data").mkdir()
    for case in phantoms:
        shutil.copytree(case.folder, tmp_path / "data" / case.folder.name)
    (tmp_path / "data" / "A").mkdir()
    for path in (bare / "other").iterdir():
        shutil.copy(path, tmp_path / "data" / "A" / path.name.replace("-seg", "_seg"))
    for truth, results in ((phantom_folder, "outside"), (tmp_path / "data", "among_the_cases")):
        assert call("evaluate", tmp_path / "data" / "A", "--truth", truth, "--results", tmp_path / results) == 0
    scores = [(tmp_path / name / "cases.csv").read_bytes() for name in ("outside", "among_the_cases")]
    assert scores[0] == scores[1]


@pytest.mark.usefixtures("small")
def test_a_run_may_be_a_link(phantom_folder, phantoms, tmp_path):
    run = untrained(tmp_path / "store" / "20250101", modalities=("flair",))
    Split("all", 0, ["Another"], []).save(run)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    out = tmp_path / "out"
    assert call("predict", phantom_folder, "--runs", tmp_path / "runs", "--networks", "mine", "--out", out) == 0
    assert call("tune-postprocessing", out) == 0
    assert (run / "postprocessing.json").is_file()
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert call("tune-postprocessing", out, "--runs", tmp_path / "moved") == 0


def test_a_pool_says_what_was_left_out_and_names_every_folder(bare, capsys, monkeypatch):
    monkeypatch.chdir(bare)
    for number, path in enumerate(sorted((bare / "other").iterdir())):
        (bare / f"fold{number % 2}" / "all").mkdir(exist_ok=True, parents=True)
        shutil.copy(path, bare / f"fold{number % 2}" / "all")
    folders = [Path(f"fold{number}") / "all" for number in (0, 1)]
    (folders[1] / "Phantom_004-seg.nii.gz").unlink()
    for folder in folders:
        assert call("evaluate", folder, "--truth", bare / "truth") == 2
    capsys.readouterr()
    assert call("pool", *folders, "--results", bare / "pooled") == 2
    said = capsys.readouterr().out
    assert "Left out, without scores in any of the folders: Phantom_004." in said
    assert all(str(folder) in said for folder in folders)
    assert list(json.loads((bare / "pooled" / "summary.json").read_text())["left_out"]) == ["Phantom_004"]
