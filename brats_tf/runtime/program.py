"""How a program ends: its exit codes, a sentence instead of a traceback, and the signals of a scheduler."""

import signal
import sys
from contextlib import contextmanager

from brats_tf.errors import InputError, Stopped

BAD_INPUT = 2
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: stopped, and everything is saved.
INTERRUPTED = 130
# Slurm sends the first at a job's end, and before it what `--signal` asks for.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def run_program(name, program):
    """Calls `program()` and returns its exit code; what it raises becomes a sentence on stderr that begins with `name`.

    2 after bad input, 75 when stopped and saved, 130 after Ctrl-C, else what it returns, None being 0.
    """
    try:
        return program() or 0
    except InputError as error:
        sentence, code = error, BAD_INPUT
    except OSError as error:
        sentence, code = f"{error.filename or 'A file'}: {error.strerror or error}.", BAD_INPUT
    except Stopped as stopped:
        sentence, code = stopped, TRY_AGAIN
    except KeyboardInterrupt:
        sentence, code = "interrupted.", INTERRUPTED
    print(f"{name}: {sentence}", file=sys.stderr)
    return code


@contextmanager
def listening(tell):
    """Inside it, the signals of a scheduler call `tell(number, frame)` instead of ending the process."""
    before = {}
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, tell)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
