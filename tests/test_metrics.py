import numpy as np
import pytest

from brats_tf.metrics import dice, summarise


def ball(radius, size=41):
    axes = np.mgrid[:size, :size, :size] - size // 2
    return (axes**2).sum(axis=0) <= radius**2


def test_nested_balls_have_the_dice_of_their_volumes():
    small, large = ball(8), ball(12)
    expected = 2 * small.sum() / (small.sum() + large.sum())
    assert dice(large, small) == expected
    # From the radii: 2 r^3 / (r^3 + R^3), up to the voxels' corners.
    assert expected == pytest.approx(2 * 8**3 / (8**3 + 12**3), abs=0.01)


def test_dice_is_symmetric_and_between_0_and_1():
    random = np.random.default_rng(0)
    for _ in range(20):
        first, second = (random.random((2, 6, 6, 6)) < random.random()).astype(bool)
        assert dice(first, second) == dice(second, first)
        assert 0 <= dice(first, second) <= 1


def test_empty_regions_follow_the_platform():
    empty, full = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    assert (dice(empty, empty), dice(empty, full), dice(full, empty)) == (1, 0, 0)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"Received: \(2,\) and \(3,\)"):
        dice(np.ones(2, bool), np.ones(3, bool))


def test_summary_by_hand():
    summary = summarise([0.2, 0.4, 0.9])
    assert summary["mean"] == pytest.approx(0.5)
    assert summary["std"] == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 3))
    assert summary["median"] == 0.4
    assert summary["n"] == 3
