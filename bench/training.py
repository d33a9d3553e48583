"""Measure training on this machine: what each precision costs, and what rematerialisation saves.

Each row comes from a process of its own, so that one's memory does not count for the other.
"""

import logging
from pathlib import Path

import numpy as np
from rich.table import Table

from bench.timing import file_name, in_own_process, median_seconds, precisions
from brats_tf.config.presets import DEFAULT_PRESET, phantom_settings
from brats_tf.errors import format_shape
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import console, track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.system import machine
from brats_tf.runtime.tensorflow import import_tensorflow

log = logging.getLogger("brats_tf.bench")

STEPS = 50
SMALL = (64, 64, 36)  # Where the losses are compared.
ON_A_GPU = ("float32", "bfloat16", "float16")


def bench_training(config, case, *, results):
    """Measures a training step in each precision, with and without rematerialisation.

    Args:
        config: a `Config` of a network that sees whole crops.
        case: a `Case` with truth, to learn by heart at a small crop: the loss after 50 steps.
        results: the folder for `bench_training.json`, whose name says where the preset is another than `embedding`, and
            where there are rows in float32 alone.

    Returns:
        What it wrote: machine, device, crop and rows with seconds, peak GB (also as shares of the first row's), losses.
    """
    from brats_tf.preprocessing.preprocess import prepare_case

    prepared = prepare_case(case, modalities=config.data.modalities, crop=SMALL, with_truth=True)
    log.info(f"Measuring training at {format_shape(config.data.crop)}: a quarter of an hour on two cores.")
    figures = {
        "machine": machine(),
        "commit": git_commit(),
        "preset": config.preset,
        "crop": config.data.crop,
        "small_crop": SMALL,
    }
    figures |= {"case": case.id, "steps": STEPS}
    figures |= in_own_process(_about)
    measured = ON_A_GPU if figures["on_a_gpu"] else precisions()
    rows = []
    for precision, rematerialise in track(
        [(one, rematerialise) for one in measured for rematerialise in (False, True)], "Measuring"
    ):
        settings = {"precision": precision, "rematerialise": rematerialise}
        row = settings | in_own_process(_step, config, settings)
        row |= in_own_process(_losses, config, settings, prepared.volume, prepared.classes)
        row |= {f"{name}_share": row[name] / (rows or [row])[0][name] for name in ("step_s", "step_peak_gb")}
        rows.append(row)
    figures["rows"] = rows
    _show(figures)
    path = Path(results) / file_name("training", measured, config.preset)
    write_json(path, figures)
    log.info(f"Written to {path}.")
    return figures


def _about():
    tf = import_tensorflow()
    from brats_tf.runtime.tensorflow import device_name

    return {"device": device_name(), "on_a_gpu": bool(tf.config.list_physical_devices("GPU"))}


def _trainer(config, changes):
    import_tensorflow()
    from brats_tf.models.build import build_with_weights
    from brats_tf.runtime.tensorflow import make_deterministic

    config = config.replace(**changes)
    make_deterministic(config.seed)
    network, _ = build_with_weights(config)
    return network, prepared_trainer(network, config)


def prepared_trainer(network, config, *, keep=None):
    """A `Trainer` that can make steps; `keep` is that of `remat.rematerialised`, None for what the config says."""
    tf = import_tensorflow()
    from brats_tf.models.planes import with_planes
    from brats_tf.training.loop import make_trainer

    trainer = make_trainer(with_planes(network, keep=keep or config.compute.keep), config)
    trainer.prepare(tf.distribute.get_strategy(), jit=False)
    return trainer


def one_step(trainer, config):
    """A function that makes a training step on one volume of noise, at the config's crop."""
    tf = import_tensorflow()
    random = np.random.default_rng(config.seed)
    volume = tf.constant(random.standard_normal((1, *config.input_shape), dtype=np.float32))
    classes = tf.constant(random.integers(0, 4, (1, *config.data.crop)).astype(np.uint8))
    batch = (volume, classes, tf.zeros((1, 2), tf.int64))

    def step():
        trainer.step(batch)
        return trainer.logs()

    return step


def _step(config, settings):
    import_tensorflow()
    from brats_tf.models.cost import training_bytes
    from brats_tf.runtime.system import peak_gb

    network, trainer = _trainer(config, settings)
    return {
        "step_s": median_seconds(one_step(trainer, config), repeats=2),
        "step_peak_gb": peak_gb(),
        "step_estimated_gb": training_bytes(network, batch_size=1, **settings) / 1e9,
    }


def _losses(config, settings, volume, classes):
    tf = import_tensorflow()
    changes = settings | {"crop": SMALL, "learning_rate": phantom_settings(DEFAULT_PRESET)["learning_rate"]}
    _, trainer = _trainer(config, changes)
    batch = (tf.constant(volume[None]), tf.constant(classes[None]), tf.zeros((1, 2), tf.int64))
    losses = []
    for _ in range(STEPS):
        trainer.reset_metrics()
        trainer.step(batch)
        losses.append(trainer.logs()["loss"])
    return {"first_loss": losses[0], "last_loss": losses[-1]}


def _show(figures):
    table = Table("precision", "remat", "step, s", "GB", f"loss after {figures['steps']}", title=figures["machine"])
    for row in figures["rows"]:
        step, memory = f"{row['step_s']:.1f} ({row['step_s_share']:.2f})", f"{row['step_peak_gb']:.1f}"
        table.add_row(
            row["precision"], "yes" if row["rematerialise"] else "no", step, memory, f"{row['last_loss']:.3f}"
        )
    console.print(table)
