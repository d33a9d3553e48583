"""What the command line prints: log lines, progress bars with the time left, tables."""

import logging
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

PIPE_WIDTH = 200  # Columns of a table that goes into a file or a pipe; a terminal knows its own.

# soft_wrap: a sentence with a path in it stays one line, for people who copy and for programs that search.
# emoji: a path may contain `:b:`.
console = Console(highlight=False, soft_wrap=True, emoji=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = PIPE_WIDTH


class ConsoleHandler(logging.Handler):
    """Prints the messages of the package's loggers to the console, one line each, between progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message as it is, square brackets and all."""
        console.print(printable(self.format(record)), markup=False)


def printable(text: str) -> str:
    """A text whose control characters are spelt out, so that a file's name cannot steer a terminal; lines stay.

    >>> print(printable("a" + chr(27) + "[31m"))
    a\\x1b[31m
    """
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def cell(text: object) -> str:
    """A text as a cell or title of a table shows it: as it is, without markup and control characters."""
    return escape(printable(str(text)))


def show_log() -> None:
    """Prints what `brats_tf` logs, from level INFO on. The command line calls it; a notebook may."""
    logger = logging.getLogger("brats_tf")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())
        logger.propagate = False
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)  # What it says of headers, the readers say too.


def progress_bar() -> Progress:
    """A progress bar with count, time left (at the end: time taken) and a free text field `note`."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields the items under a progress bar; `total` is needed where they have no length."""
    with progress_bar() as bar:
        task = bar.add_task(printable(description), total=len(items) if total is None else total, note="")  # type: ignore[arg-type]
        for item in items:
            yield item
            bar.advance(task)
