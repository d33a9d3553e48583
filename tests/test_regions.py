import numpy as np
import pytest

from brats_tf.errors import InputError
from brats_tf.regions import (
    BRATS_2017,
    BRATS_2023,
    BRATS_2024,
    BRATS_2024_PED,
    MSD_TASK01,
    REGIONS,
    classes_to_labels,
    classes_to_regions,
    labels_to_classes,
    regions_to_classes,
)


@pytest.mark.parametrize(
    ("convention", "labels"),
    [(BRATS_2017, [0, 1, 2, 4]), (BRATS_2023, [0, 1, 2, 3]), (BRATS_2024, [0, 1, 2, 3]), (MSD_TASK01, [0, 1, 2, 3])],
)
def test_labels_there_and_back(convention, labels):
    volume = np.random.default_rng(0).choice(labels, size=(5, 6, 7)).astype(np.float32)
    classes = labels_to_classes(volume, convention)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes_to_labels(classes, convention), volume)


def test_enhancing_tumour_is_4_until_2021_and_3_from_2023():
    assert labels_to_classes(np.array([4]), BRATS_2017) == labels_to_classes(np.array([3]), BRATS_2023) == 3


@pytest.mark.parametrize(
    ("convention", "regions"),
    [
        (BRATS_2017, {1: "WT TC", 2: "WT", 4: "WT TC ET"}),
        (BRATS_2023, {1: "WT TC", 2: "WT", 3: "WT TC ET"}),
        (BRATS_2024, {1: "WT TC", 2: "WT", 3: "WT TC ET", 4: ""}),  # The resection cavity is in no region.
        (BRATS_2024_PED, {1: "WT TC ET", 2: "WT TC", 3: "WT TC", 4: "WT"}),
        (MSD_TASK01, {1: "WT", 2: "WT TC", 3: "WT TC ET"}),
    ],
)
def test_each_label_belongs_to_its_regions(convention, regions):
    assert set(convention.known) == {0, *regions}
    for label, expected in regions.items():
        inside = classes_to_regions(labels_to_classes(np.array([label]), convention))[0]
        assert " ".join(name for name, member in zip(REGIONS, inside, strict=True) if member) == expected


@pytest.mark.parametrize(
    ("convention", "value"),
    [
        (BRATS_2017, 3),
        (BRATS_2023, 4),
        (BRATS_2024, 5),
        (MSD_TASK01, 4),
        (BRATS_2017, -1),
        (BRATS_2017, 256),
        (BRATS_2017, 0.5),
        (BRATS_2017, np.nan),
    ],
)
def test_a_label_of_no_convention_is_refused_with_its_value(convention, value):
    with pytest.raises(InputError, match=f"{convention.name}.*received also {value}"):
        labels_to_classes(np.array([0, 1, value]), convention)


def test_regions_by_hand():
    regions = classes_to_regions(np.array([0, 1, 2, 3]))
    assert regions[:, 0].tolist() == [False, True, True, True]  # WT: every tumour class
    assert regions[:, 1].tolist() == [False, True, False, True]  # TC: without edema
    assert regions[:, 2].tolist() == [False, False, False, True]  # ET


def test_classes_survive_the_way_through_regions():
    classes = np.random.default_rng(0).integers(0, 4, size=(4, 5, 6), dtype=np.uint8)
    np.testing.assert_array_equal(regions_to_classes(classes_to_regions(classes)), classes)


def test_regions_that_are_not_nested_become_nested():
    # ET alone, TC alone: painted, they count for the regions around them too.
    repaired = classes_to_regions(regions_to_classes(np.array([[0, 0, 1], [0, 1, 0]], bool)))
    assert repaired.tolist() == [[True, True, True], [True, True, False]]
