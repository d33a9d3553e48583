"""Atomic file writes: a file is complete or absent."""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brats_tf.errors import WriteError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
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


def flush(folder: str | Path) -> None:
    """Writes the files of a folder to the disk, in case the power fails after the folder is renamed."""
    for path in Path(folder).iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def remove_partial(folder: str | Path) -> None:
    """Removes what killed processes of this machine left half-written in a folder; files of running ones stay."""
    for path in Path(folder).glob(f"{_partial()}*"):
        process = path.name.removeprefix(_partial()).partition("-")[0]
        if not (process.isdecimal() and _alive(int(process))):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as an indented JSON file, complete or not at all. Raises `WriteError` as `atomic` does."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def sha256_of(*paths: str | Path) -> str:
    """The SHA-256 of the contents of files, one after another, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _partial() -> str:
    """The prefix of temporary names; a folder may be shared by several machines."""
    return f".partial-{platform.node()}-"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # Somebody else's.
        return True
    return True
