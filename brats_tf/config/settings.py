"""A run as one frozen value, with the presets of the papers; saved as JSON beside the weights."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from brats_tf.config.checks import BUILT_FROM, check
from brats_tf.config.presets import CROP, NETWORKS_OF, PRESETS
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES
from brats_tf.runtime.files import write_json

FILE = "config.json"
WEIGHTS_FILE, BEST_FILE = "network.weights.h5", "best.weights.h5"
EPOCHS = {"last": WEIGHTS_FILE, "best": BEST_FILE}  # Whose weights predict.


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes. The defaults are preset `paper` of paper A."""

    # Which modalities the network sees, stacked as channels; one for paper A, so it has no default.
    modalities: tuple
    preset: str = "paper"
    # A key of models.networks.NETWORKS.
    network: str = "embedding"
    # H x W x D of the image-centred crop, in voxels.
    crop: tuple = CROP
    # H x W x D of random patches to train on and of the windows that predict; None sees the whole crop (paper A).
    patch: tuple | None = None
    # From one window to the next, H x W x D in voxels; None: half a patch.
    step: tuple | None = None
    # How windows count where they overlap: "uniform" (paper B) or "gaussian"; and what is averaged there:
    # "probabilities" or, as in the code of paper B, "logits".
    window_weights: str = "uniform"
    window_average: str = "probabilities"
    # How often a patch is centred on the tumour; paper B draws all of them from the brain.
    foreground: float = 0.0
    # The edge of cubic voxels, in mm, to resample every volume to; None takes voxels as they are (BraTS: 1 mm).
    spacing_mm: float | None = None
    # What happens to training cases: "none" (paper A names none), "paper_b", "authors_b" or "plus".
    augmentation: str = "none"
    # Which cases are kept from training: fold number `fold` (from 0) of `folds`, or a share; None trains on all.
    folds: int | None = None
    fold: int | None = None
    hold_out: float | None = None
    # Epochs from one Dice of the held-out cases to the next, while training; None: never.
    validate_every: int | None = None
    # Three factors that squeeze D slices into the planes; None derives them from D.
    depth_factors: tuple | None = None
    # How many slices the squeeze leaves: the channels of the classifier's image (paper A, Table 1: 3).
    planes: int = 3
    # The 2D classifier, a key of models.backbones.BACKBONES.
    backbone: str = "efficientnetb0"
    # "imagenet", "noisy-student" (EfficientNet-B0 ... B7), "none" or the path of a weights file.
    weights: str = "imagenet"
    # "none" (the planes are the input) or "imagenet" (as if they were an image of 0..255).
    input_scaling: str = "none"
    # "frozen" (inference statistics) or "batch" (statistics of the one case in the batch).
    batch_norm: str = "frozen"
    # Whether the classifier drops residual branches while training, as on ImageNet; the paper names no dropout.
    stochastic_depth: bool = False
    # AlbuNet: whether slices see their neighbours.
    depth_layers: bool = True
    # "ce_minus_dice" (paper A), "multiple_dice" (paper B) or, with the background as a fourth class,
    # "multiple_dice_background" (the code of paper B).
    loss: str = "ce_minus_dice"
    # "adam" or "nadam".
    optimizer: str = "adam"
    # Paper A, Section 2.5: 1e-4, divided by 10 after 50 epochs without improvement of the loss.
    learning_rate: float = 1e-4
    plateau_epochs: int = 50
    # "plateau", "cosine" (to 0 at the last epoch) or "constant"; and what the plateau watches: the "loss" of training
    # (the text names no other) or the mean Dice of "validation".
    schedule: str = "plateau"
    plateau_on: str = "loss"
    # Epochs in which the rate of "cosine" or "constant" rises from 0.
    warm_up: int = 0
    # Which weights are kept: those of the last step ("none"), their exponential moving average over steps ("ema"), or
    # the mean of those after each epoch of the last quarter ("swa").
    average: str = "none"
    # What layers compute in; weights, losses, normalisation and the last activation are float32 in any case.
    precision: str = "float32"
    # Compute block interiors again on the way back instead of keeping them: less memory, more time, the same step.
    remat: bool = False
    # Compile the step with XLA; for GPUs.
    jit: bool = False
    # Paper A, Section 2.1.
    batch_size: int = 1
    # A batch goes through the network in so many equal parts, whose gradients are averaged: less memory, the same step,
    # except that batch norm and multiple Dice see one part at a time.
    accumulation: int = 1
    # Batches an epoch; None: as many as the cases make.
    batches: int | None = None
    # Not stated in the paper: enough for the plateau to act more than once.
    epochs: int = 200
    seed: int = 0

    def __post_init__(self):
        for name in ("modalities", "crop", "patch", "step", "depth_factors"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check(self)

    @classmethod
    def from_preset(cls, preset, **changes):
        """A preset's values with `changes` on top; changes that are None do not count.

        Raises:
            InputError: on an unknown preset, an unknown field or a value that is not allowed.
        """
        if preset not in PRESETS:
            raise InputError(f"`preset` must be one of {', '.join(PRESETS)}. Received: {preset!r}.")
        given = {name: value for name, value in changes.items() if value is not None}
        return cls._from_fields(PRESETS[preset] | {"preset": preset} | given)

    @classmethod
    def load(cls, run):
        """Reads the config of a run's folder. Raises `InputError` when there is none or it does not fit."""
        path = Path(run) / FILE
        try:
            fields = json.loads(path.read_text())
        except FileNotFoundError:
            raise InputError(f"{run} holds no trained network: {FILE} is missing. Train it first.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no readable JSON: {error}.") from None
        if not isinstance(fields, dict):
            raise InputError(f"{path} must hold a JSON object. Received: {type(fields).__name__}.")
        try:
            return cls._from_fields(fields, source=f"{path}: ")
        except TypeError as error:
            raise InputError(f"{path} holds a value of a wrong type: {error}.") from None

    def save(self, run):
        """Writes the config into a run's folder."""
        write_json(Path(run) / FILE, dataclasses.asdict(self))

    @classmethod
    def _from_fields(cls, fields, source=""):
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise InputError(f"{source}Unknown settings {', '.join(unknown)}. Known are: {', '.join(known)}.")
        if not fields.get("modalities"):
            raise InputError(f"{source}`modalities` must name at least one of {', '.join(MODALITIES)}. Received: none.")
        return cls(**fields)

    @property
    def run_name(self):
        """The name of the run's folder: the stacked modalities joined by hyphens; in front paper B's preset."""
        return "-".join((*((self.preset,) if self.network == "albunet" else ()), *self.modalities))

    @property
    def input_shape(self):
        """What the network takes: (H, W, D, C)."""
        return (*(self.patch or self.crop), len(self.modalities))

    @property
    def window_step(self):
        """From one window to the next, (H, W, D)."""
        return self.step or tuple(max(1, size // 2) for size in self.patch)

    def split_settings(self):
        """The keyword arguments of `splits.split_cases` that decide who is held out."""
        return {"folds": self.folds, "fold": self.fold, "hold_out": self.hold_out}

    def network_settings(self):
        """The keyword arguments of the network's builder."""
        return {"shape": self.input_shape} | {name: getattr(self, name) for name in BUILT_FROM.get(self.network, ())}


def networks_of(preset):
    """The modalities of each network that a preset trains without being told any: a tuple of tuples."""
    stacked = PRESETS[preset].get("modalities")
    return NETWORKS_OF.get(preset) or ((stacked,) if stacked else tuple((name,) for name in MODALITIES))


def run_names(preset):
    """The names of the runs that a preset trains, in order."""
    return tuple(Config.from_preset(preset, modalities=modalities).run_name for modalities in networks_of(preset))
