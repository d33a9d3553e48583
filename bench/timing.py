"""How measurements are made: each in a process of its own, so that one's memory does not count for the other."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from brats_tf.config.presets import DEFAULT_PRESET
from brats_tf.errors import InputError
from brats_tf.runtime.system import available_cores, cores_of_container, cpu_has_bfloat16

REPEATS = 3


def precisions():
    """What a processor computes in by itself: float32, and bfloat16 where it has it. Elsewhere that is emulated."""
    return ("float32", "bfloat16") if cpu_has_bfloat16() else ("float32",)


def file_name(stage, formats, preset=DEFAULT_PRESET):
    """The name of a stage's results file: another where the preset is another, or rows are in float32 alone."""
    names = [f"bench_{stage}", *([] if preset == DEFAULT_PRESET else [preset])]
    names += ["float32"] if set(formats) == {"float32"} else []
    return f"{'-'.join(names)}.json"


def in_own_process(measure, *arguments):
    """Calls a function of a module in a fresh process. Raises `InputError` when that was killed."""
    if cores_of_container():  # As many threads for PyTorch as `import_tensorflow` gives TensorFlow.
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, *arguments).result()
        except BrokenProcessPool:
            name = measure.__name__.strip("_")
            raise InputError(f"The measurement {name} was killed, probably for lack of memory.") from None


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
