"""Ray's processes, on this machine or on a cluster, behind the interface of `concurrent.futures`. Extra `ray`.

Ray runs a task again when its process is killed, or its machine is gone. Everything else of its settings is Ray's own
(https://docs.ray.io); its statistics of use stay off unless `RAY_USAGE_STATS_ENABLED` says otherwise.
"""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from typing import Any

from brats_tf.errors import InputError, in_one_line

_FUNCTIONS: dict = {}  # Of this process, if it is one of Ray's.
TRIES = 3  # Of a task whose process is killed.


class ProcessKilledError(InputError):
    """A task whose process ended each time, for lack of memory or by a signal."""


@contextmanager
def ray_executor(engine: str, address: str | None, workers: int | None) -> Iterator[Any]:
    """A `RayExecutor` for the engine "ray"; None for "local", where whoever has the work starts threads."""
    if engine == "local":
        yield None
    else:
        with ray_session(address) as ray:
            yield RayExecutor(ray, workers)


@contextmanager
def ray_session(address: str | None = None, setup: Callable[[], Any] | None = None) -> Iterator[Any]:
    """Ray, connected to the cluster at `address` ("auto": the one of this machine), or started here until the end.

    Each process calls `setup`, a function of a module, before anything else of this package.

    Raises:
        InputError: when no cluster answers at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    here = os.getcwd()

    def prepare() -> None:
        with suppress(OSError):
            os.chdir(here)  # So that relative paths mean the same.
        if setup:
            setup()

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    quiet["runtime_env"] = {"worker_process_setup_hook": prepare}
    try:
        ray.init(address=address, **quiet) if address else ray.init(include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        what = f"--address must be that of a Ray cluster. Received {address}" if address else "Ray could not be started"
        raise InputError(f"{what}: {in_one_line(error)}.") from None
    try:
        yield ray
    finally:
        ray.shutdown()


class RayExecutor(Executor):
    """Runs functions as tasks of Ray, with a share of the cluster's cores each.

    Args:
        ray: what `ray_session` gave.
        workers: how many tasks run at once, at most: each gets as many cores as that takes; None for one per core.
    """

    def __init__(self, ray: Any, workers: int | None = None):
        cores = ray.cluster_resources().get("CPU", 1.0)
        share = max(cores / workers, 0.01) if workers else 1
        self.workers = workers or int(cores)
        self._ray = ray
        self._functions: dict[Callable[..., Any], list] = {}
        self._task = ray.remote(num_cpus=share if share < 1 else math.ceil(share), max_retries=TRIES - 1)(_call)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """See `Executor`. An exception of `fn` is raised as it was; a process killed too often is an `InputError`."""
        if fn not in self._functions:
            self._functions[fn] = [self._ray.put(fn)]  # Once for all tasks, whatever it holds.
        done: Future = Future()
        done.set_running_or_notify_cancel()
        task = self._task.remote(self._functions[fn], *args, **kwargs).future()
        task.add_done_callback(lambda task: _pass_on(task, done))
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to do: whoever leaves `ray_session` ends what runs."""


def plain_error(error: BaseException) -> BaseException:
    """The exception that a task raised, instead of Ray's; for a process that was killed too often, a sentence."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

    if isinstance(error, RayTaskError):
        return error.cause
    if isinstance(error, (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError)):
        return ProcessKilledError(
            f"its process ended {TRIES} times ({type(error).__name__}): too little memory, or killed."
        )
    return error


def _call(held: list, *args: Any, **kwargs: Any) -> Any:
    """Calls the function that Ray holds; a process reads it once."""
    (reference,) = held
    if reference.hex() not in _FUNCTIONS:
        import ray

        _FUNCTIONS[reference.hex()] = ray.get(reference)
    return _FUNCTIONS[reference.hex()](*args, **kwargs)


def _pass_on(task: Future, done: Future) -> None:
    error = task.exception()
    if error is None:
        done.set_result(task.result())
    else:
        done.set_exception(plain_error(error))
