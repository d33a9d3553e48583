"""Files that are complete or absent."""

import hashlib
import json
import os
import platform
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from brats_tf.errors import WriteError


@contextmanager
def atomic(path):
    """Yields a temporary path beside `path` for a file or a folder, renamed to `path` at the end, removed on failure.

    The temporary name keeps all suffixes of `path`, because they choose the file format.

    Raises:
        WriteError: when the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f"{_partial()}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # Where nothing can be written, there is nothing to remove.
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def flush(folder):
    """Makes sure that the files of a folder are on the disk, should the power fail after it is renamed."""
    for path in Path(folder).iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def remove_partial(folder):
    """Removes what killed processes of this machine left half-written in a folder; what others write now stays."""
    for path in Path(folder).glob(f"{_partial()}*"):
        process = path.name.removeprefix(_partial()).partition("-")[0]
        if not (process.isdecimal() and _alive(int(process))):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path, value):
    """Writes a value as an indented JSON file, complete or not at all. Raises `WriteError` as `atomic` does."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def sha256_of(*paths):
    """The SHA-256 of the contents of files, one after another, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _partial():
    """How the temporary names of this machine's processes begin; a folder may be shared by several machines."""
    return f".partial-{platform.node()}-"


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # Somebody else's.
        return True
    return True
