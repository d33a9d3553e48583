"""Files that are read without trust, and written complete or not at all."""

import csv
import errno
import hashlib
import io
import itertools
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brats_tf.errors import WriteError

DAY_S = 24 * 60 * 60
LARGEST_TEXT = 2**28  # Bytes of a JSON or CSV file; a larger one is none that this package reads.


def check_regular(path: str | Path) -> None:
    """Raises `OSError` unless a path is that of a file: a pipe would block, a device never ends."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, no file", str(path))


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark.

    Raises:
        OSError: when it is missing, not readable or no regular file.
        ValueError: when it is too large or not UTF-8.
    """
    check_regular(path)
    with open(path, "rb") as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"it has more than {LARGEST_TEXT} bytes")
    return content.decode("utf-8-sig")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises `OSError` or `ValueError` as `read_text`, also for what no file of ours holds.

    That is values nested too deep, and whole numbers of more than 64 bits.
    """
    try:
        return json.loads(read_text(path), parse_int=_int64)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None


def read_csv(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a CSV file with a header; empty columns without a name, as spreadsheets leave them, are none.

    Raises as `read_text`, and `ValueError` where a column is named twice, or a cell has no named column.
    """
    try:
        lines = csv.reader(io.StringIO(read_text(path), newline=""))
        names = next(lines, [])
        twice = sorted({name for name in names if name.strip() and names.count(name) > 1})
        if twice:
            raise ValueError(f"the column {twice[0]!r} is named twice")
        return [_named(names, cells, lines.line_num) for cells in lines if cells]
    except csv.Error as error:
        raise ValueError(f"it is no table: {error}") from None


def _named(names: list[str], cells: list[str], line: int) -> dict[str, Any]:
    """{name of a column: a row's cell there, None where the row is shorter}."""
    pairs = list(itertools.zip_longest(names, cells))
    unnamed = [cell for name, cell in pairs if not (name or "").strip() and (cell or "").strip()]
    if unnamed:
        raise ValueError(f"line {line} has a cell without a named column: {unnamed[0]!r}")
    return {name: cell for name, cell in pairs if (name or "").strip()}


@contextmanager
def atomic(
    path: str | Path,
    *,
    before_rename: Callable[[Path], None] | None = None,
    durable: bool = False,
    replace: bool = False,
) -> Iterator[Path]:
    """Yields a temporary path beside `path` for a file or a folder, renamed to `path` at the end, removed on failure.

    A file of this name gives way only then; a folder that is not empty does with `replace`, and else is an error.

    The temporary name keeps all suffixes of `path`, because they choose the file format. `before_rename` is called with
    it when it is complete; when that raises, `path` stays as it was. A `durable` file is on the disk before it has its
    name, in case the power fails, which takes some milliseconds.

    Raises:
        WriteError: when the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f"{temporary_prefix()}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if before_rename:
            before_rename(temporary)
        if durable:
            _flush(temporary)
        if replace and path.is_dir():
            _replace_folder(temporary, path)
        else:
            os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # Where nothing can be written, there is nothing to remove.
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def _replace_folder(temporary: Path, path: Path) -> None:
    """Gives a new folder the name of another, which keeps it until the new one can have it."""
    old = temporary.with_name(f"{temporary.name}-old")
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:  # A signal, too.
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_space(folder: str | Path, size: int) -> None:
    """Raises `WriteError` unless a file of `size` bytes fits into a folder now, by the disk or by a quota.

    For libraries that do not survive a full disk: HDF5 ends the process in the middle of a file that it cannot finish.
    """
    folder = Path(folder)
    temporary = folder / f"{temporary_prefix()}{os.getpid()}-space"
    try:
        if hasattr(os, "posix_fallocate"):
            with open(temporary, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise WriteError(f"{size / 1e6:.3g} MB could not be written to {folder}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def flush(folder: str | Path) -> None:
    """Writes the files of a folder to the disk, in case the power fails after the folder is renamed."""
    for path in Path(folder).iterdir():
        if path.is_file():
            _flush(path)


def _flush(path: Path) -> None:
    """Waits until a file is on the disk, or the names in a folder, where its system can say so."""
    if not path.is_dir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        return
    with suppress(OSError):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_partial(folder: str | Path) -> None:
    """Removes what killed processes of this machine left half-written in a folder; files of running ones stay.

    Whether a process of another container of this machine's name runs cannot be seen: its files go after a day.
    """
    for path in Path(folder).glob(f".partial-{platform.node()}-*"):
        with suppress(OSError):
            if path.name.startswith(temporary_prefix()):
                process = path.name.removeprefix(temporary_prefix()).partition("-")[0]
                running = process.isdecimal() and _alive(int(process))
            else:
                running = time.time() - path.stat().st_mtime < DAY_S
            if not running:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: str | Path, value: Any, *, indent: int | None = 2, durable: bool = False) -> None:
    """Writes a value as a JSON file, complete or not at all. Raises `WriteError` as `atomic` does, and is as `durable`.

    Without `indent`, in one line, it takes a quarter of the time.
    """
    with atomic(path, durable=durable) as temporary:
        temporary.write_text(json_text(value, indent))


def json_text(value: Any, indent: int | None = 2) -> str:
    """The content of a JSON file of this package."""
    return json.dumps(value, indent=indent) + "\n"


def sha256_of(*paths: str | Path) -> str:
    """The SHA-256 of the contents of files, one after another, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def sha256_of_text(text: str) -> str:
    """The SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError("a whole number has more than 64 bits")
    return int(digits)


def temporary_prefix() -> str:
    """The prefix of temporary names; a folder may be shared by several machines, and by containers of one name."""
    try:
        namespace = "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    except OSError:
        namespace = ""
    return f".partial-{platform.node()}-{namespace}-"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # Somebody else's.
        return True
    return True
