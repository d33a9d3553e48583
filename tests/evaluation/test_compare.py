import csv
import json
import shutil

import numpy as np
import pytest
from prediction_records import write_record
from scipy import stats
from scored_results import write_results

from brats_tf.errors import InputError
from brats_tf.evaluation.compare import compare_results, scores_of
from brats_tf.evaluation.evaluate import evaluate
from brats_tf.evaluation.results import read_summary
from brats_tf.evaluation.statistics import permutation_p, wilcoxon_p
from brats_tf.runtime.files import sha256_of


def test_two_rules_for_empty_regions_are_not_compared(tmp_path):
    folders = [write_results(tmp_path / rule, {"A": (0.5, 1)}, rule) for rule in ("brats", "nan")]
    with pytest.raises(InputError, match="one rule for empty regions. Received: brats and nan"):
        compare_results(*folders, results=tmp_path)
    summary = json.loads((folders[1] / "summary.json").read_text())
    (folders[1] / "summary.json").write_text(json.dumps(summary | {"cases_sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"cases.csv is of another evaluation"):
        compare_results(*folders, results=tmp_path)
    (folders[1] / "summary.json").write_text('{"empty_rule": "brats"}')
    with pytest.raises(InputError, match=r"summary.json must hold what `brats-tf evaluate` writes"):
        compare_results(*folders, results=tmp_path)


def test_scores_of_two_truths_are_not_compared(tmp_path):
    folders = [write_results(tmp_path / name, {"A": (0.5, 1), "B": (0.6, 2)}) for name in "ab"]
    path = folders[1] / "cases.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    rows[4]["truth_ml"] = "0.6"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    summary = json.loads((folders[1] / "summary.json").read_text())
    (folders[1] / "summary.json").write_text(json.dumps(summary | {"cases_sha256": sha256_of(path)}))
    with pytest.raises(InputError, match=r"Case B: both must be scored against one truth. Received: TC of 0.500 ml"):
        compare_results(*folders, results=tmp_path)


def test_scores_that_are_too_good_are_named(tmp_path, capsys):
    folders = [write_results(tmp_path / name, {"A": (0.5, 1), "B": (0.6, 2)}) for name in "ab"]
    summary = json.loads((folders[0] / "summary.json").read_text())
    (folders[0] / "summary.json").write_text(json.dumps(summary | {"trained_the_networks": ["A"]}))
    found = compare_results(*folders, results=tmp_path)
    assert found["too_good"] == [{"trained_the_networks": ["A"]}, {}]
    said = " ".join(capsys.readouterr().out.split())
    assert f"1 cases trained networks that predicted them in {folders[0]}: scores are too good." in said
    assert "Rule: " in said


def test_a_summary_without_a_figure_is_refused(tmp_path):
    folder = write_results(tmp_path / "a", {"A": (0.5, 1)})
    summary = json.loads((folder / "summary.json").read_text())
    del summary["WT"]["dice"]["low"]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"summary.json must hold what `brats-tf evaluate` writes"):
        read_summary(folder)


@pytest.mark.parametrize("recorded", [True, False])
def test_scores_of_label_maps_that_were_replaced_are_refused(phantoms, tmp_path, recorded):
    folder = tmp_path / "maps"
    folder.mkdir()
    for case in phantoms[:2]:
        shutil.copy(case.segmentation, folder / f"{case.id}.nii.gz")
    if recorded:
        write_record(folder, [case.id for case in phantoms[:2]])
    evaluate(phantoms[:2], predictions=folder, results=folder / "results")
    assert scores_of(folder, "results") == scores_of(folder / "results", "results") == folder / "results"
    shutil.copy(phantoms[1].segmentation, folder / f"{phantoms[0].id}.nii.gz")
    if recorded:
        write_record(folder, [case.id for case in phantoms[:2]])
    with pytest.raises(
        InputError, match="results must hold the scores of these predictions; received those of earlier"
    ):
        scores_of(folder, "results")
    if not recorded:  # The scores are of maps that lie elsewhere, or nowhere any more.
        for path in folder.glob("*.nii.gz"):
            path.unlink()
        assert scores_of(folder, "results") == folder / "results"


def test_by_hand(tmp_path, capsys):
    first = write_results(tmp_path / "a", {"A": (0.5, 10), "B": (0.6, 9), "C": (0.7, 8), "D": (0.2, 4)})
    second = write_results(tmp_path / "b", {"A": (0.6, 9), "B": (0.7, 8), "C": (0.7, 9), "E": (1, 1)})
    got = compare_results(first, second, results=tmp_path / "r")
    assert json.loads((tmp_path / "r" / "comparison.json").read_text()) == got
    assert got["cases"] == ["A", "B", "C"] and got["only_in_one"] == ["D", "E"]
    dice = got["regions"]["ET"]["dice"]
    assert (dice["first"], dice["second"], dice["difference"]) == pytest.approx((0.58, 2 / 3 - 0.02, 0.2 / 3))
    assert got["regions"]["WT"]["dice"]["first"] == pytest.approx(0.6)
    # Two pairs differ, both upwards: the exact test gives 2 of 4 orders.
    assert dice["p"] == 0.5
    # A and B: better twice (rank 1); C: equal in Dice, worse in HD95, (1.5 + 2) / 2.
    assert got["mean_ranks"] == pytest.approx([(2 + 2 + 1.25) / 3, (1 + 1 + 1.75) / 3])
    assert "Only in one of them, left out: D, E." in capsys.readouterr().out


def test_the_same_predictions_do_not_differ(tmp_path):
    folder = write_results(tmp_path / "a", {"A": (0.5, 10), "B": (0.6, 9)})
    got = compare_results(folder, folder, results=tmp_path)
    assert got["mean_ranks"] == [1.5, 1.5]
    assert got["ranks_p"] == got["regions"]["WT"]["dice"]["p"] == 1


def test_scores_that_are_none_are_left_out(tmp_path):
    first = write_results(tmp_path / "a", {"A": (0.5, float("nan")), "B": (0.6, 9)})
    second = write_results(tmp_path / "b", {"A": (0.6, 9), "B": (0.7, float("nan"))})
    hd95 = compare_results(first, second, results=tmp_path)["regions"]["TC"]["hd95_mm"]
    assert hd95["n"] == 0 and hd95["p"] is None


def test_one_case_is_compared_and_a_missing_score_ranks_last(tmp_path):
    first = write_results(tmp_path / "a", {"A": (0.5, float("nan"))})
    second = write_results(tmp_path / "b", {"A": (0.5, 9)})
    got = compare_results(first, second, results=tmp_path)
    assert got["ranks_p"] == 1 and got["mean_ranks"] == [1.75, 1.25]


def test_a_region_rightly_left_empty_ranks_before_a_false_positive(tmp_path):
    none = float("nan")
    right = write_results(tmp_path / "right", {"A": (none, none), "B": (none, none)}, "nan")
    wrong = write_results(tmp_path / "wrong", {"A": (0.0, none), "B": (none, none)}, "nan")
    assert compare_results(right, wrong, results=tmp_path)["mean_ranks"] == [1.25, 1.75]


def test_no_common_case_is_refused(tmp_path):
    folders = [write_results(tmp_path / name, {name: (0.5, 1)}) for name in "AB"]
    with pytest.raises(InputError, match="must share cases. Received: none in both"):
        compare_results(*folders, results=tmp_path)


def test_the_tests_are_those_of_the_books():
    random = np.random.default_rng(1)
    first = random.normal(size=12)
    second = first + random.normal(0.5, 1, 12)
    assert wilcoxon_p(first, second) == pytest.approx(stats.wilcoxon(first, second).pvalue)
    # All 2^n swaps by hand.
    few = first[:6] - second[:6]
    signs = np.array(np.meshgrid(*[(-1, 1)] * 6)).reshape(6, -1)
    means = (signs * few[:, None]).mean(axis=0)
    expected = (np.abs(means) >= abs(few.mean()) - 1e-12).mean()
    assert permutation_p(first[:6], second[:6]) == pytest.approx(expected)
    assert permutation_p(first, first + 1) == pytest.approx(2 / 2**12)


def test_only_cases_that_are_compared_are_named(tmp_path, capsys):
    write_results(tmp_path / "a", {"A": (0.9, 1), "B": (0.9, 1)}, trained_the_networks=["B"])
    write_results(tmp_path / "b", {"A": (0.8, 1), "E": (0.8, 1)})
    found = compare_results(tmp_path / "a", tmp_path / "b", results=tmp_path)
    assert found["too_good"] == [{}, {}] and "too good" not in capsys.readouterr().out
