import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from brats_tf.config.settings import DataSettings
from brats_tf.data.case import Case
from brats_tf.data.layouts import HYPHENED, UNDERSCORED
from brats_tf.data.splits import Split, split_cases, validation_cases, warn_of_shared_patients
from brats_tf.errors import InputError


def case(case_id, *, grade=None, layout=UNDERSCORED, patient=""):
    return Case(case_id, {"flair": Path("x")}, Path("y"), layout, Path(), grade=grade, patient=patient)


def split(cases, *, seed, **how):
    return split_cases(cases, DataSettings(("flair",), split_seed=seed, **how))


@pytest.fixture
def cases():
    """293 HGG and 76 LGG of one year, as in BraTS 2020, and 30 of another with two scans of each patient."""
    found = [case(f"BraTS20_Training_{n:03}", grade="HGG" if n <= 293 else "LGG") for n in range(1, 370)]
    return found + [case(f"BraTS-GLI-{n:05}-{t:03}", layout=HYPHENED) for n in range(15) for t in (0, 1)]


def test_folds_part_the_patients_and_are_even_in_every_stratum(cases):
    splits = [split(cases, seed=3, folds=5, fold=fold) for fold in range(5)]
    validation = [one for parts in splits for one in parts.validation]
    assert sorted(validation) == sorted(one.id for one in cases)
    grades = {one.id: (one.layout.name, one.grade) for one in cases}
    for parts in splits:
        assert not set(parts.training) & set(parts.validation)
        assert len(parts.training) + len(parts.validation) == len(cases)
        counts = Counter(grades[one] for one in parts.validation)
        assert counts[UNDERSCORED.name, "HGG"] in (58, 59)
        assert counts[UNDERSCORED.name, "LGG"] in (15, 16)
        assert counts[HYPHENED.name, None] == 6


@pytest.mark.parametrize("how", [{"folds": 4, "fold": 1}, {"validation_split": 0.3}])
def test_scans_of_a_patient_stay_together(cases, how):
    parts = split(cases, seed=0, **how)
    patients = {one.id: one.patient for one in cases}
    assert not {patients[one] for one in parts.training} & {patients[one] for one in parts.validation}


def test_a_validation_split_has_its_share_in_every_stratum(cases):
    parts = split(cases, seed=0, validation_split=0.2)
    grades = Counter(one.grade for one in cases if one.id in set(parts.validation))
    assert grades["HGG"] == pytest.approx(0.2 * 293, abs=1)
    assert grades["LGG"] == pytest.approx(0.2 * 76, abs=1)
    assert parts.how == "validation split 0.2"


def test_a_seed_parts_alike_whatever_the_order_of_the_cases(cases):
    first = split(cases, seed=1, folds=5, fold=0)
    assert set(split(cases[::-1], seed=1, folds=5, fold=0).validation) == set(first.validation)
    assert set(split(cases, seed=2, folds=5, fold=0).validation) != set(first.validation)


def test_all_cases_train_unless_asked_otherwise(cases):
    parts = split(cases, seed=1)
    assert (parts.how, parts.validation, len(parts.training)) == ("all", [], len(cases))


def test_a_split_that_leaves_a_part_empty_is_refused(cases):
    sentence = (
        "validation split 0.001 leaves 399 cases for training and 0 for validation; received 399 cases of 384 pat"
    )
    with pytest.raises(InputError, match=sentence):
        split(cases, seed=0, validation_split=0.001)


def test_a_split_is_saved_and_gives_the_validation_cases(cases, tmp_path):
    parts = split(cases, seed=1, folds=5, fold=0)
    for name in ("flair", "t2"):
        (tmp_path / name).mkdir()
        parts.save(tmp_path / name)
    assert Split.load(tmp_path / "t2") == parts
    found = validation_cases(cases, [tmp_path / "flair", tmp_path / "t2"])
    assert [one.id for one in found] == parts.validation
    with pytest.raises(InputError, match="None of the 1 cases is a validation case of .*flair .fold 0 of 5"):
        validation_cases([case("another")], [tmp_path / "flair"])
    split(cases, seed=2, folds=5, fold=0).save(tmp_path / "t2")
    with pytest.raises(
        InputError, match="must share their validation cases. Received: fold 0 of 5, seed 2 in .*t2; fold"
    ):
        validation_cases(cases, [tmp_path / "flair", tmp_path / "t2"])


def test_a_missing_or_damaged_split_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no split.json, which a training writes"):
        Split.load(tmp_path)
    wrong = {"how": "a", "seed": 0, "training": [], "validation": 3}
    for content in ("{", json.dumps([1]), json.dumps({"how": "all"}), json.dumps(wrong)):
        (tmp_path / "split.json").write_text(content)
        with pytest.raises(InputError, match="is no readable split"):
            Split.load(tmp_path)


def test_data_sets_that_share_patients_are_warned_of(capsys):
    pooled = [
        case(f"{name}-{number}", layout=replace(UNDERSCORED, name=name))
        for name in ("BraTS 2021", "BraTS 2023 GLI", "BraTS 2023 SSA")
        for number in range(4)
    ]
    split(pooled, seed=0)
    split(pooled[4:], seed=0, validation_split=0.5)
    assert "in common" not in capsys.readouterr().out
    split(pooled, seed=0, validation_split=0.5)
    assert "BraTS 2021, BraTS 2023 GLI have patients in common under other names" in capsys.readouterr().out
    for name in ("MSD Task01", "BraTS 2023 GoAT"):
        warn_of_shared_patients([pooled[0], case("x", layout=replace(UNDERSCORED, name=name))])
        assert "have patients in common" in capsys.readouterr().out
    warn_of_shared_patients([pooled[0], case("x", layout=UNDERSCORED)])
    assert "BraTS 2017-2021, BraTS 2021 have patients in common" in capsys.readouterr().out
