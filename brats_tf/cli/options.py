"""Options of the command line, generated from the settings; and those that name files and folders."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from brats_tf.config.config import NETWORKS
from brats_tf.config.execution import TrainingOptions
from brats_tf.config.fields import Names, Setting, Size, allowed_values, check_value, settings_of
from brats_tf.config.presets import DEFAULT_PRESET, PRESETS, SUMMARIES
from brats_tf.errors import InputError, format_shape
from brats_tf.regions import CONVENTIONS, MODALITIES

PHANTOMS = Path("phantoms")  # Where everything about synthetic cases goes unless a folder is named.
FOLDERS = {"runs": "runs", "out": "predictions", "results": "results"}


def add_settings(
    parser: argparse.ArgumentParser, section: type, names: Iterable[str] | None = None, *, defaults: dict | None = None
) -> None:
    """Adds an option for each setting of a section, or for those named, in a group with the section's title.

    `defaults` are those of a command that has its own.
    """
    group = parser.add_argument_group((section.__doc__ or "").partition(".")[0].partition(";")[0])
    for name, one in settings_of(section).items():
        own_option = name == "modalities" or (name == "name" and section in NETWORKS.values())
        if not own_option and (names is None or name in names):
            add_setting(group, one, defaults=defaults)


def add_setting(parser: Any, setting: Setting, *, defaults: dict | None = None) -> None:
    """Adds the option of one setting; a parser that has it already keeps its own."""
    own = defaults or {}
    default = format_value(setting, own[setting.name]) if setting.name in own else default_text(setting)
    text = f"{setting.help} (default: {default})"
    if setting.option in parser._option_string_actions:
        return
    if setting.kind is bool:
        parser.add_argument(setting.option, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif setting.choices:
        parser.add_argument(setting.option, choices=setting.choices, help=text)
    else:
        parse = lambda words: parse_setting(setting, words)  # noqa: E731
        parser.add_argument(setting.option, type=parse, metavar=_metavar(setting), help=text)


def parse_setting(setting: Setting, words: str) -> Any:
    """The value of a setting from the command line, checked."""
    try:
        if setting.kind == Size:
            first, second, third = (int(size) for size in words.lower().split("x"))
            value: Any = (first, second, third)
        else:
            value = setting.kind(words)
        check_value(setting, value)
        return value
    except (ValueError, InputError):
        raise argparse.ArgumentTypeError(f"expected {allowed_values(setting)}, received {words!r}") from None


def default_text(setting: Setting) -> str:
    """The default of a setting, and of the presets that differ from it."""
    presets: dict[Any, list[str]] = {}
    for preset, values in PRESETS.items():
        value = values.get(setting.name, setting.default)
        if value != setting.default:
            presets.setdefault(value, []).append(preset)
    others = [f"{_shorten(names)}: {format_value(setting, value)}" for value, names in presets.items()]
    return "; ".join([format_value(setting, setting.default), *others])


def format_value(setting: Setting, value: Any) -> str:
    """A value as the help text and the reference page show it."""
    if value is None:
        return setting.none
    if isinstance(value, bool):
        return "on" if value else "off"
    if setting.kind == Size:
        return format_shape(value)
    if setting.kind == Names:
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds DATA, or `--phantoms` in its place."""
    parser.add_argument(
        "data",
        nargs="?",
        type=parse_path,
        metavar="DATA",
        help="a folder of BraTS cases, or a .csv or .json list of cases",
    )
    parser.add_argument(
        "--phantoms", action="store_true", help=f"use synthetic cases instead of DATA, and folders in {PHANTOMS}/"
    )


