"""What the parsed arguments of a command ask for: a run, or cases."""

from brats_tf.config import PRESETS, Config
from brats_tf.regions import MODALITIES


def config_of(given, defaults, **changes):
    """The run that the arguments describe."""
    settings = defaults | given_settings(given) | {name: value for name, value in changes.items() if value}
    return Config.from_preset(given.preset, **settings)


def one_config(given):
    """The run that the arguments describe, on FLAIR where neither they nor the preset name a modality."""
    modality = given.modality or (None if "modalities" in PRESETS[given.preset] else MODALITIES[0])
    return config_of(given, {}, modalities=(modality,) if modality else None)


def scored_cases(given, config):
    """The cases to predict or to score: all of them, or with --held-out those that training has not seen."""
    from brats_tf.splits import held_out_cases

    found = cases_of(given, "training" if given.held_out else "unseen", config)
    return held_out_cases(found, [given.runs / name for name in given.networks]) if given.held_out else found


def given_settings(given):
    """The settings of a run that the arguments name."""
    names = (
        "crop",
        "spacing_mm",
        "augmentation",
        "folds",
        "fold",
        "hold_out",
        "backbone",
        "depth_factors",
        "planes",
        "input_scaling",
        "batch_norm",
        "weights",
        "epochs",
        "learning_rate",
        "seed",
    )
    return {name: getattr(given, name) for name in names if getattr(given, name, None) is not None}


def cases_of(given, part, config):
    """The cases of --data, or phantoms for the crop of `config`; says which, and what was skipped."""
    from brats_tf.data.cases import find_cases
    from brats_tf.data.phantom import phantom_cases
    from brats_tf.screen import say

    if not given.data:
        say(f"No --data (make: DATA=) given: using made-up cases, the {part} phantoms.")
        return phantom_cases(given.runs, part, crop=config.crop, seed=config.seed)
    found, skipped = find_cases(given.data)
    for path, reason in skipped:
        say(f"Skipped {path}: {reason}.")
    return found
