"""The losses: CE - Dice (embedding paper, Section 2.4) and multiple Dice (AlbuNet paper, Section 2.2)."""

import math

import keras
from keras import ops

from brats_tf.errors import InputError
from brats_tf.models.one_pass import scaled
from brats_tf.models.outputs import to_regions
from brats_tf.models.sums import means_of_products, means_over_space
from brats_tf.regions import REGION_THRESHOLD, REGIONS

EPSILON = 1e-7  # Only avoids 0 / 0; the paper gives no figure.


def make_loss(training, outputs):
    """The loss that `TrainingSettings` name, for a network's `outputs`. Raises `InputError` when it is for others."""
    if training.loss == "ce_minus_dice":
        return CrossEntropyMinusDice(outputs)
    if outputs != "classes":
        raise InputError(
            f"`loss` {training.loss} is for networks of exclusive classes, such as AlbuNet. Received: one of "
            "overlapping regions; take ce_minus_dice."
        )
    return MultipleDice(background=training.loss == "multiple_dice_background")


def soft_dice(target, prediction):
    """Soft Dice per case and channel: two (B, H, W, D, C) -> (B, C), between 0 and 1.

    2 sum(t p) / (sum(t^2) + sum(p^2) + epsilon), sums over H, W and D. Source: embedding paper, equation (1).
    """
    dice, _ = _dice_and_squares(_flat(target), _flat(prediction))
    return dice


def _flat(values):
    """(B, H, W, D, C) -> (B, N, C)."""
    size = -1 if None in values.shape[1:-1] else math.prod(values.shape[1:-1])
    return ops.reshape(values, (ops.shape(values)[0], size, values.shape[-1]))


def _size(flat):
    """The N of (B, N, C), as a float32."""
    return ops.cast(ops.shape(flat)[1], "float32")


def _dice_and_squares(target, prediction):
    """Soft Dice of (B, N, C), and its denominator as a mean over N: (B, C) twice."""
    squares = means_of_products(target, target) + means_of_products(prediction, prediction)
    squares += EPSILON / _size(target)
    return 2 * means_of_products(target, prediction) / squares, squares


class CrossEntropyMinusDice(keras.losses.Loss):
    """CE - Dice of probabilities (B, H, W, D, C), one number per case: (B,). Source: embedding paper, equation (2).

    The cross entropy is the mean over voxels, binary for overlapping `outputs="regions"` (sigmoid), categorical for
    exclusive `outputs="classes"` (softmax, background first); Dice is the mean over the regions, or over the classes
    without the background. In a traced TensorFlow network the gradient for regions is written out, so that the backward
    pass keeps target and probabilities alone; and it is of the logits. With JAX, and eagerly, Keras clips probabilities
    at 1e-7, so that a voxel whose logit is wrong by more than 16 has a smaller loss and no gradient.
    """

    def __init__(self, outputs="regions", name="ce_minus_dice", **kwargs):
        super().__init__(name=name, **kwargs)
        if outputs not in ("regions", "classes"):
            raise ValueError(f"`outputs` must be 'regions' or 'classes'. Received: {outputs!r}.")
        self.outputs = outputs

    def call(self, y_true, y_pred):
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        logits = _logits_of(y_pred) if self.outputs == "regions" else None
        if logits is not None:
            return _of_logits(*map(_flat, (logits, y_true, y_pred)))
        if self.outputs == "regions":
            entropy = keras.losses.binary_crossentropy(y_true, y_pred)
            dice = soft_dice(y_true, y_pred)
        else:
            entropy = keras.losses.categorical_crossentropy(y_true, y_pred)
            dice = soft_dice(y_true[..., 1:], y_pred[..., 1:])
        return ops.mean(entropy, axis=(1, 2, 3)) - ops.mean(dice, axis=-1)

    def get_config(self):
        return super().get_config() | {"outputs": self.outputs}


def _logits_of(probabilities):
    """What the sigmoid was given whose output `probabilities` are, as Keras looks for it; None where it is unknown."""
    operation = None if keras.backend.backend() != "tensorflow" else getattr(probabilities, "op", None)
    return operation.inputs[0] if operation is not None and operation.type == "Sigmoid" else None


def _of_logits(logits, target, probabilities):
    """`CrossEntropyMinusDice` of regions in TensorFlow: (B, N, C) three times -> (B,).

    With logits x, p = sigmoid(x), target t and the denominator s of Dice as a mean over N:
    dL/dx = ((p - t) - 2 (t - dice p) p (1 - p) / s) / (N C).
    """

    @ops.custom_gradient
    def function(logits):
        entropy = means_over_space(ops.softplus(logits) - logits * target)
        dice, squares = _dice_and_squares(target, probabilities)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            slope = 2 / squares
            towards = scaled(target, slope) - scaled(probabilities, slope * dice)
            towards = towards * (probabilities * (1 - probabilities))
            return (probabilities - target - towards) * (upstream / (_size(target) * target.shape[-1]))[:, None, None]

        return ops.mean(entropy - dice, axis=-1), gradient

    return function(logits)


class MultipleDice(keras.losses.Loss):
    """1 - mean Dice of exclusive classes (B, H, W, D, 4), background first: (B,), one number from 0 to 1, repeated.

    Dice = 2 sum(r p) / (sum(r) + sum(p)), sums over all voxels of the batch (the text's n; that it runs over the batch:
    authors' code), so a class that one patch lacks is judged by the others. A class that the whole batch lacks scores
    0. Several devices each sum over their own part of a batch. Source: AlbuNet paper, equation (1), K = 3; with
    `background` K = 4, as in the authors' code.
    """

    def __init__(self, background=False, name="multiple_dice", **kwargs):
        super().__init__(name=name, **kwargs)
        self.background = background

    def call(self, y_true, y_pred):
        first = 0 if self.background else 1
        target, prediction = (_flat(ops.cast(values[..., first:], "float32")) for values in (y_true, y_pred))
        # Means instead of sums: float32 cannot count the voxels of a batch. Cases are of one size.
        both, sizes = (
            ops.mean(means, axis=0)
            for means in (
                means_of_products(target, prediction),
                means_over_space(target) + means_over_space(prediction),
            )
        )
        cases = ops.shape(target)[:1]
        smallest = EPSILON / (_size(target) * ops.cast(cases[0], "float32"))
        return ops.broadcast_to(1 - ops.mean(2 * both / (sizes + smallest)), cases)  # Keras divides no scalar.

    def get_config(self):
        return super().get_config() | {"background": self.background}


def region_dice(region, outputs="regions"):
    """A Keras metric function: Dice of one region after the threshold of 0.5, per case: two (B, H, W, D, C) -> (B,).

    Both empty scores 1. For monitoring only; `evaluation.metrics` scores label maps.
    """
    channel = REGIONS.index(region)

    def dice(y_true, y_pred):
        truth, prediction = (
            ops.cast(to_regions(values, outputs)[..., channel] > REGION_THRESHOLD, "float32")
            for values in (y_true, y_pred)
        )
        overlap = ops.sum(truth * prediction, axis=(1, 2, 3))
        sizes = ops.sum(truth + prediction, axis=(1, 2, 3))
        return ops.where(sizes > 0, 2 * overlap / ops.maximum(sizes, 1), 1.0)

    dice.__name__ = f"dice_{region.lower()}"
    return dice
