import csv
import dataclasses
import json
import math
import shutil

import nibabel as nib
import numpy as np
import pytest
from prediction_records import write_record

from brats_tf.config.execution import EvaluationOptions
from brats_tf.data.splits import Split
from brats_tf.data.truth import find_truth
from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import evaluate, score_case, show_table
from brats_tf.evaluation.label_maps import LabelMaps
from brats_tf.evaluation.results import read_scores
from brats_tf.evaluation.scores import METRICS
from brats_tf.evaluation.tune import Fold, tune_postprocessing
from brats_tf.regions import CONVENTIONS


def perfect(cases, folder):
    """Predictions that are the truth."""
    folder.mkdir()
    for case in cases:
        shutil.copy(case.segmentation, folder / f"{case.id}.nii.gz")
    return folder


def change(path, edit):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(edit(np.asanyarray(image.dataobj).copy()), image.affine), path)


def test_the_truth_scores_1_everywhere(phantoms, tmp_path):
    summary, failures = evaluate(phantoms, predictions=perfect(phantoms, tmp_path / "p"), results=tmp_path / "r")
    assert failures == []
    for region in ("WT", "TC", "ET"):
        for metric, best in {
            "dice": 1,
            "hd95_mm": 0,
            "sensitivity": 1,
            "specificity": 1,
            "nsd": 1,
            "lesion_dice": 1,
        }.items():
            its = summary[region][metric]
            assert (its["mean"], its["std"], its["median"], its["low"], its["high"], its["n"]) == (
                *[best, 0, best],
                best,
                best,
                4,
            )
        assert summary[region]["volume_error_ml"]["mean"] == 0
    assert (summary["empty_rule"], summary["cases"], summary["left_out"]) == ("brats", 4, {})


def test_the_rule_for_empty_regions_is_the_one_asked_for(phantoms, tmp_path):
    """One of the four has no enhancing tumour."""
    options = EvaluationOptions(empty_masks="nan")
    predictions = perfect(phantoms, tmp_path / "p")
    summary, _ = evaluate(phantoms, predictions=predictions, results=tmp_path / "r", options=options)
    assert summary["empty_rule"] == "nan"
    assert (summary["ET"]["dice"]["n"], summary["WT"]["dice"]["n"]) == (3, 4)


def test_scores_agree_with_plain_numpy(phantoms, tmp_path):
    folder = perfect(phantoms[:1], tmp_path / "p")
    change(folder / f"{phantoms[0].id}.nii.gz", lambda labels: np.roll(labels, 2, axis=0))
    truth = np.asanyarray(nib.load(phantoms[0].segmentation).dataobj)
    shifted = np.roll(truth, 2, axis=0)
    for region, labels in {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}.items():
        t, p = np.isin(truth, labels), np.isin(shifted, labels)
        assert score_case(phantoms[0], LabelMaps(folder))[region]["dice"] == pytest.approx(
            2 * (t & p).sum() / (t.sum() + p.sum())
        )


def test_the_files_say_what_was_scored(phantoms, tmp_path):
    summary, _ = evaluate(phantoms, predictions=perfect(phantoms, tmp_path / "p"), results=tmp_path / "r")
    rows = list(csv.DictReader((tmp_path / "r" / "cases.csv").read_text().splitlines()))
    assert list(rows[0]) == ["case", "region", *METRICS]
    assert list(rows[0])[2:6] == ["dice", "hd95_mm", "sensitivity", "specificity"]
    assert len(rows) == 12
    assert json.loads((tmp_path / "r" / "summary.json").read_text()) == summary
    scored = read_scores(tmp_path / "r")
    assert list(scored) == [case.id for case in phantoms]
    assert np.mean([regions["ET"]["dice"] for regions in scored.values()]) == summary["ET"]["dice"]["mean"]


