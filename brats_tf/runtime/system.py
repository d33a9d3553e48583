"""The machine: its processor, the cores and the memory that this process may use, and what it has used."""

import math
import os
import platform
import sys
from pathlib import Path

import psutil

CPU_INFO = Path("/proc/cpuinfo")
# Processor time of a container per period, both in microseconds: cgroup v2, then v1. "max" or -1 means no limit.
_CPU_LIMITS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
# Memory limits of a container: cgroup v2, then v1. "max" or a huge number means none.
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine() -> str:
    """The processor and the number of its cores that this process may use, as tables name it."""
    try:
        model = next(line for line in CPU_INFO.read_text().splitlines() if line.startswith("model name"))
        name = model.partition(":")[2].strip()
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {counted_cores()}"


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16, as Linux lists its abilities; False where nobody lists them."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return False
    listed = [line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))]
    return any(set(flags) & {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"} for flags in listed)


def available_cores() -> int:
    """The CPU cores that this process may use: those that it is bound to, or fewer in a container."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, cores_of_container() or bound)


def cores_of_container() -> int | None:
    """The cores whose time a container's limit (`docker run --cpus`) amounts to, rounded up; None without a limit."""
    for paths in _CPU_LIMITS:
        try:
            quota, period = " ".join(path.read_text() for path in paths).split()
            if int(quota) > 0:
                return math.ceil(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None


def counted_cores() -> str:
    """`available_cores` in words: 1 core, 2 cores."""
    cores = available_cores()
    return f"{cores} core{'s' if cores > 1 else ''}"


def memory_limit_gb() -> float:
    """The memory that this process may use, in 10**9 bytes: the machine's, or less in a container."""
    limits = [psutil.virtual_memory().total]
    for path in _CGROUP_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return min(limits) / 1e9


def peak_gb() -> float:
    """The peak memory of this process, in 10**9 bytes."""
    try:
        # Linux: `ru_maxrss` would begin with the parent's.
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9
    except (OSError, StopIteration):
        pass
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def resident_gb() -> float:
    """The memory that this process holds now, in 10**9 bytes."""
    return psutil.Process().memory_info().rss / 1e9
