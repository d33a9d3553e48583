"""The one exception that is a sentence to a person."""


class InputError(ValueError):
    """Bad input, said in one sentence: what, where, what was expected, what was received.

    The command line prints the sentence alone and leaves with exit code 2.
    """


class WriteError(InputError):
    """A file could not be written: the disk is full, or the folder closed. It would hit the next file too."""


class Stopped(Exception):
    """Told to stop, and everything is saved: the command line says where, and leaves with exit code 75.

    A job script may then queue the same command once more.
    """


def in_one_line(error):
    """What a library's error says, without its line breaks and its tail."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no message'}"
