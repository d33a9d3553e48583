"""What the parsed arguments of a command ask for: a run, or cases."""

from pathlib import Path

from brats_tf.config.presets import (
    PHANTOM_PATCH,
    PHANTOM_PATCHES,
    PHANTOM_SETTINGS,
    PHANTOM_STEP,
    PRESETS,
    VALIDATE_EVERY,
)
from brats_tf.config.settings import Config, networks_of, run_names
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES


def phantom_settings(preset):
    """What replaces a preset's settings without --data, so that minutes on a CPU do."""
    its = PRESETS[preset]
    if "patch" not in its:
        return PHANTOM_SETTINGS
    sizes = {"patch": PHANTOM_PATCH, "step": PHANTOM_STEP}
    return PHANTOM_PATCHES | {name: (*size[:2], min(size[2], its[name][2])) for name, size in sizes.items()}


def wanted_networks(given):
    """The modalities of each network that the arguments ask to train: a tuple of tuples; (None,) when none is said."""
    if given.modality == "all":
        return tuple((name,) for name in MODALITIES)
    if given.modality:
        return ((given.modality,),)
    several = networks_of(given.preset)
    # One-modality presets want to be told which; `Config` says so.
    return (None,) if "modalities" not in PRESETS[given.preset] else several


def networks_given(given):
    """The runs that the arguments name, or those that the preset trains."""
    return given.networks or run_names(given.preset)


def config_of(given, **changes):
    """The run that the arguments describe; without --data for phantoms."""
    defaults = {} if given.data else phantom_settings(given.preset)
    settings = defaults | given_settings(given) | {name: value for name, value in changes.items() if value}
    return Config.from_preset(given.preset, **settings)


def one_config(given):
    """The run that the arguments describe, on FLAIR where neither they nor the preset name a modality."""
    modality = given.modality or (None if "modalities" in PRESETS[given.preset] else MODALITIES[0])
    settings = given_settings(given) | ({"modalities": (modality,)} if modality else {})
    return Config.from_preset(given.preset, **settings)


def windows_config(given, config):
    """The run that `bench` measures in windows: that of the arguments, or without any of them preset albunet3d.

    Raises:
        InputError: when they describe a network that sees whole crops, and only windows are to be measured.
    """
    if config.patch:
        return config
    if given.only == "windows" and (given_settings(given) or given.modality or given.preset != "paper"):
        raise InputError("Windows are for networks that see patches, such as --preset albunet3d.")
    return Config.from_preset("albunet3d")


def scored_cases(given, config):
    """The cases to predict or to score: all of them, or with --held-out those that training has not seen."""
    from brats_tf.data.splits import held_out_cases

    found = cases_of(given, "training" if given.held_out else "unseen", config)
    return held_out_cases(found, [given.runs / name for name in networks_given(given)]) if given.held_out else found


def given_settings(given):
    """The settings of a run that the arguments name."""
    names = (
        "crop",
        "patch",
        "step",
        "window_weights",
        "foreground",
        "batch_size",
        "batches",
        "accumulation",
        "spacing_mm",
        "augmentation",
        "validate_every",
        "backbone",
        "depth_factors",
        "planes",
        "input_scaling",
        "batch_norm",
        "weights",
        "epochs",
        "learning_rate",
        "schedule",
        "warm_up",
        "plateau_on",
        "average",
        "precision",
        "remat",
        "jit",
        "seed",
    )
    settings = {name: getattr(given, name) for name in names if getattr(given, name, None) is not None}
    return _held_out(given) | settings


def _held_out(given):
    """What is kept from training, and how often it is scored."""
    fold, validation = getattr(given, "fold", None), getattr(given, "validation", None)
    settings = {"fold": fold[0], "folds": fold[1]} if fold else {}
    if isinstance(validation, float):
        settings["hold_out"] = validation
    return settings | {"validate_every": VALIDATE_EVERY} if fold or validation is not None else settings


def cases_of(given, part, config):
    """The cases of --data, or phantoms for the crop of `config`; says which, and what was skipped."""
    from brats_tf.data.phantoms import phantom_cases
    from brats_tf.runtime.console import say

    if not given.data:
        say(f"No --data (make: DATA=) given: using made-up cases, the {part} phantoms.")
        return phantom_cases(given.runs, part, crop=config.crop, seed=config.seed)
    return found_cases(given.data)


def found_cases(data):
    """The cases of a folder or list; says what was skipped."""
    from brats_tf.data.discovery import find_cases
    from brats_tf.runtime.console import say

    found, skipped = find_cases(data)
    for path, reason in skipped:
        say(f"Skipped {path}: {reason}.")
    return found


def steps_given(given, runs):
    """The `postprocessing.Steps` that the arguments ask for."""
    from brats_tf.inference.postprocessing import Steps, with_tuned

    if given.drop_et_below_ml == "tuned":
        return with_tuned(Steps(given.remove_below_ml, given.fill_holes), runs)
    return Steps(given.remove_below_ml, given.fill_holes, given.drop_et_below_ml)


def validation_cases(given):
    """The cases of --validation where it is a path; None where it is not."""
    return found_cases(given.validation) if isinstance(given.validation, Path) else None
