import numpy as np
import pytest
from scored_results import write_results

from brats_tf.errors import InputError
from brats_tf.evaluation.pool import pool_results
from brats_tf.evaluation.results import read_scores, read_summary
from brats_tf.evaluation.statistics import summarise


@pytest.fixture
def folds(tmp_path):
    """Of two cases and of one, by two networks."""
    made_by = [{"networks": {name: name * 8}, "initial_weights": [f"weights {name}"]} for name in "ab"]
    first = {"A": (0.9, 1), "B": (0.5, float("nan"))}
    return [
        write_results(
            tmp_path / "fold0", first, made_by=made_by[0], left_out={"D": "no truth"}, without_truth=["x.nii"]
        ),
        write_results(tmp_path / "fold1", {"C": (0.1, 3)}, made_by=made_by[1], without_truth=["e.nii"]),
    ]


def test_each_case_counts_once(folds, tmp_path):
    summary, summaries = pool_results(folds, results=tmp_path / "all")
    assert summaries == {folder: read_summary(folder) for folder in folds}
    assert read_summary(tmp_path / "all") == summary
    scores = read_scores(tmp_path / "all")
    assert list(scores) == ["A", "B", "C"]
    assert scores["C"]["WT"] == read_scores(folds[1])["C"]["WT"]
    for number, region in enumerate(("WT", "TC", "ET")):
        assert summary[region]["dice"] == pytest.approx(summarise(np.array([0.9, 0.5, 0.1]) - 0.01 * number))
    assert (summary["WT"]["hd95_mm"]["n"], summary["WT"]["hd95_mm"]["mean"]) == (2, 2)


def test_it_says_what_was_joined(folds, tmp_path):
    summary, _ = pool_results(folds, results=tmp_path / "all")
    assert (summary["cases"], summary["left_out"], summary["without_truth"]) == (
        3,
        {"D": "no truth"},
        ["e.nii", "x.nii"],
    )
    assert summary["truth_sha256"] == dict.fromkeys("ABC", "0")
    made_by = summary["made_by"]
    assert made_by["initial_weights"] == ["weights a", "weights b"]
    assert [(one["folder"], one["cases"], one["networks"]) for one in made_by["pooled"]] == [
        (str(folds[0]), 2, {"a": "a" * 8}),
        (str(folds[1]), 1, {"b": "b" * 8}),
    ]
    assert not {"chose_the_checkpoint", "trained_the_networks"} & set(summary)


def test_scores_that_are_too_good_stay_named(folds, tmp_path, capsys):
    write_results(tmp_path / "fold2", {"D": (1, 0), "E": (1, 0)}, trained_the_networks=["E", "D"])
    summary, _ = pool_results([*folds, tmp_path / "fold2"], results=tmp_path / "all")
    assert summary["trained_the_networks"] == ["D", "E"]
    said = capsys.readouterr().out
    assert "2 of 5 cases trained networks that predicted them, so that scores are too good: D, E." in said
    assert "Left out" not in said  # D is scored in one of the folders.


def test_what_cannot_be_joined_is_refused(folds, tmp_path):
    def refused(*folders, results=tmp_path / "all"):
        with pytest.raises(InputError) as caught:
            pool_results(folders, results=results)
        return str(caught.value)

    again = write_results(tmp_path / "again", {"B": (0.4, 1)})
    nan = write_results(tmp_path / "nan", {"F": (0.4, 1)}, rule="nan")
    assert refused(folds[0]) == f"Two or more folders of scores must be given once each. Received: {folds[0]}."
    assert "must be given once each" in refused(*folds, folds[0] / ".." / "fold0")
    assert refused(*folds, again) == (f"Case B must be scored in one of the folders. Received: {folds[0]} and {again}.")
    assert f"one rule for empty regions. Received: brats in {folds[0]}, nan in {nan}." in refused(folds[0], nan)
    assert "must be another folder than those that are joined" in refused(*folds, results=folds[1])
    assert "summary.json is missing" in refused(folds[0], _without_summary(tmp_path))
    assert not (tmp_path / "all").exists()


def _without_summary(tmp_path):
    folder = write_results(tmp_path / "half", {"G": (0.4, 1)})
    (folder / "summary.json").unlink()
    return folder
