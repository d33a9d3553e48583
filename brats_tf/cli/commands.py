"""What the modules of commands share.

A command's docstring is its help text. It imports what it runs inside, so that `--help` never loads TensorFlow, takes
the parsed arguments and returns an exit code, or None for 0.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from brats_tf.errors import InputError

FAILED_CASES = 2


class Command(NamedTuple):
    """A command of `brats-tf`: its name, what it runs, and what adds its options."""

    name: str
    run: Callable[[Namespace], int | None]
    add_options: Callable[[ArgumentParser], None]


def need_libraries(extra, *names):
    """Raises `InputError` where a library of an extra of this package is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} is not installed: pip install 'brats_tf[{extra}]'.")


def add_checkpoint(parser):
    """Adds `--checkpoint`."""
    from brats_tf.runs.files import CHECKPOINT_FILES

    parser.add_argument(
        "--checkpoint", choices=tuple(CHECKPOINT_FILES), default="last", help="weights to load (default: last)"
    )
