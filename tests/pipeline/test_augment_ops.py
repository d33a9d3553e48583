import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from brats_tf.pipeline import augment_ops as operations

SIZES = (24, 20, 16)
CENTRE = (np.array(SIZES) - 1) / 2


@pytest.fixture
def channel():
    return tf.constant(np.random.default_rng(0).normal(size=SIZES), tf.float32)


@pytest.fixture
def classes():
    return tf.constant(np.random.default_rng(0).integers(0, 4, size=SIZES), tf.uint8)


def blob(place, width=1.5):
    """A channel with a bright Gaussian, and the class 3 in its core."""
    axes = np.meshgrid(*map(np.arange, SIZES), indexing="ij")
    square = sum((axis - at) ** 2 for axis, at in zip(axes, place, strict=True))
    bright = np.exp(-square / (2 * width**2)).astype(np.float32)
    return tf.constant(bright), tf.constant((bright > 0.3) * 3, tf.uint8)


def place_of(array):
    return np.array(ndimage.center_of_mass(np.asarray(array)))


@pytest.mark.parametrize("flips", [(True, False, False), (False, True, True), (True, True, True), (False,) * 3])
def test_mirrored_twice_is_the_identity(channel, classes, flips):
    once = operations.mirror([channel, -channel], classes, tf.constant(flips))
    expected = np.flip(channel, [axis for axis in range(3) if flips[axis]])
    np.testing.assert_array_equal(once[0][0], expected)
    np.testing.assert_array_equal(once[0][1], -expected)
    (twice, _), its_classes = operations.mirror(*once, tf.constant(flips))
    np.testing.assert_array_equal(twice, channel)
    np.testing.assert_array_equal(its_classes, classes)


def test_warping_by_nothing_changes_nothing(channel, classes):
    (same, negative), its_classes = operations.warp([channel, -channel], classes, tf.eye(3))
    np.testing.assert_allclose(same, channel, atol=1e-6)
    np.testing.assert_allclose(negative, -channel, atol=1e-6)
    np.testing.assert_array_equal(its_classes, classes)


def test_quarter_turns_are_those_of_numpy():
    random = np.random.default_rng(0)
    cube = tf.constant(random.normal(size=(12, 12, 12)), tf.float32)
    labels = tf.constant(random.integers(0, 4, size=(12, 12, 12)), tf.uint8)
    for axis in range(3):
        degrees = np.zeros(3, np.float32)
        degrees[axis] = 90
        (turned,), its_labels = operations.warp([cube], labels, operations.rotation_matrix(tf.constant(degrees)))
        plane = ((axis + 1) % 3, (axis + 2) % 3)
        np.testing.assert_allclose(turned, np.rot90(cube, -1, plane), atol=1e-4)
        np.testing.assert_array_equal(its_labels, np.rot90(labels, -1, plane))


def test_rotations_are_those_of_nibabel():
    degrees = np.array([10.0, -20, 30], np.float32)
    radians = np.deg2rad(degrees)
    expected = (
        nib.eulerangles.euler2mat(z=radians[2])
        @ nib.eulerangles.euler2mat(y=radians[1])
        @ nib.eulerangles.euler2mat(x=radians[0])
    )
    np.testing.assert_allclose(operations.rotation_matrix(tf.constant(degrees)), expected, atol=1e-6)


@pytest.mark.parametrize("degrees", [(0, 0, 30), (15, -10, 20)])
@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
def test_a_landmark_goes_where_the_matrix_says_in_volume_and_classes(degrees, ratio):
    start = np.array([14.0, 8.0, 9.0])
    matrix = operations.rotation_matrix(tf.constant(degrees, tf.float32)) * ratio
    bright, core = blob(start)
    (moved,), its_core = operations.warp([bright], core, matrix)
    # Voxel p is filled from centre + matrix (p - centre), so the landmark comes to where that is `start`.
    expected = CENTRE + np.linalg.solve(np.asarray(matrix, np.float64), start - CENTRE)
    np.testing.assert_allclose(place_of(moved), expected, atol=0.1)
    np.testing.assert_allclose(place_of(its_core), expected, atol=0.5)
    assert np.linalg.norm(expected - start) > 0.5


def test_a_landmark_follows_the_elastic_shifts_in_volume_and_classes():
    start = np.array([13.0, 9.0, 8.0])
    for seed in range(5):
        shifts = operations.displacement(SIZES, tf.constant(0.25), tf.constant([seed, 1], tf.int64))
        bright, core = blob(start)
        (moved,), its_core = operations.warp([bright], core, tf.eye(3), shifts)
        # Where the landmark comes to: the p of p + shifts(p) = start.
        place = start.copy()
        for _ in range(50):
            here = [ndimage.map_coordinates(np.asarray(axis), place[:, None], order=1)[0] for axis in shifts]
            place = start - np.array(here)
        np.testing.assert_allclose(place_of(moved), place, atol=0.5)
        np.testing.assert_allclose(place_of(its_core), place_of(moved), atol=0.5)


