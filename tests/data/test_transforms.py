import itertools

import nibabel as nib
import numpy as np
import pytest

from brats_tf.data.transforms import crop, orient, uncrop, unorient, z_score

ORDERS_AND_FLIPS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize(("order", "signs"), ORDERS_AND_FLIPS)
def test_orientation_there_and_back_over_all_48_axis_orders_and_flips(order, signs):
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        affine[target, axis] = sign
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
    normalised = z_score(voxels)
    brain = voxels != 0
    assert normalised.dtype == np.float32
    assert abs(normalised[brain].mean()) < 1e-6
    assert abs(normalised[brain].std() - 1) < 1e-6
    assert not normalised[~brain].any()


def test_z_score_of_one_value_is_finite():
    assert z_score(np.array([[[0, 5, 5]]], np.float32)).tolist() == [[[0, 0, 0]]]
