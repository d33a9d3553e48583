"""What a training says before its first step: what is trained on what, what it costs, what is slow."""

import logging

from brats_tf.errors import format_shape
from brats_tf.models.cost import training_bytes
from brats_tf.runs.network import what_takes_memory
from brats_tf.runtime.system import memory_limit_gb
from brats_tf.runtime.tensorflow import device_name, has_gpu

log = logging.getLogger(__name__)
BESIDE_A_STEP_GB = 0.8  # Cases read ahead, what predicts between steps; fitted to `peak_memory_gb` of runs on a CPU.


def warn_of_costs(ready, devices):
    """Logs an estimate where the memory may not suffice, and what is slow."""
    config, needed = ready.config, memory_gb(ready, devices)
    if not has_gpu() and needed > memory_limit_gb():
        log.warning(
            f"This training may need about {needed:.0f} GB; {device_name()} has {memory_limit_gb():.0f} GB, for "
            f"{what_takes_memory(config)}."
        )
    if config.compute.jit and not has_gpu():
        log.warning("--jit: on a CPU, XLA is several times slower than TensorFlow for the embedding paper's network.")


def memory_gb(ready, devices):
    """How many GB the training of a `ready_network.ReadyNetwork` takes on each of its devices, about."""
    training, compute = ready.config.training, ready.config.compute
    batch_size = training.batch_size // training.gradient_accumulation_steps // devices
    saved = {"precision": compute.precision, "rematerialise": compute.rematerialise}
    return BESIDE_A_STEP_GB + training_bytes(ready.network, batch_size=batch_size, **saved) / 1e9


def first_line(name, data, ready, devices):
    """What is trained, on what, and about how much memory it takes."""
    config = data.config
    seen = f"crop {format_shape(config.data.crop)}"
    if config.data.patch_size:
        seen = f"patches {format_shape(config.data.patch_size)}, batch {config.training.batch_size}"
    several = f"{devices} devices, the first " if devices > 1 else ""
    return (
        f"Training {name} ({config.preset}, {config.network.encoder}): {len(data.stored)} cases, "
        f"{seen}, {ready.network.count_params():,} parameters, {ready.origin}, "
        f"on {several}{device_name()}, {config.compute.precision}, about {memory_gb(ready, devices):.1f} GB of memory."
    )
