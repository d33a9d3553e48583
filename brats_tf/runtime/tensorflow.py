"""The process-wide settings of TensorFlow, all in one place.

`import_tensorflow` imports it quietly. `make_deterministic` is what `brats_tf.train` calls before it builds a network,
so that a seed repeats a training byte for byte on a CPU, from the command line and from a notebook alike:

- one operation runs at a time, on all cores (`inter_op_parallelism_threads=1`), so that sums have one order;
- Grappler is off on a CPU: its memory optimiser sums three or more gradients in the order of their arrival;
- Python's, NumPy's and TensorFlow's random states start from the seed.

The first must precede TensorFlow's first operation. `import_tensorflow` sets it where it is the first to import
TensorFlow; otherwise `make_deterministic` tries, and logs a warning when it is too late.
"""

import errno
import gc
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

from brats_tf.runtime.system import available_cores, cores_of_container, counted_cores, cpu_has_bfloat16

log = logging.getLogger(__name__)
INTER_OP_VARIABLE = "TF_NUM_INTEROP_THREADS"
# TensorFlow and Keras import these where they are installed, for what this package does not use: conversion from JAX,
# galleries of images, data frames, the interface of scikit-learn. Together they take 2 of 4 s, and 0.23 of 0.83 GB.
UNUSED = ("jax", "matplotlib", "pandas", "sklearn")


def import_tensorflow(*, find_gpus: bool = True, whole: bool = False) -> Any:
    """Imports TensorFlow with its start-up messages held back, and returns it.

    They come from C++ before any log level counts, so file descriptor 2 is redirected meanwhile; if the import fails,
    what was held back is printed. Without `find_gpus` it does not look for GPUs yet, so that `CUDA_VISIBLE_DEVICES` may
    still be set afterwards; `run_one_operation_at_a_time` is then for the caller to call. `whole` is for processes that
    others use Keras in too: it then keeps the parts that need a package of `UNUSED`, as it does in a notebook.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    set_environment()
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            shared = whole or "IPython" in sys.modules
            with nullcontext() if shared else _hidden(UNUSED), no_garbage_collection(keep=not shared):
                import tensorflow

            if find_gpus:
                tensorflow.config.list_physical_devices("GPU")  # Prints too.
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
    if find_gpus:
        run_one_operation_at_a_time(tensorflow)
    return tensorflow


def set_environment() -> None:
    """Sets the variables that TensorFlow reads when it is imported; for who cannot be the first to import it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # By itself TensorFlow leaves oneDNN off where the processor lacks VNNI, AVX512-BF16 and AMX. With AVX2 alone, the
    # gradient of a 3D convolution then takes ten times as long.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if cores_of_container():  # TensorFlow counts the machine's cores, and their threads would wait for each other.
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(available_cores()))
    os.environ["KERAS_BACKEND"] = "tensorflow"  # Whatever ~/.keras/keras.json says: tf.data and SavedModels need it.


def make_deterministic(seed: int) -> None:
    """Applies the settings of this module for a training that starts from `seed`. A GPU keeps its own order of sums."""
    tf = import_tensorflow()
    import keras

    if not has_gpu():
        try:
            run_one_operation_at_a_time(tf)
        except RuntimeError:
            log.warning(
                "TensorFlow is already running several operations at once, so this training may not repeat byte for "
                "byte. Call brats_tf.runtime.tensorflow.import_tensorflow(whole=True) first, or set %s=1.",
                INTER_OP_VARIABLE,
            )
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    keras.utils.set_random_seed(seed)


@contextmanager
def no_garbage_collection(*, keep: bool = False) -> Iterator[None]:
    """Inside it, Python does not look for cycles among what is being made, which takes a fifth of an import's time.

    With `keep` it never looks again at what there is at the end: nearly all of it is modules, which stay.
    """
    if keep:
        gc.collect()  # What is garbage already does not stay.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if keep:
            gc.freeze()
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Inside it, packages that have not been imported before count as not installed."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python refuses to import it.
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


@contextmanager
def free_graphs() -> Iterator[None]:
    """Frees, at its end, the networks that were traced meanwhile and that nothing else holds.

    `tf.custom_gradient` registers a function for each traced call and never removes it. The function holds the graph
    with all its variables, so that every training and prediction of a process would stay in memory: 0.2 GB of a network
    of 30 MB. What was traced meanwhile cannot be differentiated once more. Usable as a decorator; does nothing where
    Keras runs on another backend.
    """
    before = set(_custom_gradients())
    try:
        yield
    finally:
        gradients = _custom_gradients()
        for name in [name for name in list(gradients) if name.startswith("CustomGradient-") and name not in before]:
            gradients.pop(name, None)  # Another thread may have removed it.


def _custom_gradients() -> dict[str, Any]:
    if "tensorflow" not in sys.modules:
        return {}
    from tensorflow.python.framework import ops

    return ops.gradient_registry._registry  # Has no public name.


def as_os_error(error: Any) -> OSError:
    """The `OSError` that an error of TensorFlow's writers was before TensorFlow wrapped it."""
    message = re.sub(r"\{\{.*?\}\}", "", error.message).strip()
    for number in (getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EACCES", "EROFS")):
        if number is not None and os.strerror(number) in message:
            return OSError(number, os.strerror(number))
    return OSError(message)


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(import_tensorflow().config.list_physical_devices("GPU"))


def has_bfloat16() -> bool:
    """Whether the device that computes has matrix units for bfloat16: the first GPU, or the processor."""
    tf = import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0)) >= (8, 0)
    return cpu_has_bfloat16()


def resolved_precision(precision: str) -> str:
    """The number format that "auto" stands for on this machine; says so where another one is slow here."""
    if precision == "bfloat16" and not has_bfloat16():
        log.warning(f"--precision bfloat16: {device_name()} does not compute in it: many times slower than float32.")
    if precision == "auto":
        return "bfloat16" if has_bfloat16() else "float32"
    return precision


def device_name() -> str:
    """The first GPU's name, or the CPU with its number of cores."""
    tf = import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return f"CPU with {counted_cores()}"


def run_one_operation_at_a_time(tf: ModuleType) -> None:
    """As fast as several at once, because each uses all cores. Looks for GPUs, which keep their own order.

    Raises:
        RuntimeError: when it is too late.
    """
    threading = tf.config.threading
    wanted = INTER_OP_VARIABLE not in os.environ and not tf.config.list_physical_devices("GPU")
    if wanted and threading.get_inter_op_parallelism_threads() != 1:
        threading.set_inter_op_parallelism_threads(1)