def test_elastic_shifts_are_smooth_and_as_large_as_promised():
    share = 0.2
    largest = []
    for seed in range(20):
        shifts = np.asarray(operations.displacement(SIZES, tf.constant(share), tf.constant([seed, 1], tf.int64)))
        assert shifts.shape == (3, *SIZES)
        for axis, size in enumerate(SIZES):
            largest.append(np.abs(shifts[axis]).max() / (share * size))
        steps = [np.abs(np.diff(shifts, axis=axis)).max() for axis in (1, 2, 3)]
        assert max(steps) < 1  # Voxels never change places.
    assert 1 / 8 <= min(largest) < 0.2
    assert 0.4 < max(largest) <= 1 / 2 + 1e-6


def test_no_displacement_without_a_share():
    shifts = operations.displacement(SIZES, tf.constant(0.0), tf.constant([1, 1], tf.int64))
    np.testing.assert_array_equal(shifts, np.zeros((3, *SIZES)))


def test_what_comes_from_outside_is_background(channel, classes):
    (small,), its_classes = operations.warp([channel + 10], classes, tf.eye(3) * 2)
    assert not np.asarray(small)[0].any()
    assert not np.asarray(its_classes)[0].any()
    assert small[12, 10, 8] != 0


def test_noise_has_the_deviation(channel):
    noise = operations.noise(channel, tf.constant(0.2), tf.constant([1, 2], tf.int64)) - channel
    assert np.std(noise) == pytest.approx(0.2, rel=0.03)
    assert np.mean(noise) == pytest.approx(0, abs=0.01)


def test_brightness_and_contrast_by_hand():
    line = tf.constant([[[0.0, 1, 2, 9]]])
    assert np.ravel(operations.brightness(line, 2.0)).tolist() == [0, 2, 4, 18]
    # Mean 3, doubled around it: -3, -1, 1, 15, within the old range.
    assert np.ravel(operations.contrast(line, 2.0)).tolist() == [0, 0, 1, 9]
    assert np.ravel(operations.contrast(line, 0.5)).tolist() == [1.5, 2, 2.5, 6]


@pytest.mark.parametrize("exponent", [0.5, 2.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_gamma_bends_and_keeps_mean_and_deviation(channel, exponent, sign):
    operation = operations.gamma if sign == 1 else operations.inverted_gamma
    before = np.asarray(channel, np.float64) * sign
    expected = ((before - before.min()) / np.ptp(before)) ** exponent
    expected = (expected - expected.mean()) / expected.std() * before.std() + before.mean()
    np.testing.assert_allclose(operation(channel, exponent), expected * sign, atol=1e-4)


def test_gamma_of_one_value_is_finite():
    np.testing.assert_allclose(operations.gamma(tf.ones(SIZES) * 5, 2.0), 5)


def test_blur_is_scipys_away_from_the_edges(channel):
    blurred = operations.blur(channel, tf.constant(1.2))
    expected = ndimage.gaussian_filter(np.asarray(channel), 1.2, truncate=8)
    inner = np.s_[6:-6, 6:-6, 6:-6]
    np.testing.assert_allclose(blurred[inner], expected[inner], atol=1e-4)
    np.testing.assert_allclose(operations.blur(tf.ones(SIZES), tf.constant(1.2)), 1, rtol=1e-5)


def test_low_resolution_by_hand():
    line = tf.constant([0.0, 10, 20, 30, 40, 50, 60, 70])[None, None, :] * tf.ones((4, 4, 1))
    # Half as many: the nearest of 0-1, 2-3, ... is the second; between their centres, 0.5, 2.5, ..., a straight line.
    halved = np.asarray(operations.low_resolution(line, tf.constant(0.5)))[0, 0]
    np.testing.assert_allclose(halved, [10, 15, 25, 35, 45, 55, 65, 70], atol=1e-4)
    np.testing.assert_allclose(operations.low_resolution(line, tf.constant(1.0)), line, atol=1e-4)


def test_the_bias_field_is_numpys_legendre_polynomial(channel):
    coefficients = np.random.default_rng(0).uniform(-0.3, 0.3, size=(4, 4, 4))
    total = np.add.outer(np.add.outer(np.arange(4), np.arange(4)), np.arange(4))
    axes = [np.linspace(-1, 1, size) for size in SIZES]
    field = np.exp(np.polynomial.legendre.leggrid3d(*axes, np.where(total <= 3, coefficients, 0)))
    lowest = np.asarray(channel).min()
    expected = (np.asarray(channel) - lowest) * field + lowest
    received = operations.bias_field(channel, tf.constant(coefficients, tf.float32))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)
