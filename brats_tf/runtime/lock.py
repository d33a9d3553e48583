"""Locks of folders: who writes into one, so that nobody else does.

A lock is the file `.lock` in the folder: host, boot, container, process id, when that process began, its command. It
is made whole under another name and then linked, so that it is there or not. One whose process on this host is gone is
taken over. Nobody can see from here whether a process of another host lives, so its lock stays until somebody removes
it.
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
_SAME_START = 2.0  # Ticks, or seconds where psutil tells the start.


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
        while not linked(temporary, path):
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
        if not linked(old / LOCK_FILE, new / LOCK_FILE):
            raise _in_use(new / LOCK_FILE, _read(new / LOCK_FILE) or {})
        (old / LOCK_FILE).unlink()


def _holder() -> dict[str, Any]:
    """What a lock says of this process."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    own = {"process": os.getpid(), "start": _start_of(os.getpid()), "began": psutil.Process().create_time()}
    return _place() | own | {"command": shlex.join(words)[:200]}


def _place() -> dict[str, Any]:
    """Where a process's number means that process: the host, its boot, and the namespace of a container."""
    found: dict[str, Any] = {"host": platform.node(), "boot": None, "namespace": None}
    with suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["namespace"] = os.readlink("/proc/self/ns/pid")
    return found


def _start_of(process: int) -> float | None:
    """When a process began, in a clock that nobody sets; None where it does not run any more."""
    try:
        # Linux: state, and ticks since boot. psutil adds the time of the boot, which moves when the clock is set.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else found.create_time()
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return None
    except psutil.AccessDenied:
        return float("nan")  # It runs, and is somebody else's.


def linked(temporary: Path, path: Path) -> bool:
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
            linked(aside, path)
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
    process, start, place = holder.get("process"), holder.get("start"), _place()
    if holder.get("host") != place["host"] or not isinstance(process, int) or not isinstance(start, int | float):
        return False
    if holder.get("boot") != place["boot"]:
        return True  # Before the host was started again.
    if holder.get("namespace") != place["namespace"]:
        return False  # In another container, whose processes cannot be seen from here.
    found = _start_of(process)
    return found is None or abs(found - start) > _SAME_START  # Its number was given again.


def _in_use(path: Path, holder: dict[str, Any]) -> InputError:
    here = all(holder.get(name) == value for name, value in _place().items())
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
