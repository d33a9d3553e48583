import numpy as np
import pytest

from brats_tf.inference.sliding_window import Windows, sliding_window_inference, window_starts, window_weights
from brats_tf.preprocessing.transforms import brain_box


def random_sizes(random):
    patch = random.integers(1, 9, 3)
    return tuple(random.integers(1, 18, 3)), tuple(patch), tuple(random.integers(1, patch + 1))


@pytest.mark.parametrize("seed", range(200))
def test_a_network_that_returns_its_input_gives_the_input_back_exactly(seed):
    random = np.random.default_rng(seed)
    shape, patch, step = random_sizes(random)
    volume = random.standard_normal((*shape, 2)).astype(np.float32)
    volume[random.random(shape) < 0.3] = 0
    got = sliding_window_inference(
        lambda x: x, volume, Windows(patch, step, batch_size=int(random.integers(1, 5))), outside=(0, 0)
    )
    np.testing.assert_array_equal(got, volume)


@pytest.mark.parametrize("seed", range(50))
def test_gaussian_weights_are_a_partition_of_unity(seed):
    random = np.random.default_rng(seed)
    shape, patch, step = random_sizes(random)
    volume = random.random((*shape, 1)).astype(np.float32) + 1
    ones = sliding_window_inference(np.ones_like, volume, Windows(patch, step, "gaussian"), outside=(0,))
    np.testing.assert_allclose(ones, 1, rtol=1e-6)
    got = sliding_window_inference(lambda x: x, volume, Windows(patch, step, "gaussian"), outside=(0,))
    np.testing.assert_allclose(got, volume, rtol=1e-6)


def test_overlaps_are_averaged_by_hand():
    # Windows of 2 with step 1 over 3 voxels; each predicts its number: 1, 1 and then 3, 3.
    numbers = iter([1.0, 3.0])
    volume = np.ones((1, 1, 3, 1), np.float32)
    got = sliding_window_inference(
        lambda x: np.full_like(x, next(numbers)),
        volume,
        Windows((1, 1, 2), (1, 1, 1), batch_size=1),
        outside=(0,),
    )
    np.testing.assert_array_equal(got.ravel(), [1, 2, 3])


def test_windows_without_brain_are_not_predicted_and_count_as_outside():
    volume = np.zeros((4, 4, 8, 1), np.float32)
    volume[:, :, [0, 7]] = 1  # The box is all of it; the middle holds nothing.
    seen = []

    def predict(x):
        seen.append(len(x))
        return np.repeat(np.array([[0.25, 0.75]], np.float32), x.size, axis=0).reshape(*x.shape[:-1], 2)

    got = sliding_window_inference(predict, volume, Windows((4, 4, 2), (4, 4, 2)), outside=(1, 0))
    assert sum(seen) == 2
    np.testing.assert_array_equal(got[0, 0, :, 0], [0.25, 0.25, 1, 1, 1, 1, 0.25, 0.25])
    np.testing.assert_array_equal(got.sum(axis=-1), 1)


def test_nothing_is_asked_of_the_network_for_an_empty_volume():
    got = sliding_window_inference(
        None, np.zeros((3, 3, 3, 1), np.float32), Windows((2, 2, 2), (1, 1, 1)), outside=(1, 0, 0, 0)
    )
    np.testing.assert_array_equal(got, np.eye(4)[np.zeros((3, 3, 3), int)])


def test_the_brains_box():
    volume = np.zeros((5, 6, 7, 2))
    volume[1, 2, 3, 0] = volume[3, 4, 5, 1] = -1
    assert brain_box(volume.any(axis=-1)) == (slice(1, 4), slice(2, 5), slice(3, 6))


def test_windows_of_the_paper():
    assert window_starts(155, 24, 24) == [0, 24, 48, 72, 96, 120, 131]
    assert window_starts(24, 24, 24) == [0]
    weights = window_weights(24, "gaussian")
    assert weights.argmax() in (11, 12) and weights.min() >= 1e-3
    np.testing.assert_array_equal(weights, weights[::-1])


@pytest.mark.parametrize("step", [(0, 1, 1), (1, 1, 3)])
def test_steps_that_leave_gaps_are_refused(step):
    with pytest.raises(ValueError, match="The stride must be from 1 to the window"):
        sliding_window_inference(None, np.ones((4, 4, 4, 1)), Windows((2, 2, 2), step), outside=(0,))


def test_the_weights_of_a_window_fall_with_an_eighth_of_its_edge():
    weights = window_weights(64, "gaussian")
    assert weights[[0, 31]] == pytest.approx([1e-3, np.exp(-0.5 * (0.5 / 8) ** 2)])