def test_tuning_reads_predictions_and_leaves_the_threshold_with_the_runs(phantoms, tmp_path, capsys):
    # A false voxel of ET in the fourth phantom, which has none, is what tuning should drop.
    folder = perfect(phantoms, tmp_path / "p")
    change(folder / f"{phantoms[3].id}.nii.gz", lambda labels: put(labels, 4))
    (folder / f"{phantoms[1].id}.nii.gz").unlink()
    Split("all", 0, ["Another"], []).save(tmp_path / "flair")
    ((case_id, sentence),) = tune_postprocessing([Fold(LabelMaps(folder), phantoms, [tmp_path / "flair"])])
    assert case_id == phantoms[1].id and "expected its label map" in sentence
    tuned = json.loads((tmp_path / "flair" / "postprocessing.json").read_text())
    # One voxel of 6 mm is 0.216 ml.
    assert (tuned["drop_et_below_ml"], tuned["cases"], tuned["mean_dice"]["0"]) == (0.3, 3, pytest.approx(2 / 3))
    assert "Best: 0.3 ml" in capsys.readouterr().out


def test_tuning_on_what_was_learned_or_dropped_is_refused(phantoms, tmp_path):
    folder, run = perfect(phantoms, tmp_path / "p"), tmp_path / "flair"
    Split("all", 0, [phantoms[2].id], []).save(run)
    with pytest.raises(InputError, match="predict with --cases validation. Received 1 .* Phantom_003"):
        tune_postprocessing([Fold(LabelMaps(folder), phantoms, [run])])
    write_record(folder, postprocessing={"drop_et_below_ml": 0.5})
    with pytest.raises(InputError, match="must be predicted without --drop-et-below-ml. Received: 0.5 ml"):
        tune_postprocessing([Fold(LabelMaps(folder), phantoms[:2], [run])])
    write_record(folder, networks={"t2": "0"})
    with pytest.raises(InputError, match="p was predicted by t2. Received: the networks flair"):
        tune_postprocessing([Fold(LabelMaps(folder), phantoms[:2], [run])])
    assert not (run / "postprocessing.json").exists()


def put(labels, value):
    labels[0, 0, 0] = value
    return labels


def test_a_table_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="cases.csv is missing"):
        read_scores(tmp_path)
    (tmp_path / "cases.csv").write_text("case,region,dice\nA,WT,0.5\n")
    with pytest.raises(InputError, match="must hold the columns case, region, dice, hd95_mm"):
        read_scores(tmp_path)
    (tmp_path / "cases.csv").write_text(f"case,region,{','.join(METRICS)}\nA,WT{',1' * len(METRICS)}\n")
    with pytest.raises(InputError, match="a row for each of WT, TC, ET"):
        read_scores(tmp_path)


def test_dropping_et_costs_everything_unless_the_truth_has_none(phantoms, tmp_path):
    folder = perfect(phantoms, tmp_path / "p")
    for case in phantoms:
        change(folder / f"{case.id}.nii.gz", lambda labels: np.where(labels == 4, 1, labels).astype(np.uint8))
    scores = [score_case(case, LabelMaps(folder)) for case in phantoms]
    assert [score["ET"]["dice"] for score in scores] == [0, 0, 0, 1]  # The fourth phantom has no enhancing tumour.
    assert all(score["WT"]["dice"] == score["TC"]["dice"] == 1 for score in scores)
    assert [score["ET"]["hd95_mm"] for score in scores] == [373.13, 373.13, 373.13, 0]
    none = score_case(phantoms[3], LabelMaps(folder), "nan")["ET"]
    assert math.isnan(none["dice"]) and math.isnan(none["hd95_mm"])


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (None, "expected its label map"),
        (lambda labels: labels[1:], "must have the shape 40x40x26"),
        (lambda labels: np.where(labels == 4, 3, labels).astype(np.uint8), "received also 3"),
    ],
)
def test_a_bad_prediction_is_left_out_and_the_others_are_scored(phantoms, tmp_path, edit, sentence):
    folder = perfect(phantoms, tmp_path / "p")
    path = folder / f"{phantoms[0].id}.nii.gz"
    path.unlink() if edit is None else change(path, edit)
    summary, ((case_id, received),) = evaluate(phantoms, predictions=folder, results=tmp_path / "r")
    assert case_id == phantoms[0].id
    assert received.startswith(f"Case {case_id}:")
    assert sentence in received
    assert summary["WT"]["dice"]["n"] == summary["cases"] == 3
    assert summary["left_out"] == {case_id: received}


