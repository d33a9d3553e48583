"""A cohort on Ray: processes hold the networks, and take one case after another until none is left.

Each case is a shard (see `shards`): what a killed process leaves is a shard that is not finished, which another takes
up, and at the end all are merged.
"""

import dataclasses
import logging
from collections import deque
from functools import cached_property
from pathlib import Path

from brats_tf.config.execution import ForwardOptions, PostProcessing, PredictionOptions
from brats_tf.errors import InputError, WriteError
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import check_possible, first_line, predict_cases
from brats_tf.inference.prediction_record import PredictionRecord
from brats_tf.inference.shards import Shard, check_count, merge_shards
from brats_tf.runtime.console import track
from brats_tf.runtime.lock import LOCK_FILE, lock
from brats_tf.runtime.ray_pool import TRIES, plain_error, ray_session
from brats_tf.runtime.tensorflow import import_tensorflow

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What every process does with a case: the arguments of `load_ensemble` and `predict_cases`, without the cases."""

    runs: tuple[Path, ...]
    checkpoint: str
    forward: ForwardOptions
    postprocessing: PostProcessing
    options: PredictionOptions
    data: str | Path | None


class Worker:
    """The networks, in a process of Ray."""

    def __init__(self, prediction):
        self.prediction = prediction

    @cached_property
    def predictors(self):
        """The networks. Loaded by the first task, whose errors reach whoever waits for it."""
        known = self.prediction
        return load_ensemble(known.runs, known.checkpoint, forward=known.forward)

    def begin(self, case_ids, out):
        """Begins the record in `out`: the ids of the cases that are to be predicted, and the line to begin with."""
        check_possible(self.predictors, self.prediction.options)
        wanted = self._record(case_ids, out, self.prediction.options).wanted
        return wanted, first_line(self.predictors, len(wanted))

    def predict(self, case, folder):
        """Predicts one case, unless it is there; a list of (case id, sentence) as `predict_cases` returns."""
        # Whoever holds the lock of the whole has started all processes: a lock here is of one that Ray has given up.
        (folder / LOCK_FILE).unlink(missing_ok=True)
        how = {"postprocessing": self.prediction.postprocessing, "data": self.prediction.data}
        return predict_cases(self.predictors, [case], out=folder, options=self._resumed(), **how)

    def leave_out(self, case, folder, sentence):
        """Records that a case has no prediction."""
        (folder / LOCK_FILE).unlink(missing_ok=True)
        with lock(folder):
            self._record([case.id], folder, self._resumed()).leave_out(case.id, sentence)

    def _record(self, case_ids, out, options):
        how = {"data": self.prediction.data, "options": options}
        return PredictionRecord(out, self.predictors, self.prediction.postprocessing, case_ids, **how)

    def _resumed(self):
        return dataclasses.replace(self.prediction.options, resume=True)


def predict_on_ray(cases, prediction, *, out, address=None, workers=None):
    """Predicts cases in several processes; what is in `out` afterwards is what `predict_cases` would have written.

    Args:
        cases: `Case`s, whose files every machine of the cluster must see under the same paths, as `out`.
        prediction: `Prediction`.
        out: the folder for label maps.
        address: of a Ray cluster; None for this machine.
        workers: processes that hold the networks; None for one per GPU, or else one per machine.

    Returns:
        A list of (case id, sentence) of those that failed.

    Raises:
        InputError: as `predict_cases` and `merge_shards`; when no cluster answers.
        WriteError: when the disk is full or the folder is read-only.
    """
    out = Path(out).resolve()
    with ray_session(address, setup=import_tensorflow) as ray, lock(out):
        pool = _start_workers(ray, prediction, workers)
        try:
            wanted, line = ray.get(pool[0].begin.remote([case.id for case in cases], out))
        except Exception as error:
            raise plain_error(error) from None
        if len(wanted) < len(cases):
            log.info(f"{len(cases) - len(wanted)} of {len(cases)} label maps are in {out} already.")
        log.info(f"{line.removesuffix('.')}, in each of {len(pool)} processes of Ray.")
        wanted = set(wanted)
        cases = [case for case in cases if case.id in wanted]
        check_count(out, len(cases))
        shards = [Shard(number, len(cases)) for number in range(1, len(cases) + 1)]
        tasks = [(case, shard.folder(out)) for case, shard in zip(cases, shards, strict=True)]
        failures = _predict_all(ray, pool, tasks)
    if cases:
        merge_shards(out)
    return failures


def _start_workers(ray, prediction, workers):
    """The processes that hold the networks, each with an equal share of the cluster."""
    resources = ray.cluster_resources()
    gpus, machines = int(resources.get("GPU", 0)), len(ray.nodes())
    count = workers or gpus or machines
    cores = resources.get("CPU", 1.0) / count
    threads = {name: str(max(int(cores), 1)) for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")}
    share = {"num_cpus": cores if cores < 1 else int(cores), "num_gpus": min(gpus / count, 1)}
    again = {"max_restarts": -1, "max_task_retries": TRIES - 1}
    actor = ray.remote(**share, **again, runtime_env={"env_vars": {} if gpus else threads})(Worker)
    return [actor.remote(prediction) for _ in range(count)]


def _predict_all(ray, pool, tasks):
    """Gives each process a case as soon as it has none: [(case id, sentence)] of those that failed."""
    idle, waiting, running, failures = deque(pool), deque(tasks), {}, []

    def finished():
        while waiting or running:
            while idle and waiting:
                worker, task = idle.popleft(), waiting.popleft()
                running[worker.predict.remote(*task)] = (worker, task)
            (done,), _ = ray.wait(list(running), num_returns=1)
            worker, (case, folder) = running.pop(done)
            idle.append(worker)
            yield done, worker, case, folder

    for done, worker, case, folder in track(finished(), "Predicting", total=len(tasks)):
        try:
            failed = ray.get(done)
        except Exception as error:
            error = plain_error(error)
            if isinstance(error, WriteError) or not isinstance(error, InputError):
                raise error from None
            failed = [(case.id, f"Case {case.id}: {error}")]
            ray.get(worker.leave_out.remote(case, folder, failed[0][1]))
        for _, sentence in failed:
            log.info(f"Left out: {sentence}")
        failures += failed
    return failures
