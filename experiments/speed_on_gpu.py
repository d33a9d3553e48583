"""Milliseconds and memory of the networks on a GPU: Keras on JAX beside MONAI's SegResNet on PyTorch, same card.

Command:  python experiments/speed_on_gpu.py --results RESULTS
Time:     minutes; most of it is compilation, of all networks at once.
Expected: whatever it is.

Every row comes from a process of its own, which has the GPU to itself while it is timed. "float32" is what both
libraries make of it by default: convolutions round their inputs to TF32. A step is forward, CE - Dice, backward and
Adam, on noise; the volumes are on the GPU already.
"""

import argparse
import itertools
import logging
import multiprocessing
import sys
from functools import partial
from pathlib import Path

from brats_tf.config.config import Config
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES, REGIONS
from brats_tf.runs.record import git_commit
from brats_tf.runtime.console import track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program

sys.path.append(str(Path(__file__).parents[1]))  # For `bench`, which is not installed.

from bench.timing import median_seconds

log = logging.getLogger("brats_tf.experiments")
PRESETS = {"embedding": MODALITIES[:1], "embedding-plus": MODALITIES}
NETWORKS = (*PRESETS, "SegResNet", "matrix")
PRECISIONS, BATCHES = ("float32", "bfloat16"), (1, 4)
MATRIX = 8192
REPEATS = 10
LEARNING_RATE = 1e-4


