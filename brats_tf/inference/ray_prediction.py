"""A cohort on Ray: processes hold the networks, and take one case after another until none is left.

Each case is a shard (see `shards`): what a killed process leaves is a shard that is not finished, which another takes
up, and at the end all are merged.
"""

import logging
import math
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from brats_tf.config.execution import ForwardOptions, PostProcessing, PredictionOptions
from brats_tf.data.notes import log_notes
from brats_tf.errors import InputError, WriteError
from brats_tf.inference.ensemble import load_ensemble, predict_case, read_case
from brats_tf.inference.predict import check_possible, first_line, write_prediction
from brats_tf.inference.recording import PredictionRecord, still_wanted
from brats_tf.inference.shards import Shard, check_count, merge_shards
from brats_tf.runtime.console import track
from brats_tf.runtime.lock import LOCK_FILE, lock
from brats_tf.runtime.ray_pool import TRIES, ProcessKilledError, plain_error, ray_session
from brats_tf.runtime.tensorflow import import_tensorflow, run_one_operation_at_a_time

log = logging.getLogger(__name__)
AT_ONCE = 2  # Cases of a process: one reads or writes while the other computes.


@dataclass(frozen=True)
class Prediction:
    """What every process does with a case: the arguments of `load_ensemble` and `predict_cases`, without the cases."""

    runs: tuple[Path, ...]
    checkpoint: str
    forward: ForwardOptions
    postprocessing: PostProcessing
    options: PredictionOptions
    data: str | Path | None


@dataclass(frozen=True)
class Predicted:
    """What became of a case: what is to be said of it, notes on its geometry, why it was left out."""

    messages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: str | None = None


class Worker:
    """The networks, in a process of Ray, which works on two cases: one waits for the networks, read, or is written."""

    def __init__(self, prediction):
        self.prediction = prediction
        self._predictors, self._loading, self._computing = None, Lock(), Lock()

    @property
    def predictors(self):
        """The networks. Loaded by the first task, whose errors reach whoever waits for it."""
        known = self.prediction
        with self._loading:
            if self._predictors is None:
                run_one_operation_at_a_time(import_tensorflow())  # By now Ray has said which GPU is its own.
                self._predictors = load_ensemble(known.runs, known.checkpoint, forward=known.forward)
        return self._predictors

    def begin(self, cases, out):
        """Begins the record in `out`: the ids of the cases that are to be predicted, and the line to begin with."""
        check_possible(self.predictors, self.prediction.options)
        wanted = self._record(cases, out, self.prediction.options).wanted
        among = set(wanted)
        return wanted, first_line(self.predictors, [case for case in cases if case.id in among])

    def predict(self, case, folder):
        """Predicts one case, unless it is there and a prediction is resumed: what became of it."""
        with _own(folder):
            record = self._record([case], folder, self.prediction.options)
            if not record.wanted:
                return Predicted()
            try:
                ready = read_case(self.predictors, case)
                with self._computing:  # The networks share the memory of one.
                    predicted = predict_case(ready)
                how = {"postprocessing": self.prediction.postprocessing, "options": self.prediction.options}
                write_prediction(predicted, case, record=record, **how)
                return Predicted(tuple(ready.messages), tuple(ready.prepared.notes))
            except WriteError:
                raise
            except InputError as error:
                record.leave_out(case.id, str(error))
                return Predicted(left_out=str(error))

    def leave_out(self, case, folder, sentence):
        """Records that a case has no prediction."""
        with _own(folder):
            self._record([case], folder, self.prediction.options).leave_out(case.id, sentence)

    def _record(self, cases, out, options):
        how = {"data": self.prediction.data, "options": options}
        return PredictionRecord(out, self.predictors, self.prediction.postprocessing, cases, **how)


@contextmanager
def _own(folder):
    """Holds the lock of a case's folder, from whoever may have it.

    That is a process that Ray has given up: whoever holds the lock of the whole has started all of them.
    """
    (folder / LOCK_FILE).unlink(missing_ok=True)
    with lock(folder):
        yield


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
    with ray_session(address, setup=_import_tensorflow) as ray, lock(out):
        pool = _start_workers(ray, prediction, workers)
        try:
            wanted, line = ray.get(pool[0].begin.remote(cases, out))
        except Exception as error:
            raise plain_error(error) from None
        cases = still_wanted(cases, wanted, out)
        log.info(f"{line.removesuffix('.')}, in each of {len(pool)} processes of Ray.")
        check_count(out, len(cases))
        shards = [Shard(number, len(cases)) for number in range(1, len(cases) + 1)]
        tasks = [(case, shard.folder(out)) for case, shard in zip(cases, shards, strict=True)]
        failures, notes = _predict_all(ray, pool, tasks)
    if cases:
        merge_shards(out)
    log_notes(notes)
    return failures


