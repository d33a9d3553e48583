import numpy as np
import pytest

from brats_tf.errors import InputError
from brats_tf.regions import (
    BRATS_2017,
    BRATS_2023,
    classes_to_labels,
    classes_to_regions,
    labels_to_classes,
    regions_to_classes,
)


@pytest.mark.parametrize(("convention", "labels"), [(BRATS_2017, [0, 1, 2, 4]), (BRATS_2023, [0, 1, 2, 3])])
def test_labels_there_and_back(convention, labels):
    volume = np.random.default_rng(0).choice(labels, size=(5, 6, 7)).astype(np.float32)
    classes = labels_to_classes(volume, convention)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes_to_labels(classes, convention), volume)


def test_enhancing_tumour_is_4_until_2021_and_3_from_2023():
    assert labels_to_classes(np.array([4]), BRATS_2017) == labels_to_classes(np.array([3]), BRATS_2023) == 3


@pytest.mark.parametrize(
    ("convention", "value"),
    [(BRATS_2017, 3), (BRATS_2023, 4), (BRATS_2017, -1), (BRATS_2017, 256), (BRATS_2017, 0.5), (BRATS_2017, np.nan)],
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
