import itertools

import nibabel as nib
import numpy as np
import pytest

from brats_tf.preprocessing.transforms import (
    LINEAR,
    Grid,
    brain_statistics,
    crop,
    orient,
    resample,
    uncrop,
    unorient,
    z_score,
)

ORDERS_AND_FLIPS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(order, signs):
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        affine[target, axis] = sign
    return affine


DIRECTIONS = np.diag([1, -2, 0.5])[:, [2, 0, 1]]
STRAIGHT = nib.affines.from_matvec(DIRECTIONS, [3, 4, 5])
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ DIRECTIONS, [3, 4, 5])
AFFINES = [*(affine_of(*one) for one in ORDERS_AND_FLIPS), OBLIQUE]


@pytest.mark.parametrize("affine", AFFINES)
def test_a_label_map_goes_to_the_crop_and_back_exactly(affine):
    labels = np.random.default_rng(0).integers(0, 5, size=(9, 11, 8), dtype=np.uint8)
    whole = Grid(affine, labels.shape, (12, 12, 12))
    np.testing.assert_array_equal(whole.to_file(whole.to_crop(labels)), labels)
    part = Grid(affine, labels.shape, (6, 7, 5))
    back = part.to_file(part.to_crop(labels))
    np.testing.assert_array_equal(back[back > 0], labels[back > 0])
    np.testing.assert_array_equal(part.to_crop(back), part.to_crop(labels))


@pytest.mark.parametrize("affine", AFFINES)
def test_one_voxel_keeps_its_place_in_the_patient(affine):
    """The voxel nearest to a point in mm is found, in the crop, where that point's directions say."""
    voxels = np.zeros((9, 11, 8))
    voxels[2, 3, 1] = 1
    grid = Grid(affine, voxels.shape, (12, 12, 12))
    (place,) = np.argwhere(grid.to_crop(voxels))
    centre = affine @ [*(np.array(voxels.shape) - 1) / 2, 1]
    offset = (affine @ [2, 3, 1, 1] - centre)[:3] * [-1, -1, 1]  # mm to the left, to the back, to the head
    if affine is OBLIQUE:  # Its directions are mixed: the nearest straight ones count.
        np.testing.assert_array_equal(grid.to_crop(voxels), Grid(STRAIGHT, voxels.shape, (12, 12, 12)).to_crop(voxels))
        return
    size = np.array(grid.oriented_shape)
    middle = (size - 1) / 2 - (size - 12) // 2
    np.testing.assert_allclose(place, middle + offset[[1, 0, 2]])


@pytest.mark.parametrize(("order", "signs"), ORDERS_AND_FLIPS)
def test_orientation_there_and_back_over_all_48_axis_orders_and_flips(order, signs):
    affine = affine_of(order, signs)
    voxels = np.random.default_rng(0).random((4, 5, 6, 2))
    oriented = orient(voxels, affine)
    assert oriented.shape[0] == voxels.shape[order.index(1)]  # H runs front-back, whatever the file's order.
    np.testing.assert_array_equal(unorient(oriented, affine), voxels)


def test_the_front_the_right_and_the_feet_come_first():
    # A RAS file: the first index grows to the right, the second to the front, the third to the head.
    voxels = np.zeros((4, 5, 6))
    voxels[0, 4, 0] = 1  # The very left, front, feet.
    oriented = orient(voxels, np.eye(4))
    assert oriented.shape == (5, 4, 6)
    assert oriented[0, 3, 0] == 1  # H 0 is the front, the last W is the left, D 0 the feet.


@pytest.mark.parametrize("affine", [np.diag([-1.0, -1, 1, 1]), np.diag([1.0, 1, 1, 1])])
def test_one_brain_in_two_orientations_becomes_one_tensor(affine):
    voxels = np.random.default_rng(0).random((4, 5, 6))  # As LPS.
    as_stored = voxels if affine[0, 0] < 0 else voxels[::-1, ::-1]
    np.testing.assert_array_equal(orient(as_stored, affine), voxels.transpose(1, 0, 2))


def test_an_oblique_affine_goes_there_and_back():
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = nib.affines.from_matvec(turn @ np.diag([1, -2, 0.5]), [3, 4, 5])
    labels = np.random.default_rng(0).integers(0, 4, size=(5, 6, 7))
    np.testing.assert_array_equal(unorient(orient(labels, affine), affine), labels)


