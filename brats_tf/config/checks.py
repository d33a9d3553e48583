"""Checks of settings that depend on each other; `fields.check_section` checks each alone."""

from contextlib import suppress
from typing import Any

from brats_tf.config.settings import AlbuNetSettings, DataSettings, InferenceSettings, TrainingSettings
from brats_tf.errors import InputError, format_shape


def check_together(config: Any) -> None:
    """Raises `InputError` unless the sections of a `Config` fit each other."""
    _check_modalities(config.data)
    check_split(config.data)
    _check_network(config)
    _check_patches(config.data, config.inference)
    _check_schedule(config.training)
    batch_size, parts = config.training.batch_size, config.training.gradient_accumulation_steps
    if batch_size % parts:
        raise InputError(f"`gradient_accumulation_steps` must divide the batch size {batch_size}. Received: {parts}.")


def settled(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The values of settings as `fitting` returns them. Raises `InputError` where one that was `given` does nothing."""
    schedule, patience = values.get("schedule", TrainingSettings.schedule), given.get("plateau_patience")
    if patience is not None and schedule != "plateau":
        raise InputError(
            f"`plateau_patience` is for the schedule plateau. Received: {patience} for the schedule {schedule}."
        )
    return fitting(values, given)


def fitting(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The values of settings, fitted to what was `given` where that says nothing of them.

    Windows overlap as before where only the patches become smaller; a warm-up ends with the training.
    """
    patch, stride = (values.get(name) for name in ("patch_size", "window_stride"))
    with suppress(TypeError):  # What is no size or number is refused later.
        if "patch_size" in given and "window_stride" not in given and patch and stride:
            values = values | {"window_stride": tuple(map(min, patch, stride))}
        if "warmup_epochs" in values and "warmup_epochs" not in given and {"epochs", "schedule"} & set(given):
            values = values | {"warmup_epochs": min(values["warmup_epochs"], _longest_warmup(values))}
    return values


def _longest_warmup(values: dict[str, Any]) -> int:
    schedule = values.get("schedule", TrainingSettings.schedule)
    return 0 if schedule == "plateau" else values.get("epochs", TrainingSettings.epochs)


def check_split(data: DataSettings) -> None:
    """Raises `InputError` unless there is one fold of some, or a validation split, or neither."""
    folds, fold, share = data.folds, data.fold, data.validation_split
    if (folds is None) != (fold is None):
        raise InputError(f"`folds` and `fold` belong together. Received: folds={folds}, fold={fold}.")
    if folds is not None and share is not None:
        raise InputError(
            f"`folds` and `validation_split` exclude each other. Received: folds={folds}, validation_split={share}."
        )
    if folds is not None and fold is not None and fold >= folds:
        raise InputError(f"`fold` must be from 0 to folds - 1. Received: fold={fold}, folds={folds}.")
    if data.split_seed and folds is None and share is None:
        raise InputError(
            f"`split_seed` is for `folds` or `validation_split`. Received: {data.split_seed} without them."
        )
    if share is not None and share >= 1:
        raise InputError(f"`validation_split` must be between 0 and 1. Received: {share}.")


def _check_modalities(data: DataSettings) -> None:
    modalities = data.modalities
    if not modalities:
        raise InputError("`modalities` must name at least one modality. Received: none.")
    if len(set(modalities)) != len(modalities):
        raise InputError(f"`modalities` must not repeat. Received: {', '.join(modalities)}.")
    if data.modality_dropout and len(modalities) == 1:
        raise InputError(
            f"`modality_dropout` needs a network of several modalities. Received: {data.modality_dropout} for "
            f"{modalities[0]} alone."
        )


def _check_network(config: Any) -> None:
    if (getattr(config.network, "classifier_rate", 1), getattr(config.network, "batch_norm", "")) == (0, "batch"):
        raise InputError(
            "`classifier_rate` 0 keeps the classifier's statistics: `batch_norm` must be frozen. Received: batch."
        )
    if not isinstance(config.network, AlbuNetSettings):
        if config.data.patch_size:
            raise InputError(
                f"The {config.network.name} network sees whole crops: `crop` makes them smaller. Received: patch_size "
                f"{format_shape(config.data.patch_size)}."
            )
        return
    if config.compute.rematerialise:
        raise InputError("`rematerialise` is not available for AlbuNet. Received: rematerialise=True.")
    if config.data.patch_size is None:
        raise InputError("AlbuNet sees patches: `patch_size` must be H x W x D. Received: none.")


def _check_patches(data: DataSettings, inference: InferenceSettings) -> None:
    patch, stride = data.patch_size, inference.window_stride
    if patch is None:
        for section in (data, inference):
            for name in ("foreground_fraction", "window_stride", "window_weighting", "window_average"):
                field = type(section).__dataclass_fields__.get(name)
                if field and getattr(section, name) != field.default:
                    value = getattr(section, name)
                    raise InputError(
                        f"`{name}` is for networks that see patches. Received: {value} without `patch_size`."
                    )
        return
    for name, sizes, limits in (("patch_size", patch, data.crop), ("window_stride", stride, patch)):
        if sizes and any(size > limit for size, limit in zip(sizes, limits, strict=True)):
            raise InputError(
                f"`{name}` must be at most {format_shape(limits)} in each axis. Received: {format_shape(sizes)}."
            )


def _check_schedule(training: Any) -> None:
    limit = _longest_warmup({"schedule": training.schedule, "epochs": training.epochs})
    if training.warmup_epochs > limit:
        raise InputError(
            f"`warmup_epochs` must be from 0 to {limit} for the schedule {training.schedule} of {training.epochs} "
            f"epochs. Received: {training.warmup_epochs}."
        )
    watches_validation = training.plateau_monitor == "validation"
    if watches_validation and (training.schedule != "plateau" or training.validation_frequency is None):
        raise InputError(
            "`plateau_monitor` validation needs the schedule plateau and `validation_frequency`. Received: "
            f"{training.schedule}, {training.validation_frequency}."
        )