def add_folder(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Adds `--runs`, `--out` or `--results`; `arguments.folder` has the default."""
    parser.add_argument(f"--{name}", type=parse_path, metavar="DIR", help=f"{text} (default: {FOLDERS[name]})")


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Adds `--cache-dir`."""
    parser.add_argument(
        "--cache-dir",
        type=parse_path,
        metavar="DIR",
        help="folder of preprocessed cases, best on a fast disk (default: RUNS/cache)",
    )


def add_tuned(parser: argparse.ArgumentParser) -> None:
    """Adds `--tuned`; `arguments.postprocessing_given` reads it."""
    parser.add_argument(
        "--tuned", action="store_true", help="take --drop-et-below-ml from `brats-tf tune-postprocessing`"
    )


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Adds `--preset`."""
    texts = "; ".join(f"{name}: {text}" for name, text in SUMMARIES.items())
    parser.add_argument("--preset", choices=tuple(PRESETS), metavar="NAME", help=f"{texts} (default: {DEFAULT_PRESET})")


def add_modality(parser: argparse.ArgumentParser, text: str, default: str | None = None) -> None:
    """Adds `--modality`."""
    parser.add_argument("--modality", choices=(*MODALITIES, "all"), default=default, help=text)


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Adds what `arguments.runs_given` reads: runs, preset, name, networks."""
    add_folder(parser, "runs", "folder of the trained networks")
    add_preset(parser)
    add_setting(parser, settings_of(TrainingOptions)["name"])
    parser.add_argument(
        "--networks",
        type=parse_names,
        metavar="NAMES",
        help="the runs to average, folders in RUNS, separated by commas (default: those that the preset trains)",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds what selects trained networks and cases: DATA, runs, networks, validation cases."""
    add_data(parser)
    add_networks(parser)
    parser.add_argument(
        "--cases",
        choices=("all", "validation"),
        default="all",
        help="validation: only the cases that the training of the networks did not see (default: all)",
    )


def add_predictions(parser: argparse.ArgumentParser, *, truth: bool = True) -> None:
    """Adds PREDICTIONS, and what says where its truth is, unless its record does."""
    others = ", or one of other label maps" if truth else ""
    parser.add_argument(
        "predictions",
        nargs="?",
        type=parse_path,
        metavar="PREDICTIONS",
        default=Path(FOLDERS["out"]),
        help=f"folder that `brats-tf predict` wrote{others} (default: {FOLDERS['out']})",
    )
    if truth:
        add_truth(parser)


def add_truth(parser: argparse.ArgumentParser) -> None:
    """Adds what says where the truth of predictions is, unless their record does, and what the labels mean."""
    parser.add_argument(
        "--truth",
        type=parse_path,
        metavar="DATA",
        help="cases, or segmentations alone: a folder, .csv or .json (default: the data that was predicted)",
    )
    whose = {"--labels": "the truth (default: as names tell)"}
    whose["--prediction-labels"] = "the predictions (default: as recorded, else those of the truth)"
    for option, text in whose.items():
        parser.add_argument(option, choices=tuple(CONVENTIONS), help=f"convention of the labels in {text}")


def add_runs_of_predictions(parser: argparse.ArgumentParser) -> None:
    """Adds `--runs` of a command that takes PREDICTIONS."""
    parser.add_argument(
        "--runs", type=parse_path, metavar="DIR", help="where the networks are now (default: where they were)"
    )


def add_results(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds `--results` of a command that takes PREDICTIONS."""
    parser.add_argument(
        "--results", type=parse_path, metavar="DIR", help=f"{text} (default: PREDICTIONS/{FOLDERS['results']})"
    )


def parse_path(words: str) -> Path:
    """A path; an empty one, such as an unset variable of a shell leaves, is none."""
    if not words.strip():
        raise argparse.ArgumentTypeError("expected a path, received an empty text")
    try:
        words.encode()
    except UnicodeEncodeError:  # Libraries underneath could not open it.
        raise argparse.ArgumentTypeError(f"expected a path in UTF-8, received {words!r}") from None
    return Path(words)


def parse_shard(words: str) -> tuple[int, int]:
    """A part of a list and their number, such as 3/20."""
    number, _, count = words.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, such as 3/20, received {words!r}")
    return int(number), int(count)


def parse_names(words: str) -> tuple[str, ...]:
    """Different names separated by commas."""
    names = tuple(words.split(","))
    if any(Path(name).name != name or name == ".." for name in names if name):
        raise argparse.ArgumentTypeError(f"expected names separated by commas, not paths, received {words!r}")
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"expected different names separated by commas, received {words!r}")
    return names


def _metavar(setting: Setting) -> str:
    if setting.path:
        return "PATH"
    if setting.kind == Size:
        return "HxWxD" if setting.name != "depth_factors" else "AxBxC"
    return {int: "N", float: setting.unit.upper() or "X"}.get(setting.kind, "NAME")


def _shorten(presets: list[str]) -> str:
    """Names of presets, with `albunet*` for all of that family."""
    family = [name for name in PRESETS if name.startswith("albunet")]
    if set(family) <= set(presets):
        presets = [*(name for name in presets if name not in family), "albunet*"]
    return ", ".join(presets)
