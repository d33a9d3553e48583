"""Exceptions whose message is shown to the user without a traceback, and what such messages are made of."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input, said in one sentence: what, where, what was expected, what was received.

    The command line prints the sentence alone and exits with code 2.
    """


class WriteError(InputError):
    """A file could not be written: the disk is full, or the folder is read-only. The next file would fail too."""


class MemoryLack(InputError):
    """Something does not fit into the memory of this machine, in one sentence."""


class Preempted(BaseException):
    """A signal stopped the program, and everything is saved; the command line exits with code 75.

    A job script may then queue the same command again. No library's error, so that `except Exception` lets it pass.
    """


RESUME = "Run the same command, without --restart, to resume."


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Turns running out of memory inside it into one sentence, a `MemoryLack`, about `what` does not fit."""
    try:
        yield
    except MemoryError as error:
        raise MemoryLack(f"{what} must fit into the memory of this machine, which has too little.") from error


def about(case_id: str, error: InputError) -> str:
    """The sentence of an error, with its case's name also where it has none, as of a process that was killed."""
    return str(error) if case_id in str(error) else f"Case {case_id}: {error}"


def in_one_line(error: BaseException) -> str:
    """The message of a library's error without its line breaks and its tail."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no message'}"


def reason_of(error: BaseException) -> str:
    """Why a file could not be read: in the operating system's words, without the path, which may name a person."""
    return error.strerror if isinstance(error, OSError) and error.strerror else in_one_line(error)


def format_shape(shape: Iterable) -> str:
    """A shape in its usual notation.

    >>> format_shape((240, 240, 155))
    '240x240x155'
    """
    return "x".join(str(size) for size in shape)
