"""Every process of a cluster finds room."""

import math
import os
from types import SimpleNamespace

import pytest
from untrained_runs import networks_of_two_convolutions, untrained

from brats_tf.config.execution import ForwardOptions, PostProcessing, PredictionOptions
from brats_tf.inference import ray_prediction
from brats_tf.inference.ray_prediction import Prediction, Worker, share_of


@pytest.mark.parametrize(
    ("machines", "count", "share"),
    [
        ([{"CPU": 2.0}], 1, (2, 0)),
        ([{"CPU": 2.0}], 4, (0.5, 0)),
        ([{"CPU": 2.0}, {"CPU": 6.0}], 2, (3, 0)),  # Both on the larger one; of 4 cores, only one would find room.
        ([{"CPU": 4.0}, {"CPU": 4.0}, {}], 2, (4, 0)),  # A head without cores.
        ([{"CPU": 1.0}], 3, (0.3333, 0)),
        ([{"CPU": 8.0, "GPU": 2.0}], 2, (4, 1)),
        ([{"CPU": 8.0, "GPU": 2.0}], 3, (2, 0.5)),
        ([{"CPU": 8.0, "GPU": 4.0}, {"CPU": 6.0}], 4, (2, 1)),
    ],
)
def test_a_share_is_as_large_as_leaves_room_for_all(machines, count, share):
    found = share_of(machines, count)
    assert (found["num_cpus"], found["num_gpus"]) == pytest.approx(share)
    room = 0
    for one in machines:
        rooms = [math.floor(one.get(kind, 0) / found[name] + 1e-6) for kind, name in KINDS if found[name]]
        room += min(rooms)
    assert room >= count


@pytest.mark.parametrize(("resume", "again"), [(False, True), (True, False)])
def test_what_an_interrupted_cohort_left_stays_where_it_is_resumed(resume, again, phantoms, tmp_path):
    options = PredictionOptions(resume=resume)
    with networks_of_two_convolutions():
        run = untrained(tmp_path / "flair", modalities=("flair",))
        worker = Worker(Prediction((run,), "last", ForwardOptions(), PostProcessing(), options, None))
        assert worker.predict(phantoms[0], tmp_path / "part").left_out is None
        path = tmp_path / "part" / f"{phantoms[0].id}.nii.gz"
        os.utime(path, (0, 0))
        worker.predict(phantoms[0], tmp_path / "part")
    assert (path.stat().st_mtime > 0) == again


@pytest.mark.parametrize(
    ("machine", "variables"),
    [
        ({"CPU": 4.0, "GPU": 1.0}, {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}),
        ({"CPU": 4.0}, {"OMP_NUM_THREADS": "2", "TF_NUM_INTRAOP_THREADS": "2"}),
    ],
)
def test_processes_share_the_memory_of_a_gpu_or_the_cores(machine, variables):
    asked = []

    class Ray:
        def nodes(self):
            return [{"Alive": True, "Resources": machine}]

        def remote(self, **given):
            asked.append(given["runtime_env"])
            return lambda worker: SimpleNamespace(remote=worker)

    assert len(ray_prediction._start_workers(Ray(), None, 2)) == 2
    assert asked == [{"env_vars": variables}]


KINDS = (("CPU", "num_cpus"), ("GPU", "num_gpus"))
