"""How many tasks of Ray run at once; with a stand-in for Ray, which the tests beside this one need."""

import pytest

from brats_tf.runtime.ray_pool import RayExecutor


class Cluster:
    """As much of Ray as `RayExecutor` asks when it is made."""

    def __init__(self, cores):
        self.cores = cores

    def cluster_resources(self):
        return {"CPU": float(self.cores)}

    def remote(self, *, num_cpus, max_retries):
        self.of_a_task = num_cpus
        return lambda function: function


@pytest.mark.parametrize(("cores", "workers"), [(8, 3), (16, 9), (64, 40), (8, 8), (2, 4), (4, None)])
def test_no_more_tasks_run_at_once_than_asked(cores, workers):
    cluster = Cluster(cores)
    executor = RayExecutor(cluster, workers)
    assert cores / cluster.of_a_task <= (workers or cores) == executor.workers
