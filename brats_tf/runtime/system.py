"""How measurements are made: each in a process of its own, so that one's memory does not count for the other."""

import multiprocessing
import os
import platform
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from brats_tf.errors import InputError

REPEATS = 3


def in_own_process(measure, *arguments):
    """Calls a function of a module in a fresh process. Raises `InputError` when that was killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, *arguments).result()
        except BrokenProcessPool:
            name = measure.__name__.strip("_")
            raise InputError(f"The measurement {name} was killed, probably for too little memory.") from None


def median_seconds(run, *, repeats=REPEATS, warm_up=True):
    """The median time of some calls, after one more to warm up."""
    if warm_up:
        run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def machine():
    """The processor and its number of cores, as tables name it."""
    try:
        model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
        name = model.partition(":")[2].strip()
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def peak_gb():
    """The peak memory of this process, in 10**9 bytes."""
    try:
        return _status_gb("VmHWM")
    except (OSError, StopIteration):
        # On Linux it would begin with the parent's.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def machine_gb():
    """The memory of this machine, in 10**9 bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def resident_gb():
    """The memory that this process has now, in 10**9 bytes (Linux)."""
    return _status_gb("VmRSS")


def _status_gb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e9
