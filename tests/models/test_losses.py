import keras
import numpy as np
import pytest
import tensorflow as tf

from brats_tf.config.config import Config
from brats_tf.errors import InputError
from brats_tf.models import losses
from brats_tf.models.losses import CrossEntropyMinusDice, MultipleDice, make_loss, region_dice, soft_dice
from brats_tf.models.outputs import to_regions


def random_pair(channels, seed=0):
    random = np.random.default_rng(seed)
    target = (random.random((2, 4, 5, 6, channels)) < 0.3).astype("float32")
    prediction = random.uniform(0.01, 0.99, size=target.shape).astype("float32")
    return target, prediction


def test_soft_dice_by_hand():
    # One case, one channel, two voxels: t = (1, 0), p = (0.5, 0.5) -> 2 * 0.5 / (1 + 0.5) = 2/3.
    target = np.array([1, 0], "float32").reshape(1, 2, 1, 1, 1)
    prediction = np.array([0.5, 0.5], "float32").reshape(1, 2, 1, 1, 1)
    np.testing.assert_allclose(soft_dice(target, prediction), [[2 / 3]], rtol=1e-6)


def test_soft_dice_of_an_empty_region_is_zero_not_nan():
    empty = np.zeros((1, 2, 2, 2, 1), "float32")
    np.testing.assert_array_equal(soft_dice(empty, empty), [[0.0]])


def test_the_loss_is_cross_entropy_minus_dice_over_three_regions():
    target, prediction = random_pair(3)
    entropy = -(target * np.log(prediction) + (1 - target) * np.log(1 - prediction)).mean(axis=(1, 2, 3, 4))
    overlap, squares = (target * prediction).sum((1, 2, 3)), (target**2 + prediction**2).sum((1, 2, 3))
    expected = (entropy - (2 * overlap / squares).mean(axis=-1)).mean()
    np.testing.assert_allclose(CrossEntropyMinusDice()(target, prediction), expected, rtol=1e-5)