@pytest.mark.parametrize("alone", [False, True])
def test_cases_of_children_in_the_numbers_of_2024_are_not_scored_as_those_of_2023(tmp_path, alone):
    """Only cases with edema, 4 there, show it: without them 3 would be scored as the enhancing tumour."""
    predictions = tmp_path / "predictions"
    for number, labels in enumerate(((1, 2, 3), (1, 2, 4), (1, 2)), start=1):
        name = f"BraTS-PED-{number:05}-000"
        voxels = np.zeros((6, 6, 6), np.uint8)
        voxels.flat[: len(labels)] = labels
        truth = tmp_path / "truth" / (f"{name}.nii.gz" if alone else f"{name}/{name}-seg.nii.gz")
        for path in (truth, predictions / f"{name}.nii.gz"):
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    cases, _ = find_truth(tmp_path / "truth")
    with pytest.raises(InputError, match="None of 3 cases could be scored"):
        evaluate(cases, predictions=predictions, results=tmp_path / "results")
    Split("all", 0, ["Another"], []).save(tmp_path / "flair")
    with pytest.raises(InputError, match="None of 3 cases could be read"):
        tune_postprocessing([Fold(LabelMaps(predictions), cases, [tmp_path / "flair"])])
    kept = [case.id for case in cases if case.id != "BraTS-PED-00002-000"]
    write_record(predictions, kept, left_out={"BraTS-PED-00002-000": "damaged"})  # Its truth shows it all the same.
    with pytest.raises(InputError, match="None of 3 cases could be scored"):
        evaluate(cases, predictions=predictions, results=tmp_path / "results")
    (predictions / "prediction.json").unlink()
    cases, _ = find_truth(tmp_path / "truth", labels="brats2024-ped")
    given = {"predictions": predictions, "results": tmp_path / "results"}
    summary, failures = evaluate(cases, convention=CONVENTIONS["brats2024-ped"], **given)
    assert failures == [] and summary["cases"] == 3
    for case in cases:  # A fault of one prediction says nothing of the truth.
        for copy in (case.segmentation, predictions / f"{case.id}.nii.gz"):
            copy.write_bytes(cases[2].segmentation.read_bytes())
    voxels[0, 0, 0] = 9
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    summary, failures = evaluate(find_truth(tmp_path / "truth")[0], **given)
    assert [case for case, _ in failures] == [cases[2].id]


def test_a_prediction_elsewhere_and_a_case_without_truth_are_left_out(phantoms, tmp_path):
    folder = perfect(phantoms, tmp_path / "p")
    path = folder / f"{phantoms[0].id}.nii.gz"
    image = nib.load(path)
    affine = image.affine.copy()
    affine[2, 3] += 7
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine), path)
    without = dataclasses.replace(phantoms[1], segmentation=None)
    summary, failures = evaluate([phantoms[0], without, *phantoms[2:]], predictions=folder, results=tmp_path / "r")
    said = dict(failures)
    assert "must have the affine of" in said[phantoms[0].id] and "by 7 mm" in said[phantoms[0].id]
    assert f"no seg in {without.folder}" in said[phantoms[1].id]
    assert summary["cases"] == 2 and summary["left_out"] == said


def test_a_label_map_of_an_earlier_prediction_is_not_scored(phantoms, tmp_path):
    folder = perfect(phantoms, tmp_path / "p")
    known = [case.id for case in phantoms[:2]]
    write_record(folder, known, left_out={phantoms[2].id: "Case Phantom_003: something was wrong."})
    summary, failures = evaluate(phantoms, predictions=folder, results=tmp_path / "r")
    assert summary["cases"] == 2
    assert dict(failures) == {
        "Phantom_003": "Case Phantom_003: its prediction was left out: Case Phantom_003: something was wrong.",
        "Phantom_004": "Case Phantom_004: no prediction by flair.",
    }


