"""The libraries of this package's extras, which may not be installed."""

from importlib.util import find_spec

from brats_tf.errors import InputError


def need_libraries(extra: str, *names: str) -> None:
    """Raises `InputError` where a library of an extra of this package is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} is not installed: pip install '.[{extra}]' in this repository.")