def loss_and_gradient(target, logits):
    """The loss of each case, and the gradient of their sum, as a traced training step has them."""

    @tf.function(autograph=False)
    def traced(target, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = CrossEntropyMinusDice().call(target, tf.sigmoid(logits))
        return loss, tape.gradient(loss, logits)

    return [found.numpy() for found in traced(tf.constant(target), tf.constant(logits))]


@pytest.mark.parametrize("shape", [(2, 4, 5, 6, 3), (1, 64, 32, 48, 3)])
def test_the_gradient_written_out_is_that_of_the_formula(shape, monkeypatch):
    random = np.random.default_rng(0)
    target, logits = (random.random(shape) < 0.3).astype("float32"), random.normal(0, 3, shape).astype("float32")
    target[0, ..., 2] = 0  # An empty region.
    found = loss_and_gradient(target, logits)
    monkeypatch.setattr(losses, "_logits_of", lambda probabilities: None)
    monkeypatch.setattr(losses, "means_of_products", lambda x, y: tf.reduce_mean(x * y, axis=1))
    for received, expected in zip(found, loss_and_gradient(target, logits), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_a_voxel_that_is_wrong_for_certain_still_learns():
    """Where the sigmoid is 1 to the last digit, its own gradient is 0."""
    logits = np.full((1, 2, 2, 2, 3), 40, "float32")
    loss, gradient = loss_and_gradient(np.zeros_like(logits), logits)
    np.testing.assert_allclose(loss, 40, rtol=1e-6)
    np.testing.assert_allclose(gradient, 1 / gradient.size, rtol=1e-6)


def test_soft_dice_is_right_at_full_size():
    """A sum in float32 of one voxel after another would be wrong by 0.002."""
    random = np.random.default_rng(0)
    target = (random.random((1, 192, 160, 108, 3), "float32") < 0.05).astype("float32")
    prediction = 0.8 * target + 0.2 * random.random(target.shape, "float32")
    sums = [np.einsum("bhwdc,bhwdc->bc", *pair, dtype="float64") for pair in ((target, target), (prediction,) * 2)]
    expected = 2 * np.einsum("bhwdc,bhwdc->bc", target, prediction, dtype="float64") / sum(sums)
    np.testing.assert_allclose(soft_dice(target, prediction), expected, atol=1e-5)


def test_multiple_dice_is_right_for_batches_of_millions_of_voxels():
    """A plain sum in float32 would be wrong by 0.0003 here, and by more with more voxels."""
    random = np.random.default_rng(0)
    target = np.eye(4, dtype="float32")[random.choice(4, p=(0.97, 0.01, 0.01, 0.01), size=(6, 128, 128, 24))]
    prediction = 0.7 * target + 0.3 * random.random(target.shape, "float32")
    sizes = target.sum((0, 1, 2, 3), dtype="float64") + prediction.sum((0, 1, 2, 3), dtype="float64")
    expected = 1 - (2 * np.einsum("bhwdc,bhwdc->c", target, prediction, dtype="float64") / sizes).mean()
    np.testing.assert_allclose(MultipleDice(background=True)(target, prediction), expected, atol=1e-5)


def test_the_loss_of_classes_leaves_the_background_out_of_dice():
    random = np.random.default_rng(0)
    target = np.eye(4, dtype="float32")[random.integers(0, 4, size=(2, 3, 4, 5))]
    prediction = random.uniform(0.1, 1, size=target.shape).astype("float32")
    prediction /= prediction.sum(axis=-1, keepdims=True)
    entropy = -(target * np.log(prediction)).sum(-1).mean(axis=(1, 2, 3))
    overlap, squares = (target * prediction).sum((1, 2, 3)), (target**2 + prediction**2).sum((1, 2, 3))
    expected = (entropy - (2 * overlap / squares)[:, 1:].mean(axis=-1)).mean()
    np.testing.assert_allclose(CrossEntropyMinusDice("classes")(target, prediction), expected, rtol=1e-5)


def test_a_perfect_prediction_has_the_smallest_loss():
    target, _ = random_pair(3)
    np.testing.assert_allclose(CrossEntropyMinusDice()(target, target), -1, atol=1e-4)


def test_the_loss_survives_serialisation():
    loss = keras.losses.deserialize(
        keras.losses.serialize(CrossEntropyMinusDice("classes")),
        custom_objects={"CrossEntropyMinusDice": CrossEntropyMinusDice},
    )
    assert loss.outputs == "classes"


def test_unknown_outputs_are_refused():
    with pytest.raises(ValueError, match="Received: 'labels'"):
        CrossEntropyMinusDice("labels")


def test_class_probabilities_add_up_to_regions():
    regions = np.array(to_regions(np.array([[0.1, 0.2, 0.3, 0.4]], "float32"), "classes"))
    np.testing.assert_allclose(regions, [[0.9, 0.6, 0.4]], rtol=1e-6)  # WT, TC, ET


def test_region_dice_after_the_threshold():
    target = np.zeros((1, 4, 1, 1, 3), "float32")
    target[0, :2, ..., 1] = 1
    prediction = np.zeros_like(target)
    prediction[0, 1:3, ..., 1] = 0.6  # One voxel of two shared: Dice 1/2. The other regions are empty: 1.
    scores = [float(region_dice(region)(target, prediction)[0]) for region in ("WT", "TC", "ET")]
    assert scores == [1.0, 0.5, 1.0]


def test_multiple_dice_is_refused_for_overlapping_regions():
    """It leaves the first channel out, or takes it for the background: of regions that is the whole tumour."""
    for name in ("multiple_dice", "multiple_dice_background"):
        training = Config.from_preset("embedding-plus", loss=name).training
        assert isinstance(make_loss(training, "classes"), MultipleDice)
        with pytest.raises(InputError, match=f"`loss` {name} is for networks of exclusive classes"):
            make_loss(training, "regions")


@pytest.mark.parametrize("background", [False, True])
def test_multiple_dice_in_three_lines_of_numpy(background):
    random = np.random.default_rng(0)
    target = np.eye(4, dtype="float32")[random.integers(0, 3, size=(2, 3, 4, 5))]  # Class 3 is empty.
    prediction = random.uniform(0.1, 1, size=target.shape).astype("float32")
    prediction /= prediction.sum(axis=-1, keepdims=True)
    r, p = (values.reshape(-1, 4)[:, 0 if background else 1 :] for values in (target, prediction))
    dice = 2 * (r * p).sum(axis=0) / (r.sum(axis=0) + p.sum(axis=0))
    expected = 1 - dice.mean()
    assert dice[-1] == 0
    np.testing.assert_allclose(MultipleDice(background)(target, prediction), expected, rtol=1e-6)
    assert MultipleDice(background).call(target, prediction).shape == (2,)  # Which Keras divides among devices.
    empty = np.eye(4, dtype="float32")[np.zeros((1, 2, 2, 2), int)]
    np.testing.assert_allclose(MultipleDice(background)(empty, empty), 0.75 if background else 1, rtol=1e-6)
    assert MultipleDice.from_config(MultipleDice(background).get_config()).background == background
