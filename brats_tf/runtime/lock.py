"""Locks of folders: who writes into one, so that nobody else does.

A lock is the file `.lock` in the folder: host, process id, the time when that process began, its command. It is made
whole under another name and then linked, so that it is there or not. One whose process on this host is gone is taken
over. Nobody can see from here whether a process of another host lives, so its lock stays until somebody removes it.
"""

import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from brats_tf.errors import InputError, WriteError
from brats_tf.runtime.files import read_json

log = logging.getLogger(__name__)
LOCK_FILE = ".lock"
_SAME_START_S = 2.0  # A clock that is set while a process runs moves its start a little.


@contextmanager
def lock(folder: str | Path) -> Iterator[None]:
    """Holds the lock of a folder, which is created where it is missing.

    Raises:
        InputError: when another process that lives, or one of another host, holds it.
        WriteError: when the folder cannot be written to.
    """
    folder = Path(folder)
    path = folder / LOCK_FILE
    temporary = folder / f"{LOCK_FILE}-{platform.node()}-{os.getpid()}"
    mine = _holder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(mine))
        while not _linked(temporary, path):
            _take_over(path)
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    try:
        yield
    finally:
        if _read(path) == mine:
            with suppress(OSError):
                path.unlink()


def check_unlocked(folder: str | Path) -> None:
    """Raises `InputError` while another process writes into a folder."""
    path = Path(folder) / LOCK_FILE
    holder = _read(path)
    if holder and holder != _holder() and not _is_dead(holder):
        raise _in_use(path, holder)


def is_locked(folder: str | Path) -> bool:
    """Whether another process writes into a folder, as far as can be known."""
    try:
        check_unlocked(folder)
    except InputError:
        return True
    return False


def move_lock(old: Path, new: Path) -> None:
    """Takes this process's lock from a folder that was renamed to the one that is new in its place."""
    if (old / LOCK_FILE).is_file():
        if not _linked(old / LOCK_FILE, new / LOCK_FILE):
            raise _in_use(new / LOCK_FILE, _read(new / LOCK_FILE) or {})
        (old / LOCK_FILE).unlink()


def _holder() -> dict[str, Any]:
    """What a lock says of this process."""
    process = psutil.Process()
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    began = process.create_time()
    return {"host": platform.node(), "process": process.pid, "began": began, "command": shlex.join(words)[:200]}


def _linked(temporary: Path, path: Path) -> bool:
    """Whether `path` is now a link to `temporary`; without hard links, a copy that nobody else made."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        try:
            with open(path, "x") as file:
                file.write(temporary.read_text())
        except FileExistsError:
            return False
    return True


def _take_over(path: Path) -> None:
    """Removes a lock whose process is gone. Raises `InputError` when it lives, or nobody can know."""
    holder = _read(path)
    if holder is None:
        return  # Released in between.
    if not _is_dead(holder):
        raise _in_use(path, holder)
    # Renamed first, which only one of several processes can do, and put back if another was faster.
    aside = path.with_name(f"{path.name}-dead-{os.getpid()}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != holder:
            _linked(aside, path)
        else:
            log.info(f"The process that wrote into {path.parent}, {_words(holder)}, is gone; its lock is taken over.")
        aside.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says; {} where it is damaged, None where there is none."""
    try:
        holder = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the process of a lock is one of this host that does not run any more."""
    process, began = holder.get("process"), holder.get("began")
    if holder.get("host") != platform.node() or not isinstance(process, int) or not isinstance(began, int | float):
        return False
    try:
        found = psutil.Process(process)
        if found.status() == psutil.STATUS_ZOMBIE:
            return True
        return abs(found.create_time() - began) > _SAME_START_S  # Its number was given again.
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return True
    except psutil.AccessDenied:
        return False


def _in_use(path: Path, holder: dict[str, Any]) -> InputError:
    here = holder.get("host") == platform.node()
    remedy = "Wait for it, or name another folder." if here else f"If it is gone, remove {path}."
    return InputError(f"{path.parent} is in use by {_words(holder)}. {remedy}")


def _words(holder: dict[str, Any]) -> str:
    if not holder:
        return "an unknown process"
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("began")))
    except (TypeError, ValueError, OverflowError, OSError):
        since = "?"
    return f"process {holder.get('process')} on {holder.get('host')} since {since} ({holder.get('command')})"
