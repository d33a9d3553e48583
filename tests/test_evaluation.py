import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from brats_tf.errors import InputError
from brats_tf.evaluation import evaluate, score_case, show_table


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
    assert {region: values["dice"] for region, values in summary.items()} == {
        region: {"mean": 1.0, "std": 0.0, "median": 1.0, "n": 4} for region in ("WT", "TC", "ET")
    }


def test_scores_agree_with_plain_numpy(phantoms, tmp_path):
    folder = perfect(phantoms[:1], tmp_path / "p")
    change(folder / f"{phantoms[0].id}.nii.gz", lambda labels: np.roll(labels, 2, axis=0))
    truth = np.asanyarray(nib.load(phantoms[0].segmentation).dataobj)
    shifted = np.roll(truth, 2, axis=0)
    for region, labels in {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}.items():
        t, p = np.isin(truth, labels), np.isin(shifted, labels)
        assert score_case(phantoms[0], folder)[region] == pytest.approx(2 * (t & p).sum() / (t.sum() + p.sum()))


def test_the_files_say_what_was_scored(phantoms, tmp_path):
    summary, _ = evaluate(phantoms, predictions=perfect(phantoms, tmp_path / "p"), results=tmp_path / "r")
    rows = list(csv.DictReader((tmp_path / "r" / "cases.csv").read_text().splitlines()))
    assert list(rows[0]) == ["case", "region", "dice"]
    assert len(rows) == 12
    assert json.loads((tmp_path / "r" / "summary.json").read_text()) == summary


def test_dropping_et_costs_everything_unless_the_truth_has_none(phantoms, tmp_path):
    folder = perfect(phantoms, tmp_path / "p")
    for case in phantoms:
        change(folder / f"{case.id}.nii.gz", lambda labels: np.where(labels == 4, 1, labels).astype(np.uint8))
    scores = [score_case(case, folder) for case in phantoms]
    assert [score["ET"] for score in scores] == [0, 0, 0, 1]  # The fourth phantom has no enhancing tumour.
    assert all(score["WT"] == score["TC"] == 1 for score in scores)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (None, "no prediction; expected"),
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
    assert summary["WT"]["dice"]["n"] == 3


def test_nothing_to_score_is_refused(phantoms, tmp_path):
    with pytest.raises(InputError, match="None of 4 cases could be scored"):
        evaluate(phantoms, predictions=tmp_path, results=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_the_table_is_the_papers(capsys):
    summary = {region: {"dice": {"mean": 0.5, "std": 0.25, "median": 0.75, "n": 2}} for region in ("WT", "TC", "ET")}
    show_table({"ours": summary})
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if "ET" in line)
    assert header.index("ET") < header.index("WT") < header.index("TC")
    for words in ("Mean", "StdDev", "Median", "50.00", "25.00", "75.00", "empty in truth and prediction scores Dice 1"):
        assert words in printed


def test_real_truth_against_a_shifted_copy_of_itself(real_data, tmp_path):
    from brats_tf.data.cases import find_cases

    cases = [
        case for case in find_cases(real_data / "native")[0] if case.id in ("BraTS2021_00000", "BraTS-SSA-00046-000")
    ]
    folder = perfect(cases, tmp_path / "p")
    for case in cases:
        change(folder / f"{case.id}.nii.gz", lambda labels: np.roll(labels, 3, axis=1))
        labels = nib.load(case.segmentation).get_fdata()
        truth, shifted = labels > 0, np.roll(labels, 3, axis=1) > 0
        expected = 2 * (truth & shifted).sum() / (truth.sum() + shifted.sum())
        assert score_case(case, folder)["WT"] == pytest.approx(expected, abs=1e-12)