def test_cases_that_chose_the_checkpoint_are_said(phantoms, tmp_path, capsys):
    folder = perfect(phantoms, tmp_path / "p")
    chosen = {"checkpoint": "best", "chosen_on": [phantoms[1].id, "Elsewhere"], "initial_weights": "random weights"}
    write_record(folder, [case.id for case in phantoms], checkpoints={"flair": chosen | {"run": "/nowhere/flair"}})
    summary, _ = evaluate(phantoms, predictions=folder, results=tmp_path / "r")
    assert summary["chose_the_checkpoint"] == [phantoms[1].id]
    assert "1 of 4 cases chose the checkpoint that predicted them" in " ".join(capsys.readouterr().out.split())
    assert summary["made_by"]["initial_weights"] == ["random weights"]
    assert summary["made_by"]["networks"] == {"flair": "0"}
    summary, _ = evaluate(phantoms[2:], predictions=folder, results=tmp_path / "r")
    assert "chose_the_checkpoint" not in summary


def test_cases_that_trained_the_networks_and_maps_without_truth_are_said(phantoms, tmp_path, capsys):
    folder = perfect(phantoms, tmp_path / "p")
    record = write_record(folder, [case.id for case in phantoms])
    record["cases"][phantoms[0].id]["trained"] = ["flair"]
    (folder / "prediction.json").write_text(json.dumps(record))
    summary, _ = evaluate(phantoms[:3], predictions=folder, results=tmp_path / "r")
    assert summary["trained_the_networks"] == [phantoms[0].id]
    assert summary["without_truth"] == [f"{phantoms[3].id}.nii.gz"]
    assert "1 of 3 cases trained networks that predicted them" in " ".join(capsys.readouterr().out.split())
    record["cases"][phantoms[0].id]["trained"] = "flair"
    (folder / "prediction.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="trained"):
        evaluate(phantoms[:3], predictions=folder, results=tmp_path / "r")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"networks": {}, "postprocessing": null, "cases": {}, "left_out": {}}']
)
def test_a_damaged_record_is_a_sentence(phantoms, tmp_path, text):
    folder = perfect(phantoms, tmp_path / "p")
    (folder / "prediction.json").write_text(text)
    with pytest.raises(InputError, match=r"prediction.json must hold what `brats-tf predict` writes"):
        evaluate(phantoms, predictions=folder, results=tmp_path / "r")


def test_nothing_to_score_is_refused(phantoms, tmp_path):
    with pytest.raises(InputError, match="None of 4 cases could be scored"):
        evaluate(phantoms, predictions=tmp_path, results=tmp_path / "r")
    assert not list((tmp_path / "r").iterdir())
    with pytest.raises(InputError, match="The folder of predictions .* does not exist"):
        evaluate(phantoms, predictions=tmp_path / "nowhere", results=tmp_path / "r")


def test_the_table_is_the_papers(capsys):
    its = {"mean": 0.5, "std": 0.25, "median": 0.75, "n": 2}
    summary = {region: {"dice": its, "hd95_mm": its} for region in ("WT", "TC", "ET")} | {"empty_rule": "brats"}
    show_table({"ours": summary})
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if "ET" in line)
    assert header.index("ET") < header.index("WT") < header.index("TC")
    for words in ("Mean", "StdDev", "Median", "50.00", "25.00", "75.00", "empty in truth and prediction scores Dice 1"):
        assert words in printed


def test_real_truth_against_a_shifted_copy_of_itself(real_data, tmp_path):
    from brats_tf.data.discovery import find_cases

    cases = [
        case for case in find_cases(real_data / "native")[0] if case.id in ("BraTS2021_00000", "BraTS-SSA-00046-000")
    ]
    folder = perfect(cases, tmp_path / "p")
    for case in cases:
        change(folder / f"{case.id}.nii.gz", lambda labels: np.roll(labels, 3, axis=1))
        labels = nib.load(case.segmentation).get_fdata()
        truth, shifted = labels > 0, np.roll(labels, 3, axis=1) > 0
        expected = 2 * (truth & shifted).sum() / (truth.sum() + shifted.sum())
        assert score_case(case, LabelMaps(folder))["WT"]["dice"] == pytest.approx(expected, abs=1e-12)
