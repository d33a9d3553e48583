import json
from collections import Counter
from pathlib import Path

import pytest

from brats_tf.data.layouts import HYPHENED, UNDERSCORED, Case
from brats_tf.data.splits import Split, held_out_cases, split_cases
from brats_tf.errors import InputError


def case(case_id, *, grade=None, layout=UNDERSCORED, patient=""):
    return Case(case_id, {"flair": Path("x")}, Path("y"), layout, Path(), grade=grade, patient=patient)


@pytest.fixture
def cases():
    """293 HGG and 76 LGG of one year, as in BraTS 2020, and 30 of another with two scans of each patient."""
    found = [case(f"BraTS20_Training_{n:03}", grade="HGG" if n <= 293 else "LGG") for n in range(1, 370)]
    return found + [case(f"BraTS-GLI-{n:05}-{t:03}", layout=HYPHENED) for n in range(15) for t in (0, 1)]


def test_folds_part_the_patients_and_are_even_in_every_stratum(cases):
    splits = [split_cases(cases, seed=3, folds=5, fold=fold) for fold in range(5)]
    held_out = [one for split in splits for one in split.held_out]
    assert sorted(held_out) == sorted(one.id for one in cases)
    grades = {one.id: (one.layout.name, one.grade) for one in cases}
    for split in splits:
        assert not set(split.training) & set(split.held_out)
        assert len(split.training) + len(split.held_out) == len(cases)
        counts = Counter(grades[one] for one in split.held_out)
        assert counts[UNDERSCORED.name, "HGG"] in (58, 59)
        assert counts[UNDERSCORED.name, "LGG"] in (15, 16)
        assert counts[HYPHENED.name, None] == 6


@pytest.mark.parametrize("how", [{"folds": 4, "fold": 1}, {"hold_out": 0.3}])
def test_scans_of_a_patient_stay_together(cases, how):
    split = split_cases(cases, seed=0, **how)
    patients = {one.id: one.patient for one in cases}
    assert not {patients[one] for one in split.training} & {patients[one] for one in split.held_out}


def test_a_hold_out_has_its_share_in_every_stratum(cases):
    split = split_cases(cases, seed=0, hold_out=0.2)
    grades = Counter(one.grade for one in cases if one.id in set(split.held_out))
    assert grades["HGG"] == pytest.approx(0.2 * 293, abs=1)
    assert grades["LGG"] == pytest.approx(0.2 * 76, abs=1)
    assert split.how == "hold-out 0.2"


def test_a_seed_parts_alike_whatever_the_order_of_the_cases(cases):
    first = split_cases(cases, seed=1, folds=5, fold=0)
    assert set(split_cases(cases[::-1], seed=1, folds=5, fold=0).held_out) == set(first.held_out)
    assert set(split_cases(cases, seed=2, folds=5, fold=0).held_out) != set(first.held_out)


def test_nothing_is_held_out_unless_asked(cases):
    split = split_cases(cases, seed=1)
    assert (split.how, split.held_out, len(split.training)) == ("all", [], len(cases))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"folds": 5}, "`folds` and `fold` belong together. Received: folds=5, fold=None"),
        ({"fold": 0}, "`folds` and `fold` belong together"),
        ({"folds": 5, "fold": 5}, "`fold` must be from 0 to folds - 1, `folds` at least 2. Received: fold=5, fo"),
        ({"folds": 1, "fold": 0}, "`folds` at least 2. Received: fold=0, folds=1"),
        ({"folds": 5, "fold": 0, "hold_out": 0.2}, "exclude each other"),
        ({"hold_out": 1.0}, "`hold_out` must be between 0 and 1. Received: 1.0"),
        ({"hold_out": 0.001}, "hold-out 0.001 leaves 399 cases to train and 0 to score; received 399 cases of 384 pat"),
    ],
)
def test_what_cannot_be_parted_is_refused(cases, how, sentence):
    with pytest.raises(InputError, match=sentence):
        split_cases(cases, seed=0, **how)


def test_a_split_is_saved_and_gives_the_held_out_cases(cases, tmp_path):
    split = split_cases(cases, seed=1, folds=5, fold=0)
    for name in ("flair", "t2"):
        (tmp_path / name).mkdir()
        split.save(tmp_path / name)
    assert Split.load(tmp_path / "t2") == split
    found = held_out_cases(cases, [tmp_path / "flair", tmp_path / "t2"])
    assert [one.id for one in found] == split.held_out
    with pytest.raises(InputError, match="None of the 1 cases was held out from .*flair .fold 0 of 5"):
        held_out_cases([case("another")], [tmp_path / "flair"])
    split_cases(cases, seed=2, folds=5, fold=0).save(tmp_path / "t2")
    with pytest.raises(InputError, match="must hold out the same cases. Received: fold 0 of 5, seed 2 in .*t2; fold"):
        held_out_cases(cases, [tmp_path / "flair", tmp_path / "t2"])


def test_a_missing_or_damaged_split_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no split.json, which a training writes"):
        Split.load(tmp_path)
    wrong = {"how": "a", "seed": 0, "training": [], "held_out": 3}
    for content in ("{", json.dumps([1]), json.dumps({"how": "all"}), json.dumps(wrong)):
        (tmp_path / "split.json").write_text(content)
        with pytest.raises(InputError, match="is no readable split"):
            Split.load(tmp_path)
