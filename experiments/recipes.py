"""How `jax_training` and `torch_training` train a network, and in which order they take the cases."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from brats_tf.regions import REGIONS

BRIGHTNESS = 0.1  # Scale and shift of each modality, of a z-scored volume.


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        loss: a `keras.losses.Loss` of targets and probabilities.
        outputs: "regions" or "classes", see `registry.Network`.
        steps: of the whole training; the rate follows a cosine to `final_rate` over them, after a warm-up.
        final_rate: the factor of the learning rate at the end; 1 keeps it constant after the warm-up.
        classifier_rate: the factor of the learning rate for the classifier.
        ema: momentum of a moving average of the weights, taken for prediction; 0 for none.
        mirror: axes of (H, W, D) that are mirrored in half of the steps each.
        brightness: whether each modality's brain is scaled and shifted by up to `BRIGHTNESS`.
        modality_dropout: the share of steps in which one of the modalities is 0.
    """

    loss: Any
    outputs: str
    steps: int
    learning_rate: float = 2e-4
    warmup: int = 0
    weight_decay: float = 0.0
    classifier_rate: float = 1.0
    ema: float = 0.0
    mirror: tuple = ()
    brightness: bool = False
    modality_dropout: float = 0.0
    final_rate: float = 0.0

    @property
    def channels(self):
        """How many of a network's channels are predictions: of regions all but those of further heads; None for all."""
        return len(REGIONS) if self.outputs == "regions" else None


def shuffled(count, steps, seed):
    """`steps` indices of `count` cases; each case comes once before any comes again."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(count) for _ in range(-(-steps // count))])[:steps]
