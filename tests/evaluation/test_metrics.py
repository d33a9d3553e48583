"""Scores of one region: by hand, against MedPy's published figures, and against a second implementation."""

import csv
import itertools
import math

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from brats_tf.evaluation.lesionwise import with_margin
from brats_tf.evaluation.metrics import (
    EMPTY_MASK_RULES,
    WORST_MM,
    dice,
    hausdorff95,
    normalised_surface_dice,
    sensitivity,
    specificity,
    surface_distances,
)
from brats_tf.evaluation.scores import score_region
from brats_tf.preprocessing.transforms import brain_box

LABELS = {"WT": (1, 2, 3, 4), "TC": (1, 3, 4), "ET": (3, 4)}  # Of every pair in the reference: ET is 3 or 4.


def ball(radius, size=41, centre=None):
    axes = np.mgrid[:size, :size, :size] - np.reshape(centre or (size // 2,) * 3, (3, 1, 1, 1))
    return (axes**2).sum(axis=0) <= radius**2


def voxel(*where, shape=(9, 9, 9)):
    mask = np.zeros(shape, bool)
    mask[where] = True
    return mask


def agreement(truth, prediction, spacing_mm=(1, 1, 1), rule="brats"):
    return normalised_surface_dice(surface_distances(truth, prediction, spacing_mm), EMPTY_MASK_RULES[rule])


@pytest.mark.parametrize("edges", [(1, 1, 1), (1.0000000130, 1.0000000252, 1.0000000232), (0.99999, 1.00001, 1.00005)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_border_one_voxel_away_is_within_a_millimetre_whatever_the_header_rounds(edges, axis):
    truth = ball(8, size=25)
    assert agreement(truth, np.roll(truth, 1, axis), edges) == 1


def slow_hausdorff95(truth, prediction, spacing_mm):
    """The same definition another way: borders by comparing six shifted copies, distances by a k-d tree."""
    points = []
    for mask in (truth, prediction):
        padded = np.pad(mask, 1)
        inner = padded.copy()
        for axis, step in itertools.product(range(3), (-1, 1)):
            inner &= np.roll(padded, step, axis)
        points.append(np.argwhere(padded & ~inner) * np.asarray(spacing_mm))
    there = cKDTree(points[1]).query(points[0])[0]
    back = cKDTree(points[0]).query(points[1])[0]
    return np.percentile(np.concatenate((there, back)), 95)


def test_nested_balls_have_the_dice_of_their_volumes():
    small, large = ball(8), ball(12)
    expected = 2 * small.sum() / (small.sum() + large.sum())
    assert dice(large, small) == expected
    # From the radii: 2 r^3 / (r^3 + R^3), up to the voxels' corners.
    assert expected == pytest.approx(2 * 8**3 / (8**3 + 12**3), abs=0.01)
    # The borders lie the difference of the radii apart, up to a voxel's corner.
    assert hausdorff95(large, small, (1, 1, 1)) == pytest.approx(4, abs=0.5)
    assert sensitivity(large, small) == small.sum() / large.sum()
    assert sensitivity(small, large) == 1
    assert specificity(large, small) == 1
    assert specificity(small, large) == 1 - (large.sum() - small.sum()) / (41**3 - small.sum())
    assert agreement(large, small) == 0


def test_dice_is_symmetric_and_between_0_and_1():
    random = np.random.default_rng(0)
    for _ in range(20):
        first, second = (random.random((2, 6, 6, 6)) < random.random()).astype(bool)
        assert dice(first, second) == dice(second, first)
        assert 0 <= dice(first, second) <= 1


@pytest.mark.parametrize(
    ("where", "spacing_mm", "expected"),
    [((5, 2, 2), (1, 1, 1), 3), ((5, 2, 2), (0.5, 1, 1), 1.5), ((2, 2, 4), (1, 1, 5), 10), ((5, 6, 2), (1, 1, 9), 5)],
)
def test_two_voxels_are_as_far_apart_as_they_are(where, spacing_mm, expected):
    assert hausdorff95(voxel(2, 2, 2), voxel(*where), spacing_mm) == expected


def test_a_shift_by_one_voxel():
    mask = ball(6)
    shifted = np.roll(mask, 1, axis=0)
    assert hausdorff95(mask, shifted, (1, 1, 1)) == 1
    assert 1 < hausdorff95(mask, shifted, (3, 1, 1)) <= 3
    assert agreement(mask, shifted) == 1
    assert agreement(mask, shifted, (3, 3, 3)) < 1


def test_a_border_is_where_a_face_neighbour_is_outside_also_at_the_volumes_edge():
    full = np.ones((5, 5, 5), bool)
    there, back = surface_distances(full, full, (1, 1, 1))
    assert len(there) == len(back) == 125 - 27
    assert there.max() == 0


def test_200_random_pairs_equal_a_second_implementation():
    random = np.random.default_rng(0)
    for _ in range(200):
        shape = random.integers(2, 12, 3)
        spacing_mm = random.uniform(0.3, 3, 3)
        truth, prediction = (random.random((2, *shape)) < random.uniform(0.1, 0.9)).astype(bool)
        truth.flat[0] = prediction.flat[-1] = True
        got = hausdorff95(truth, prediction, spacing_mm)
        assert got == pytest.approx(slow_hausdorff95(truth, prediction, spacing_mm), abs=1e-6)
        assert got == hausdorff95(prediction, truth, spacing_mm)


def test_empty_regions_follow_the_platform():
    empty, full = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    assert (dice(empty, empty), dice(empty, full), dice(full, empty)) == (1, 0, 0)
    distances = [hausdorff95(*pair, (1, 1, 1)) for pair in ((empty, empty), (empty, full), (full, empty))]
    assert distances == [0, WORST_MM, WORST_MM] == [0, 373.13, 373.13]
    assert (sensitivity(empty, empty), sensitivity(empty, full), sensitivity(full, empty)) == (1, 0, 0)
    assert (specificity(empty, empty), specificity(empty, full), specificity(full, empty)) == (1, 0, 1)
    assert (agreement(empty, empty), agreement(empty, full), agreement(full, empty)) == (1, 0, 0)


def test_empty_regions_without_a_score():
    empty, full = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    assert math.isnan(dice(empty, empty, "nan")) and dice(empty, full, "nan") == dice(full, empty, "nan") == 0
    for pair in ((empty, empty), (empty, full), (full, empty)):
        assert math.isnan(hausdorff95(*pair, (1, 1, 1), "nan"))
    assert math.isnan(sensitivity(empty, full, "nan")) and sensitivity(full, empty, "nan") == 0
    assert math.isnan(agreement(empty, empty, rule="nan")) and agreement(empty, full, rule="nan") == 0


def test_masks_of_different_shapes_are_refused():
    for score in (dice, sensitivity, specificity, lambda *masks: hausdorff95(*masks, (1,))):
        with pytest.raises(ValueError, match=r"Received: \(2,\) and \(3,\)"):
            score(np.ones(2, bool), np.ones(3, bool))


def _reference():
    from repository import REPOSITORY

    folder = REPOSITORY / "../shared/metrics"
    if not (folder / "reference.tsv").is_file():
        pytest.skip(f"needs reference values of other tools: {folder}/reference.tsv is not there")
    with open(folder / "reference.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return folder, rows


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.large) for part in range(1, 10))])
@pytest.mark.slow
def test_the_reference_table_is_reproduced(part):
    folder, rows = _reference()
    assert len(rows) == 150
    pairs = sorted({(row["prediction"], row["truth"]) for row in rows})[part::10]
    for row in rows:
        if (row["prediction"], row["truth"]) not in pairs:
            continue
        images = [nib.load(folder / row[name]) for name in ("truth", "prediction")]
        truth, prediction = (np.isin(np.asanyarray(image.dataobj), LABELS[row["region"]]) for image in images)
        assert (prediction.sum(), truth.sum()) == (int(row["vox_pred"]), int(row["vox_ref"]))
        spacing_mm = nib.affines.voxel_sizes(images[0].affine)
        if row["dice"] == "None":
            assert math.isnan(dice(truth, prediction, "nan"))
        else:
            assert dice(truth, prediction) == pytest.approx(float(row["dice"]), abs=1e-12)
        if row["hd95_medpy"] == "None":
            assert math.isnan(hausdorff95(truth, prediction, spacing_mm, "nan"))
        else:
            assert hausdorff95(truth, prediction, spacing_mm) == pytest.approx(float(row["hd95_medpy"]), abs=1e-6)


def test_the_challenges_own_hausdorff_example():
    folder, _ = _reference()
    images = [nib.load(folder / "pairs" / "hausdorff_cli" / name) for name in ("gt.nii.gz", "mask.nii.gz")]
    truth, prediction = (np.asanyarray(image.dataobj) > 0 for image in images)
    spacing_mm = nib.affines.voxel_sizes(images[0].affine)
    assert hausdorff95(truth, prediction, spacing_mm) == pytest.approx(1.41421356, abs=1e-6)


def test_masks_cut_out_of_their_volume_score_as_the_whole_ones():
    random = np.random.default_rng(4)
    for _ in range(20):
        truth, prediction = np.zeros((2, 20, 18, 16), bool)
        for mask in (truth, prediction):
            for _ in range(random.integers(0, 3)):
                corner = random.integers(0, 12, 3)
                mask[tuple(slice(start, start + random.integers(1, 5)) for start in corner)] = True
        box = with_margin(brain_box(truth | prediction) or (slice(0, 1),) * 3, truth.shape)
        whole = score_region(truth, prediction, (1, 2, 0.5))
        cut = score_region(truth[box], prediction[box], (1, 2, 0.5), voxels=truth.size)
        assert cut == pytest.approx(whole, abs=1e-12, nan_ok=True)


def test_a_missed_lesion_costs_the_worst_distance_under_every_rule():
    truth = np.zeros((12, 12, 12), bool)
    truth[2:8, 2:8, 2:8] = True
    for rule in EMPTY_MASK_RULES:
        assert score_region(truth, np.zeros_like(truth), (1, 1, 1), rule)["lesion_hd95_mm"] == WORST_MM


def test_distances_are_those_of_the_distance_transform():
    random = np.random.default_rng(5)
    truth, prediction = random.random((2, 12, 14, 10)) > 0.6
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (truth, prediction)]
    fields = [ndimage.distance_transform_edt(~border, sampling=(1, 2, 0.5)) for border in borders]
    found = surface_distances(truth, prediction, (1, 2, 0.5))
    np.testing.assert_allclose(found[0], fields[1][borders[0]], atol=1e-12)
    np.testing.assert_allclose(found[1], fields[0][borders[1]], atol=1e-12)