def test_the_crop_is_centred():
    volume = np.arange(240 * 240 * 155, dtype=np.float32).reshape(240, 240, 155)
    np.testing.assert_array_equal(crop(volume, (192, 160, 108)), volume[24:216, 40:200, 23:131])


@pytest.mark.parametrize("shape", [(9, 8, 7), (4, 4, 4), (5, 9, 3), (3, 3, 20)])
def test_uncrop_is_the_inverse_inside_the_crop(shape):
    volume = np.random.default_rng(0).random((*shape, 2)) + 1
    size = (5, 6, 4)
    back = uncrop(crop(volume, size), shape)
    assert back.shape == volume.shape
    np.testing.assert_array_equal(back[back > 0], volume[back > 0])
    kept = np.prod([min(length, target) for length, target in zip(shape, size, strict=True)])
    assert np.count_nonzero(back[..., 0]) == kept
    np.testing.assert_array_equal(crop(back, size), crop(volume, size))


def test_z_score_over_the_brain_only():
    voxels = np.zeros((8, 8, 8), np.float32)
    voxels[2:6, 2:6, 2:6] = np.random.default_rng(0).normal(500, 40, size=(4, 4, 4))
    normalised = z_score(voxels, *brain_statistics(voxels))
    brain = voxels != 0
    assert normalised.dtype == np.float32
    assert abs(normalised[brain].mean()) < 1e-6
    assert abs(normalised[brain].std() - 1) < 1e-6
    assert not normalised[~brain].any()


def test_z_score_of_one_value_is_finite():
    voxels = np.array([[[0, 5, 5]]], np.float32)
    assert z_score(voxels, *brain_statistics(voxels)).tolist() == [[[0, 0, 0]]]


def test_integers_and_big_endian_numbers_score_alike():
    voxels = np.random.default_rng(0).integers(0, 900, size=(6, 7, 8))
    one, *others = (z_score(v, *brain_statistics(v)) for v in (voxels.astype(t) for t in ("f4", "i2", ">i2", ">f4")))
    for other in others:
        np.testing.assert_allclose(other, one, atol=1e-6)
        assert other.dtype == np.float32


def test_resampling_by_hand():
    # Edges of 2 mm become 1 mm: the new centres lie a quarter of an old voxel from the old ones.
    assert resample(np.array([[[0.0, 4, 8]]]), (1, 1, 6), order=LINEAR)[0, 0].tolist() == [0, 1, 3, 5, 7, 8]
    assert resample(np.array([[[1, 2, 3]]]), (1, 1, 6), order=0)[0, 0].tolist() == [1, 1, 2, 2, 3, 3]


def test_labels_return_from_a_finer_grid_exactly():
    affine = np.diag([-2.0, -1, 3, 1])
    labels = np.random.default_rng(0).integers(0, 4, size=(9, 11, 8), dtype=np.uint8)
    grid = Grid(affine, labels.shape, (12, 20, 24), spacing_mm=1.0)
    assert grid.oriented_shape == (11, 9, 8)
    assert grid.whole_shape == (11, 18, 24)
    np.testing.assert_array_equal(grid.to_file(grid.to_crop(labels)), labels)


def test_a_smooth_volume_survives_resampling():
    places = np.stack(np.meshgrid(*[np.linspace(0, 3, n) for n in (20, 24, 16)], indexing="ij"))
    smooth = np.sin(places).sum(axis=0)
    grid = Grid(np.diag([-1.0, -1, 1.5, 1]), smooth.shape, (30, 30, 30), spacing_mm=0.8)
    np.testing.assert_allclose(grid.to_file(grid.to_crop(smooth, order=LINEAR), order=LINEAR), smooth, atol=0.08)


def test_the_edges_of_a_voxel_follow_the_axes_of_the_crop():
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 0], affine[2, 1], affine[3, 3] = -2, 3, 8, 1  # Left-right, front-back, head-foot.
    assert Grid(affine, (5, 6, 7), None).edges_mm == (3, 2, 8)
    assert Grid(affine, (5, 6, 7), None, 1.5).edges_mm == (1.5, 1.5, 1.5)
