"""How a program ends: its exit codes, a sentence instead of a traceback, and a scheduler's signals."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from brats_tf.errors import RESUME, InputError, Preempted
from brats_tf.runtime.console import printable, show_log

BAD_INPUT = 2
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: stopped, and everything is saved.
INTERRUPTED = 130
# Slurm sends SIGTERM at a job's end, and before it what `--signal` asks for. Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


def run_program(name: str, program: Callable[[], int | None], *, traceback: bool = False) -> int:
    """Calls `program()` and returns its exit code; an exception becomes a sentence on stderr that begins with `name`.

    2 after bad input, 75 when stopped and saved, 130 after Ctrl-C, else what it returns, None being 0. With `traceback`
    exceptions pass through.
    """
    show_log()
    if traceback:
        return program() or 0
    try:
        return program() or 0
    except InputError as error:
        sentence, code = str(error), BAD_INPUT
    except OSError as error:
        sentence, code = f"{error.filename or 'A file'}: {error.strerror or error}.", BAD_INPUT
    except MemoryError:
        sentence, code = "this machine has too little memory for it.", BAD_INPUT
    except Preempted as preempted:
        sentence, code = str(preempted), TRY_AGAIN
    except KeyboardInterrupt:
        sentence, code = "interrupted.", INTERRUPTED
    print(printable(f"{name}: {sentence}"), file=sys.stderr)
    return code


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Inside it, a scheduler's signals raise `Preempted`: around work that the same command goes on with."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Preempted(f"Stopped by {signal.Signals(number).name}. {RESUME}")

    with catch_signals(stop):
        yield


@contextmanager
def catch_signals(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside it, a scheduler's signals call `handle(number, frame)` instead of ending the process.

    Outside the main thread Python allows no handlers: there it changes nothing.
    """
    before = {}
    try:
        for number in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            before[number] = signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
