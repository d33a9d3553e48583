"""Files that are complete or absent."""

import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from brats_tf.errors import InputError


@contextmanager
def atomic(path):
    """Yields a temporary path beside `path` for a file or a folder, renamed to `path` at the end, removed on failure.

    The temporary name keeps all suffixes of `path`, because they choose the file format.

    Raises:
        InputError: when the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # Where nothing can be written, there is nothing to remove.
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def write_json(path, value):
    """Writes a value as an indented JSON file, complete or not at all. Raises `InputError` as `atomic` does."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
