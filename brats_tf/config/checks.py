"""What the settings of a run may be, each alone and together: the checks of `config.Config`."""

import dataclasses

from brats_tf.data.splits import check_split
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES

CHOICES = {
    "optimizer": ("adam", "nadam"),
    "loss": ("ce_minus_dice", "multiple_dice", "multiple_dice_background"),
    "window_weights": ("uniform", "gaussian"),
    "window_average": ("probabilities", "logits"),
    "precision": ("float32", "bfloat16", "float16"),
    "schedule": ("plateau", "cosine", "constant"),
    "plateau_on": ("loss", "validation"),
    "average": ("none", "ema", "swa"),
}
AUGMENTATIONS = ("none", "paper_b", "authors_b", "plus")  # The presets of data.augment.
SEEDS = 2**32  # NumPy takes no more.

# Which fields each network is built from; any other network's must keep their defaults.
_EMBEDDING = ("depth_factors", "planes", "backbone", "input_scaling", "batch_norm", "stochastic_depth")
BUILT_FROM = {"embedding": _EMBEDDING, "embedding_authors": _EMBEDDING, "albunet": ("depth_layers",)}


def check(config):
    """Raises `InputError` unless all settings are allowed and belong together."""
    for modality in config.modalities:
        if modality not in MODALITIES:
            raise InputError(f"`modalities` must be from {', '.join(MODALITIES)}. Received: {modality!r}.")
    if len(set(config.modalities)) != len(config.modalities):
        raise InputError(f"`modalities` must not repeat. Received: {', '.join(config.modalities)}.")
    if len(config.crop) != 3 or not all(isinstance(size, int) and size > 0 for size in config.crop):
        raise InputError(f"`crop` must be three positive whole numbers, H x W x D. Received: {config.crop}.")
    _check_network(config)
    _check_patch(config)
    for name, known in CHOICES.items():
        if getattr(config, name) not in known:
            raise InputError(f"`{name}` must be {' or '.join(known)}. Received: {getattr(config, name)!r}.")
    if config.augmentation not in AUGMENTATIONS:
        raise InputError(
            f"`augmentation` must be one of {', '.join(AUGMENTATIONS)}. Received: {config.augmentation!r}."
        )
    if config.spacing_mm is not None and not 0.1 <= config.spacing_mm <= 10:
        raise InputError(f"`spacing_mm` must be from 0.1 to 10. Received: {config.spacing_mm}.")
    check_split(config.folds, config.fold, config.hold_out)
    optional = ("batches", "validate_every")
    for name in ("planes", "epochs", "batch_size", "accumulation", "plateau_epochs", *optional):
        value = getattr(config, name)
        if value is None and name in optional:
            continue
        if not isinstance(value, int) or value < 1:
            raise InputError(f"`{name}` must be a whole number of at least 1. Received: {value}.")
    _check_rate(config)
    if not isinstance(config.seed, int) or not 0 <= config.seed < SEEDS:
        raise InputError(f"`seed` must be a whole number from 0 to {SEEDS - 1}. Received: {config.seed}.")
    if config.batch_size % config.accumulation:
        raise InputError(
            f"`accumulation` must divide the batch size {config.batch_size}. Received: {config.accumulation}."
        )


def _check_rate(config):
    if not config.learning_rate > 0:
        raise InputError(f"`learning_rate` must be above 0. Received: {config.learning_rate}.")
    most = 0 if config.schedule == "plateau" else config.epochs
    if not isinstance(config.warm_up, int) or not 0 <= config.warm_up <= most:
        raise InputError(
            f"`warm_up` must be from 0 to {most} for the schedule {config.schedule} of {config.epochs} epochs. "
            f"Received: {config.warm_up}."
        )
    if config.plateau_on == "validation" and (config.schedule != "plateau" or config.validate_every is None):
        raise InputError(
            "`plateau_on` validation needs the schedule plateau and `validate_every`. Received: "
            f"{config.schedule}, {config.validate_every}."
        )


def _check_network(config):
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    used = BUILT_FROM.get(config.network, ())
    for name in {*_EMBEDDING, *BUILT_FROM["albunet"]} - {*used}:
        if getattr(config, name) != defaults[name] and config.network in BUILT_FROM:
            raise InputError(f"The network {config.network} has no `{name}`. Received: {getattr(config, name)}.")
    if config.remat and config.network == "albunet":
        raise InputError("AlbuNet has no residual blocks to compute again. Received: remat=True.")
    if config.patch is None and config.network == "albunet":
        raise InputError("AlbuNet sees patches: `patch` must be H x W x D. Received: none.")


def _check_patch(config):
    for name, most in (("patch", config.crop), ("step", config.patch)):
        sizes = getattr(config, name)
        if sizes is None:
            continue
        if most is None:
            raise InputError(f"`{name}` is for networks that see patches. Received: {sizes} without `patch`.")
        if len(sizes) != 3 or not all(
            isinstance(one, int) and 1 <= one <= top for one, top in zip(sizes, most, strict=False)
        ):
            raise InputError(f"`{name}` must be three whole numbers from 1 to {most}, H x W x D. Received: {sizes}.")
    for name in ("foreground", "window_weights", "window_average"):
        default = type(config).__dataclass_fields__[name].default
        if config.patch is None and getattr(config, name) != default:
            raise InputError(
                f"`{name}` is for networks that see patches. Received: {getattr(config, name)} without `patch`."
            )
    if not 0 <= config.foreground <= 1:
        raise InputError(f"`foreground` must be from 0 to 1. Received: {config.foreground}.")
