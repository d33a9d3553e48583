"""A run as one frozen value, with the presets of the papers; saved as JSON beside the weights."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from brats_tf.errors import InputError
from brats_tf.files import write_json
from brats_tf.regions import MODALITIES
from brats_tf.splits import check_split

CROP = (192, 160, 108)  # H front-back, W left-right, D head-foot, in voxels (paper A, Section 2.1).
PHANTOM_SETTINGS = {"crop": (64, 64, 36), "epochs": 4, "learning_rate": 5e-4}  # Without data: minutes on a CPU.
FILE = "config.json"
AUGMENTATIONS = ("none", "paper_b", "authors_b", "plus")  # The presets of data.augment.
SEEDS = 2**32  # NumPy takes no more.

PRESETS = {
    "paper": {},
    "authors": {
        "network": "embedding_authors",
        "modalities": MODALITIES,
        "crop": (*CROP[:2], 144),
        "input_scaling": "imagenet",
        "batch_norm": "batch",
        "stochastic_depth": True,
        "optimizer": "nadam",
    },
    "plus": {"crop": (*CROP[:2], 144), "augmentation": "plus"},
}


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
    # The edge of cubic voxels, in mm, to resample every volume to; None takes voxels as they are (BraTS: 1 mm).
    spacing_mm: float | None = None
    # What happens to training cases: "none" (paper A names none), "paper_b", "authors_b" or "plus".
    augmentation: str = "none"
    # Which cases are kept from training: fold number `fold` (from 0) of `folds`, or a share; None trains on all.
    folds: int | None = None
    fold: int | None = None
    hold_out: float | None = None
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
    # "adam" or "nadam".
    optimizer: str = "adam"
    # Paper A, Section 2.5: 1e-4, divided by 10 after 50 epochs without improvement of the loss.
    learning_rate: float = 1e-4
    plateau_epochs: int = 50
    # Paper A, Section 2.1.
    batch_size: int = 1
    # Not stated in the paper: enough for the plateau to act more than once.
    epochs: int = 200
    seed: int = 0

    def __post_init__(self):
        for name in ("modalities", "crop", "depth_factors"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check(self)

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
        """The name of the run's folder: the modality, or the stacked modalities joined by hyphens."""
        return "-".join(self.modalities)

    def split_settings(self):
        """The keyword arguments of `splits.split_cases` that decide who is held out."""
        return {"folds": self.folds, "fold": self.fold, "hold_out": self.hold_out}

    def network_settings(self):
        """The keyword arguments of the network's builder."""
        return {
            "shape": (*self.crop, len(self.modalities)),
            "depth_factors": self.depth_factors,
            "planes": self.planes,
            "backbone": self.backbone,
            "input_scaling": self.input_scaling,
            "batch_norm": self.batch_norm,
            "stochastic_depth": self.stochastic_depth,
        }


def _check(config):
    for modality in config.modalities:
        if modality not in MODALITIES:
            raise InputError(f"`modalities` must be from {', '.join(MODALITIES)}. Received: {modality!r}.")
    if len(set(config.modalities)) != len(config.modalities):
        raise InputError(f"`modalities` must not repeat. Received: {', '.join(config.modalities)}.")
    if len(config.crop) != 3 or not all(isinstance(size, int) and size > 0 for size in config.crop):
        raise InputError(f"`crop` must be three positive whole numbers, H x W x D. Received: {config.crop}.")
    if config.optimizer not in ("adam", "nadam"):
        raise InputError(f"`optimizer` must be adam or nadam. Received: {config.optimizer!r}.")
    if config.augmentation not in AUGMENTATIONS:
        raise InputError(
            f"`augmentation` must be one of {', '.join(AUGMENTATIONS)}. Received: {config.augmentation!r}."
        )
    if config.spacing_mm is not None and not 0.1 <= config.spacing_mm <= 10:
        raise InputError(f"`spacing_mm` must be from 0.1 to 10. Received: {config.spacing_mm}.")
    check_split(config.folds, config.fold, config.hold_out)
    for name in ("planes", "epochs", "batch_size", "plateau_epochs"):
        value = getattr(config, name)
        if not isinstance(value, int) or value < 1:
            raise InputError(f"`{name}` must be a whole number of at least 1. Received: {value}.")
    if not config.learning_rate > 0:
        raise InputError(f"`learning_rate` must be above 0. Received: {config.learning_rate}.")
    if not isinstance(config.seed, int) or not 0 <= config.seed < SEEDS:
        raise InputError(f"`seed` must be a whole number from 0 to {SEEDS - 1}. Received: {config.seed}.")
