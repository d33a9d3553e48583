"""What the modules of commands share.

A command's docstring is its help text. It imports what it runs inside, so that `--help` never loads TensorFlow, takes
the parsed arguments and returns an exit code, or None for 0.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import NamedTuple

FAILED_CASES = 2


class Command(NamedTuple):
    """A command of `brats-tf`: its name, what it runs, and what adds its options."""

    name: str
    run: Callable[[Namespace], int | None]
    add_options: Callable[[ArgumentParser], None]


def add_checkpoint(parser, *, default="last", means="last"):
    """Adds `--checkpoint`; `means` is what its help says of the default."""
    from brats_tf.runs.files import CHECKPOINT_FILES

    parser.add_argument(
        "--checkpoint", choices=tuple(CHECKPOINT_FILES), default=default, help=f"weights to load (default: {means})"
    )