def _import_tensorflow():
    """What a process of Ray begins with. Which GPU is its own, Ray says later, when it becomes a `Worker`."""
    import_tensorflow(find_gpus=False)


def _start_workers(ray, prediction, workers):
    """The processes that hold the networks, each with an equal share of the cluster."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(one.get("GPU", 0)) for one in machines)
    count = workers or gpus or max(1, sum(one.get("CPU", 0) >= 1 for one in machines))
    share = share_of(machines, count)
    variables = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # Several processes may share a GPU's memory.
    if not gpus:
        cores = str(max(int(share["num_cpus"]), 1))
        variables = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), cores)
    again = {"max_restarts": -1, "max_task_retries": TRIES - 1, "max_concurrency": AT_ONCE}
    actor = ray.remote(**share, **again, runtime_env={"env_vars": variables})(Worker)
    return [actor.remote(prediction) for _ in range(count)]


def share_of(machines, count):
    """What each of `count` processes may ask for, so that all of them find room: {"num_cpus", "num_gpus"}.

    Args:
        machines: {"CPU": cores, "GPU": devices} of each; where there are GPUs, those without one take no process.
        count: of processes, at least one.
    """
    cores, devices = ([int(one.get(name, 0)) for one in machines] for name in ("CPU", "GPU"))
    if any(devices):
        on_device = math.ceil(count / sum(devices))  # At most so many processes see one.
        share = min(core / (number * on_device) for core, number in zip(cores, devices, strict=True) if number)
        return {"num_cpus": _as_ray_counts(share), "num_gpus": 1 / on_device}
    shares = {_as_ray_counts(core / number) for core in cores for number in range(1, count + 1)} - {0}
    fitting = (share for share in shares if sum(math.floor(core / share + 1e-6) for core in cores) >= count)
    return {"num_cpus": max(fitting, default=0), "num_gpus": 0}


def _as_ray_counts(cores):
    """Whole cores, or a part of one with the four digits that Ray keeps."""
    return int(cores) if cores >= 1 else math.floor(1e4 * cores) / 1e4


def _predict_all(ray, pool, tasks):
    """Predicts all (case, folder): ([(case id, sentence)] of those that failed, {note: case ids})."""
    failures, notes, suspects = [], {}, []

    def take(task, done):
        try:
            found = ray.get(done)
        except Exception as error:
            error = plain_error(error)
            if not isinstance(error, ProcessKilledError):
                raise error from None
            suspects.append((task, error))
            return
        for message in found.messages:
            log.info(message)
        for note in found.notes:
            notes.setdefault(note, []).append(task[0].id)
        if found.left_out:
            log.info(f"Left out: {found.left_out}")
            failures.append((task[0].id, found.left_out))

    for task, done in track(_finished(ray, pool * AT_ONCE, tasks), "Predicting", total=len(tasks)):
        take(task, done)
    # Two cases that were in a process together are under suspicion; alone, the right one shows.
    again, suspects = suspects, []
    for task, done in _finished(ray, pool[:1], [task for task, _ in again]):
        take(task, done)
    for (case, folder), error in suspects:
        sentence = f"Case {case.id}: {error}"
        ray.get(pool[0].leave_out.remote(case, folder, sentence))
        log.info(f"Left out: {sentence}")
        failures.append((case.id, sentence))
    return failures, notes


def _finished(ray, workers, tasks):
    """Gives each worker a task as soon as it has none; yields (task, its result in Ray) as they end."""
    idle, waiting, running = deque(workers), deque(tasks), {}
    while waiting or running:
        while idle and waiting:
            worker, task = idle.popleft(), waiting.popleft()
            running[worker.predict.remote(*task)] = (task, worker)
        (done,), _ = ray.wait(list(running), num_returns=1)
        task, worker = running.pop(done)
        idle.append(worker)
        yield task, done
