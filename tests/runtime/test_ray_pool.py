"""Tasks of Ray: what they return and raise, and what becomes of killed processes."""

import os
import signal
import sys
from concurrent.futures import as_completed

import pytest

from brats_tf.errors import InputError, WriteError
from brats_tf.runtime.ray_pool import TRIES, RayExecutor, ray_session

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.large  # Ray takes half a minute to start and to end its processes.


@pytest.fixture(scope="module")
def executor():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Other processes cannot import this module.
    with ray_session() as session:
        yield RayExecutor(session)


def double(value):
    if value == 3:
        raise WriteError("/nowhere could not be written.")
    return 2 * value


def killed(folder, times):
    """Kills its own process until it was started so many times."""
    (folder / str(os.getpid())).touch()
    if len(list(folder.iterdir())) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_tasks_return_and_raise_what_the_function_does(executor):
    jobs = {executor.submit(double, value): value for value in range(6)}
    found = {jobs[job]: job for job in as_completed(jobs)}
    assert [found[value].result() for value in (0, 1, 2, 4, 5)] == [0, 2, 4, 8, 10]
    with pytest.raises(WriteError, match=r"^/nowhere could not be written\.$"):
        found[3].result()


def test_relative_paths_mean_the_same(executor):
    assert executor.submit(os.getcwd).result() == os.getcwd()


def test_a_killed_process_is_replaced(executor, tmp_path):
    assert executor.submit(killed, tmp_path, 1).result() == "done"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_kills_every_process_is_given_up(executor, tmp_path):
    with pytest.raises(InputError, match=f"its process ended {TRIES} times"):
        executor.submit(killed, tmp_path, 99).result()
    assert len(list(tmp_path.iterdir())) == TRIES


def test_a_cluster_that_is_not_there_is_named():
    with (
        pytest.raises(InputError, match=r"--address must be that of a Ray cluster. Received nowhere:1"),
        ray_session("nowhere:1"),
    ):
        pass