def main(arguments=None):
    """Reads the arguments, measures and writes the results. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--crop", type=int, nargs=3, help="of all networks (default: that of each preset)")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--commit", help="of this code (default: what Git says)")
    given = parser.parse_args(arguments)
    return run_program(Path(__file__).stem, partial(measure, given))


def measure(given):
    """Measures all rows and writes `<results>/speed_on_gpu.json`."""
    path = given.results / "speed_on_gpu.json"
    context, waiting, rows, facts = multiprocessing.get_context("spawn"), [], [], {}
    wanted = itertools.product(given.networks, given.batches)
    for what in (one for one in wanted if one[0] != "matrix" or one[1] == given.batches[0]):
        for precision in given.precisions:
            ours, theirs = context.Pipe()
            process = context.Process(target=_answer, args=(theirs, (*what, precision, given.crop)))
            process.start()
            theirs.close()
            waiting.append((what, precision, process, ours))
    for _, _, _, pipe in track(waiting, "Compiling"):
        pipe.poll(None)  # Ready, or gone.
    for (name, batch), precision, process, pipe in track(waiting, "Measuring"):
        try:
            pipe.recv()
            pipe.send("go")
            about, found = pipe.recv()
        except (EOFError, BrokenPipeError):
            log.info(f"Left out: {name}, {precision}, batch {batch}; its process ended.")
            continue
        finally:
            process.join()
        facts |= about
        rows += [{"network": name, "precision": precision, "batch": batch, **one} for one in found]
        write_json(path, {"commit": given.commit or git_commit(), **facts, "rows": rows})
    if not rows:
        raise InputError(f"None of {len(waiting)} networks could be measured.")
    log.info(f"Written to {path}.")


def _answer(pipe, wanted):
    """In its own process: prepares, says so, and measures when it is told to."""
    name, batch, precision, crop = wanted
    prepare = {"matrix": _matrix, "SegResNet": _segresnet}.get(name, partial(_ours, name))
    size = tuple(crop or Config.from_preset("embedding-plus", modalities=MODALITIES).data.crop)
    about, ready = prepare(batch, precision, size if crop or name == "SegResNet" else None)
    pipe.send("ready")
    pipe.recv()
    rows = []
    for what, run, its in ready():
        run()  # Besides the one that `median_seconds` warms up with.
        rows.append({"what": what, "milliseconds": 1000 * median_seconds(run, repeats=REPEATS), **its})
    pipe.send((about, rows))


def _jax():
    import jax_training

    return jax_training.jax, {"device": jax_training.jax.devices()[0].device_kind, "jax": jax_training.jax.__version__}


def _matrix(batch, precision, size):
    """A product of two matrices, for scale."""
    jax, about = _jax()

    def ready():
        keys = jax.random.split(jax.random.key(0))
        first, second = (jax.random.normal(key, (MATRIX, MATRIX), precision) for key in keys)
        run = jax.jit(jax.numpy.matmul)
        yield "product", lambda: run(first, second).block_until_ready(), {"gflop": 2 * MATRIX**3 / 1e9}

    return about, ready


def _ours(name, batch, precision, size):
    """A network of this package, compiled for a batch."""
    jax, about = _jax()
    import keras

    from brats_tf.models.build import build_network
    from brats_tf.models.losses import make_loss
    from brats_tf.models.registry import get_network

    changes = {"precision": precision, "augmentation": "none", "weights": "none", "crop": size}
    config = Config.from_preset(name, modalities=PRESETS[name], **changes)
    network = build_network(config)
    loss = make_loss(config.training, get_network(config.network.name).outputs)
    optimiser = keras.optimizers.Adam(LEARNING_RATE)
    optimiser.build(network.trainable_variables)
    kinds = (network.trainable_variables, network.non_trainable_variables, optimiser.variables)
    state = [[one.value for one in kind] for kind in kinds]

    def forward(trainable, fixed, volume):
        return network.stateless_call(trainable, fixed, volume, training=False)[0]

    def step(state, volume, target):
        def total(trainable):
            outputs, fixed = network.stateless_call(trainable, state[1], volume, training=True)
            return jax.numpy.mean(loss(target, outputs)), fixed

        (value, fixed), gradients = jax.value_and_grad(total, has_aux=True)(state[0])
        trainable, slots = optimiser.stateless_apply(state[2], gradients, state[0])
        return [trainable, fixed, slots], value

    shape = (batch, *config.data.crop)
    volume = jax.ShapeDtypeStruct((*shape, len(PRESETS[name])), "float32")
    target = jax.ShapeDtypeStruct((*shape, len(REGIONS)), "float32")
    passes = jax.jit(forward).lower(*state[:2], volume).compile()
    steps = jax.jit(step, donate_argnums=0).lower(state, volume, target).compile()

    def ready():
        values = jax.random.normal(jax.random.key(0), volume.shape)
        truth = (jax.random.uniform(jax.random.key(1), target.shape) > 0.5).astype("float32")
        yield "forward", lambda: passes(*state[:2], values).block_until_ready(), _gigabytes(passes)

        def one():
            state[:], value = steps(state, values, truth)
            value.block_until_ready()

        yield "step", one, _gigabytes(steps)

    return about | {"keras": keras.__version__}, ready


def _gigabytes(compiled):
    """What a program of XLA takes of the device: arguments, results and all between them."""
    sizes = compiled.memory_analysis()
    total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return {"gigabytes": (total - sizes.alias_size_in_bytes) / 1e9}


def _segresnet(batch, precision, size):
    """MONAI's SegResNet in PyTorch, in bfloat16 by automatic mixed precision."""
    import torch
    import torch_training

    from bench.torch_networks import network_of

    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network_of("SegResNet").to(device)
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    wait = torch.cuda.synchronize if device.type == "cuda" else bool

    def passed(volume):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return torch.sigmoid(network(volume).float())

    def ready():
        volume = torch.randn(batch, len(MODALITIES), *size, device=device)
        truth = (torch.rand(batch, len(REGIONS), *size, device=device) > 0.5).float()

        def forward():
            with torch.inference_mode():
                passed(volume)
            wait()

        def step():
            optimiser.zero_grad()
            torch_training.loss(truth, passed(volume)).backward()
            optimiser.step()
            wait()

        for what, run in (("forward", forward), ("step", step)):
            network.train(what == "step")
            run()  # Also tries cuDNN's algorithms, which takes more memory than the chosen one.
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            run()
            yield what, run, {"gigabytes": torch.cuda.max_memory_allocated() / 1e9} if device.type == "cuda" else {}

    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return {"torch_device": name, "torch": torch.__version__}, ready


if __name__ == "__main__":
    sys.exit(main())
