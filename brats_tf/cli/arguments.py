"""Turns parsed arguments into configs, case lists and folders."""

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

from brats_tf.cli.options import FOLDERS, PHANTOMS
from brats_tf.config.config import Config, all_settings, run_names
from brats_tf.config.execution import EngineOptions, PostProcessing, PredictionEngine
from brats_tf.config.fields import settings_of
from brats_tf.config.presets import (
    DEFAULT_PRESET,
    PRESETS,
    VALIDATION_FREQUENCY,
    modalities_of,
    phantom_settings,
)
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES
from brats_tf.runtime.libraries import need_libraries

log = logging.getLogger(__name__)


def configs_from(given: Namespace) -> list[Config]:
    """The networks that the arguments ask to train."""
    if given.modality:
        wanted: Any = [(name,) for name in MODALITIES] if given.modality == "all" else [(given.modality,)]
    elif given.config or "modalities" not in PRESETS[preset_of(given)]:
        wanted = [None]  # From the file; a one-modality preset needs to be told, and `Config` says so.
    else:
        wanted = modalities_of(preset_of(given))
    return [config_from(given, modalities) for modalities in wanted]


def config_from(given: Namespace, modalities: tuple[str, ...] | None = None) -> Config:
    """One network: the preset or the `--config` file, with the options on top.

    Cases that validate do so every fifth epoch, unless the options or the file say otherwise.
    """
    flags = settings_given(given) | ({"modalities": modalities} if modalities else {})
    if "weights" in flags:  # They begin anew, whatever the file's run began from.
        flags = {"start_from": None} | flags
    validates = getattr(given, "validation_data", None) or {"validation_split", "fold"} & set(flags)
    usual = {"validation_frequency": VALIDATION_FREQUENCY} if validates else {}
    if getattr(given, "config", None):
        config = Config.load(given.config)
        if given.preset and given.preset != config.preset:
            raise InputError(f"--preset must be {config.preset}, as in {given.config}. Received: {given.preset}.")
        if config.training.validation_frequency is not None:
            usual = {}
        return config.replace(**(usual | flags))
    defaults = phantom_settings(preset_of(given)) if getattr(given, "phantoms", False) else {}
    return Config.from_preset(preset_of(given), **(defaults | usual | flags))


def displayed_config(given: Namespace) -> Config:
    """One network to look at, on FLAIR where neither the arguments nor the preset name a modality."""
    named = given.modality
    if named == "all" or not (named or given.config or "modalities" in PRESETS[preset_of(given)]):
        named = MODALITIES[0]
    return config_from(given, (named,) if named else None)


def preset_of(given: Namespace) -> str:
    """The preset that the arguments name, or the default."""
    return given.preset or DEFAULT_PRESET


def settings_given(given: Namespace) -> dict[str, Any]:
    """The settings of a run that the arguments name."""
    flags = {name: getattr(given, name, None) for name in all_settings()}
    return {name: value for name, value in flags.items() if value is not None}


def section_given(given: Namespace, section: type) -> Any:
    """A settings dataclass of a single command, with what the arguments name."""
    values = {name: getattr(given, name, None) for name in settings_of(section)}  # A command may have a part of them.
    return section(**{name: value for name, value in values.items() if value is not None})


def folder(given: Namespace, name: str) -> Path:
    """`--runs`, `--out` or `--results`, or its default, which lies in `phantoms/` for synthetic cases."""
    named = getattr(given, name)
    return named or (PHANTOMS if given.phantoms else Path()) / FOLDERS[name]


def runs_given(given: Namespace) -> list[Path]:
    """The folders of the networks that the arguments name, or of those that the preset trains."""
    beside = [f"--{option}" for option in ("preset", "name") if getattr(given, option)]
    if given.networks and beside:
        raise InputError(f"--networks names the networks already. Received also: {', '.join(beside)}.")
    return [folder(given, "runs") / name for name in given.networks or run_names(preset_of(given), given.name)]


def cases_from(given: Namespace, part: str, config: Config) -> list:
    """The cases of DATA, or synthetic ones for the crop of `config`.

    Raises:
        InputError: when the arguments name neither, or there is no case.
    """
    from brats_tf.data.phantoms import phantom_cases

    if given.data and given.phantoms:
        raise InputError(f"DATA and --phantoms exclude each other. Received both: {given.data}.")
    if given.data:
        return cases_in(given.data)
    if not given.phantoms:
        raise InputError("DATA is missing: name a folder or a list of cases, or use --phantoms for synthetic cases.")
    log.info(f"Using synthetic cases ({part}); everything about them is in {PHANTOMS}/ unless a folder is named.")
    return phantom_cases(PHANTOMS, part, crop=config.data.crop, seed=config.seed)


def cases_in(data: Path) -> list:
    """The cases of a folder or list; logs what was skipped."""
    from brats_tf.data.discovery import find_cases
    from brats_tf.data.notes import log_skipped

    found, skipped = find_cases(data)
    log_skipped(skipped)
    return found


def cases_to_predict(given: Namespace, runs: list[Path], config: Config) -> list:
    """The cases to predict: all of them, or those that the training of the runs did not see."""
    from brats_tf.data.splits import validation_cases

    if given.cases == "all":
        return cases_from(given, "unseen", config)
    return validation_cases(cases_from(given, "training", config), runs)


def engine_given(given: Namespace, section: type = EngineOptions) -> Any:
    """Where the arguments want the work done. Raises `InputError` where that engine is not there."""
    engine = section_given(given, section)
    if engine.engine == "ray":
        need_libraries("ray", "ray")
    elif engine.address:
        raise InputError(f"--address is for --engine ray. Received: --address {engine.address} without it.")
    elif isinstance(engine, PredictionEngine) and engine.workers:
        raise InputError(f"--workers is for --engine ray. Received: --workers {engine.workers} without it.")
    return engine


def postprocessing_given(given: Namespace, runs: list[Path]) -> PostProcessing:
    """The steps after the networks that the arguments ask for."""
    from brats_tf.inference.postprocessing import with_tuned

    steps = section_given(given, PostProcessing)
    mirror = getattr(given, "mirror", None) or "none"
    return with_tuned(steps, runs, given.checkpoint, mirror=mirror) if given.tuned else steps
