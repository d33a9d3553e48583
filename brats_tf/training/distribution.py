"""Which devices train: one, several of this machine, or one or more of each of several machines."""

import json
import os

import tensorflow as tf

from brats_tf.errors import InputError
from brats_tf.runtime.tensorflow import has_gpu

PORT = 29400  # Of the first task on a Slurm node; the others count on.


def machines():
    """How many processes train together, as TF_CONFIG or Slurm says; 1 where neither does."""
    return len(_cluster().get("cluster", {}).get("worker", [None]))


def choose_strategy(count=1):
    """The `tf.distribute.Strategy` for `count` devices of this machine, and all machines that take part.

    Several machines are recognised by TF_CONFIG, or inside a Slurm step of several tasks (`srun`), which TF_CONFIG is
    then made from. One device of one machine needs no strategy of its own.

    Raises:
        InputError: when there are not so many devices, or TF_CONFIG is none.
    """
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if machines() > 1:
        if count > 1:
            raise InputError(f"Several machines each use all their GPUs; `--devices` must be 1. Received: {count}.")
        os.environ["TF_CONFIG"] = json.dumps(_cluster())
        return tf.distribute.MultiWorkerMirroredStrategy()
    there = tf.config.list_logical_devices(kind)
    if count > len(there):
        raise InputError(f"`--devices` must be at most {len(there)}, the {kind}s of this machine. Received: {count}.")
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in there[:count]])


def gpu_numbers():
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES numbers them."""
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = len(tf.config.list_physical_devices("GPU"))
    return names[:count] if len(names) >= count else [str(number) for number in range(count)]


def is_first():
    """Whether this process writes the run's files: of several machines the first one does."""
    return _cluster().get("task", {}).get("index", 0) == 0


def agree(strategy, *values):
    """The sums of some numbers over all machines, so that all of them do the same: a list of floats."""
    if machines() == 1:
        return [float(value) for value in values]
    mine = tf.constant(values, tf.float32)
    shared = strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", mine))
    total = strategy.experimental_local_results(shared)[0] / (strategy.num_replicas_in_sync // machines())
    return total.numpy().tolist()


def _cluster():
    """TF_CONFIG, or what a Slurm step amounts to; {} for a process on its own."""
    text = os.environ.get("TF_CONFIG")
    if text:
        try:
            cluster = json.loads(text)
            workers, task = cluster["cluster"]["worker"], cluster["task"]
            if not (workers and task["type"] == "worker" and 0 <= task["index"] < len(workers)):
                raise ValueError("task must be one of the workers")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                'TF_CONFIG must be {"cluster": {"worker": ["host:port", ...]}, '
                '"task": {"type": "worker", "index": N}}. '
                f"Received: {error!r}."
            ) from None
        return cluster
    tasks, names = os.environ.get("SLURM_STEP_NUM_TASKS", "1"), os.environ.get("SLURM_STEP_NODELIST", "")
    if tasks == "1" or not names:
        return {}
    # Its numbers of GPUs matter only where it chooses each task's, which Slurm has done.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=PORT, gpus_per_node=int(tasks), gpus_per_task=1, auto_set_gpu=False
    )
    workers = resolver.cluster_spec().job_tasks("worker")
    # The workers are sorted by name, not as Slurm counts its tasks.
    mine = f"{os.environ.get('SLURMD_NODENAME')}:{PORT + int(os.environ.get('SLURM_LOCALID', 0))}"
    index = workers.index(mine) if mine in workers else int(os.environ["SLURM_PROCID"])
    return {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}


def check_devices(configs, devices):
    """Raises `InputError` unless the devices can run, and share, the steps of these trainings."""
    for config in configs:
        training = config.training
        if config.compute.precision == "float16" and not has_gpu():
            raise InputError(
                "`precision` must be float32 or bfloat16 without a GPU: on a CPU, TensorFlow pools no float16 volumes. "
                "Received: float16."
            )
        if config.compute.jit and config.compute.precision == "bfloat16" and not has_gpu():
            raise InputError(
                "`jit` must be off in bfloat16 without a GPU: on a CPU, XLA cannot compile all of its gradients. "
                "Received: jit=True, precision=bfloat16."
            )
        if devices > 1 and training.gradient_accumulation_steps > 1:
            raise InputError(
                "`gradient_accumulation_steps` must be 1 on several devices, because Keras accumulates on one alone; "
                f"more devices split a batch as well. Received: {training.gradient_accumulation_steps} on {devices}."
            )
        if devices > 1 and config.compute.precision == "float16":
            raise InputError(
                "`precision` must be float32 or bfloat16 on several devices: with float16, Keras skips a step for an "
                f"overflow on the first device alone. Received: float16 on {devices}."
            )
        if devices > 1 and config.compute.jit:
            raise InputError(
                f"`jit` must be off on several devices, which TensorFlow cannot join inside XLA. Received: {devices}."
            )
        if training.plateau_monitor == "validation" and machines() > 1:
            raise InputError(
                "`plateau_monitor` validation is for one machine: the scores of several may differ in a digit."
            )
        if training.batch_size % devices:
            raise InputError(
                f"`batch_size` must be a multiple of the {devices} devices. Received: {training.batch_size}."
            )
