"""Settings that are declared once: a dataclass field with its help text, choices, limits, unit and source.

Command-line options, checks, `--config` and the reference page are all made from these fields.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_tf.errors import InputError

Size = tuple[int, int, int]  # H x W x D
Names = tuple[str, ...]
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Setting:
    """One setting as its field declares it.

    Attributes:
        name: the field's name; the option is `--name` with hyphens.
        kind: int, float, bool, str, `Size` or `Names`.
        optional: whether None is allowed; `none` says what it means.
        default: `dataclasses.MISSING` where a value is required.
        help: what it does, in a clause.
        choices: the allowed values, or () for any.
        minimum, maximum: inclusive limits, or None.
        above: exclusive lower limit, or None.
        unit: of the value, such as "mm"; "" where it has none.
        source: where the default comes from, such as a section of a paper.
        path: whether a text is the path of a file or folder.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    help: str
    none: str = ""
    choices: tuple = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    unit: str = ""
    source: str = ""
    path: bool = False

    @property
    def option(self) -> str:
        """The option of the command line, such as `--window-stride`."""
        return f"--{self.name.replace('_', '-')}"


def setting(default: Any = dataclasses.MISSING, help: str = "", **details: Any) -> Any:
    """Declares a field of a settings dataclass; `details` are attributes of `Setting`."""
    return dataclasses.field(default=default, metadata={"help": help, **details})


def settings_of(section: type) -> dict[str, Setting]:
    """The settings of a dataclass by name, in order; fields without help text are left out."""
    hints = typing.get_type_hints(section)
    found = {}
    for field in dataclasses.fields(section):
        if "help" in field.metadata:
            kind, optional = _without_none(hints[field.name])
            found[field.name] = Setting(field.name, kind, optional, field.default, **field.metadata)
    return found


def choices_of(section: type, name: str) -> tuple:
    """The choices of one setting."""
    return settings_of(section)[name].choices


def check_section(section: Any) -> None:
    """Raises `InputError` unless every value of a settings dataclass has its kind, choices and limits."""
    for name, one in settings_of(type(section)).items():
        check_value(one, getattr(section, name))


def check_value(setting: Setting, value: Any) -> None:
    """Raises `InputError` unless a value is allowed for a setting."""
    if value is None and setting.optional:
        return
    if setting.choices:
        allowed = " or ".join(setting.choices) if len(setting.choices) < 4 else f"one of {', '.join(setting.choices)}"
        values = value if setting.kind == Names and isinstance(value, tuple) else (value,)
        wrong = [one for one in values if one not in setting.choices][:1]
        if wrong or not isinstance(value, tuple if setting.kind == Names else str):
            raise InputError(f"`{setting.name}` must be {allowed}. Received: {wrong[0] if wrong else value!r}.")
    elif not (_has_kind(setting, value) and _is_within(setting, value)):
        raise InputError(f"`{setting.name}` must be {allowed_values(setting)}. Received: {value!r}.")


def allowed_values(setting: Setting) -> str:
    """What a setting takes, in words.

    >>> allowed_values(Setting("epochs", int, False, 1, "", minimum=1))
    'a whole number of at least 1'
    """
    if setting.kind == Size:
        return "three positive whole numbers, H x W x D"
    words = "a path" if setting.path else _KINDS[setting.kind]
    if setting.above is not None:
        return f"{words} above {setting.above:g}"
    if setting.maximum is not None:
        return f"{words} from {setting.minimum:.10g} to {setting.maximum:.10g}"
    return f"{words} of at least {setting.minimum:g}" if setting.minimum is not None else words


def with_tuples(section: Any) -> None:
    """Makes tuples of a frozen dataclass's lists, as JSON has them, and writes numbers and paths in one way."""
    numbers = {name for name, one in settings_of(type(section)).items() if one.kind is float}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if field.name in numbers and _is_int(value):
            object.__setattr__(section, field.name, float(value))
        if isinstance(value, list):
            object.__setattr__(section, field.name, tuple(value))
        if field.metadata.get("path") and isinstance(value, str) and value.strip():
            object.__setattr__(section, field.name, str(Path(value)))


def _without_none(hint: Any) -> tuple[Any, bool]:
    if isinstance(hint, types.UnionType):
        (kind,) = [part for part in typing.get_args(hint) if part is not type(None)]
        return kind, True
    return hint, False


def _has_kind(setting: Setting, value: Any) -> bool:
    if setting.kind == Size:
        return isinstance(value, tuple) and len(value) == 3 and all(_is_int(size) and size > 0 for size in value)
    if setting.kind is int:
        return _is_int(value)
    if setting.kind is float:
        return _is_int(value) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, setting.kind) and not (setting.path and not value.strip())


def _is_within(setting: Setting, value: Any) -> bool:
    if setting.above is not None and not value > setting.above:
        return False
    if setting.minimum is not None and not value >= setting.minimum:
        return False
    return setting.maximum is None or value <= setting.maximum


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
