"""One trained network in three runtimes: seconds, memory, size, and what happens to its Dice.

The network is exported as a SavedModel, an ONNX file and a LiteRT file, the latter two also with weights in float16.
Each predicts the same prepared cases, volume after volume, in a process of its own that imports its runtime alone, on
all cores. The differences are from the SavedModel: the largest of a probability, and the mean and the largest change of
a case's Dice over the regions, on the network's own voxels.

Command:  python experiments/runtimes.py RUN DATA [--cases 8]
Time:     about 5 minutes for `embedding-plus` at 96x96x72 on two CPU cores.
Expected: equal Dice in float32, changes below 0.002 with weights in float16; the runtimes load in a fraction of the
          time that TensorFlow takes, and a pass takes two to three times as long.

Needs the extra `runtimes`. Writes RESULTS/runtimes.json.
"""

import json
import logging
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from run_and_data import run_and_data

from brats_tf.runtime.program import run_program

log = logging.getLogger("brats_tf.experiments")
KINDS = (
    ("savedmodel", "float32"),
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("litert", "float32"),
    ("litert", "float16"),
)


def main(arguments=None):
    """Reads the arguments, measures, writes; as `--measure` it is the process of one runtime. Returns the exit code."""
    parser = run_and_data(__doc__)
    parser.add_argument("--cases", type=int, default=8, help="how many of them")
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments)))


def run(given):
    """Exports, measures every kind and writes the file."""
    from provenance import provenance

    from brats_tf.config.config import Config
    from brats_tf.data.discovery import find_cases
    from brats_tf.models.registry import get_network
    from brats_tf.preprocessing.preprocess import prepare_case
    from brats_tf.runtime.console import track
    from brats_tf.runtime.files import write_json

    config = Config.load(given.run)
    prepared = [
        prepare_case(case, **config.preprocessing(), with_truth=True)
        for case in track(find_cases(given.data)[0][: given.cases], "Preparing")
    ]
    rows, reference = [], None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "volumes.npy", np.stack([case.volume for case in prepared]))
        for kind, weight_type in track(KINDS, "Measuring"):
            row, found = measure(given.run, folder, kind, weight_type)
            reference = found if reference is None else reference
            outputs = get_network(config.network.name).outputs
            rows.append(row | compared(found, reference, [case.classes for case in prepared], outputs))
    path = given.results / "runtimes.json"
    facts = {"run": given.run.name, "crop": config.input_shape[:3], "cases": len(prepared), "rows": rows}
    write_json(path, provenance() | {"runtimes": _versions()} | facts)
    log.info(f"Written to {path}.")


def measure(run, folder, kind, weight_type):
    """One kind in a process of its own: (figures, the probabilities of all volumes)."""
    from brats_tf.config.execution import ExportOptions
    from brats_tf.exporting.export import export_networks

    out = folder / f"{kind}-{weight_type}"
    export_networks([run], out=out, options=ExportOptions(format=kind, weight_type=weight_type))
    command = [sys.executable, __file__, "--measure", kind, str(out), str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    size = sum(path.stat().st_size for path in out.rglob("*") if path.suffix not in (".json", ".md"))
    row = {"kind": kind, "weight_type": weight_type, "megabytes": size / 1e6} | json.loads(answer.splitlines()[-1])
    return row, np.load(folder / "found.npy")


def compared(found, reference, truths, outputs):
    """How probabilities differ from the reference, and the Dice of both."""
    from brats_tf.evaluation.metrics import dice
    from brats_tf.models.outputs import to_classes
    from brats_tf.regions import REGIONS, classes_to_regions

    def scores(probabilities, truth):
        there, expected = (classes_to_regions(one) for one in (to_classes(probabilities, outputs), truth))
        return [dice(expected[..., region], there[..., region]) for region in range(len(REGIONS))]

    ours = np.array([scores(*pair) for pair in zip(found, truths, strict=True)])
    before = np.array([scores(*pair) for pair in zip(reference, truths, strict=True)])
    change = np.abs(ours - before)
    return {
        "largest_difference": float(np.abs(found - reference).max()),
        "dice": dict(zip(REGIONS, ours.mean(axis=0).tolist(), strict=True)),
        "dice_change": {"mean": float(change.mean()), "largest": float(change.max())},
    }


def _versions():
    from importlib.metadata import version

    return {name: version(name) for name in ("tensorflow", "onnxruntime", "ai-edge-litert")}


def measure_here(kind, out, folder):
    """The process of one runtime: predicts all volumes, prints its figures, writes `found.npy`."""
    from brats_tf.runtime.system import available_cores, peak_gb  # The kernel's other figure begins at the parent's.

    started = time.monotonic()
    predict = {"savedmodel": _tensorflow, "onnx": _onnx, "litert": _litert}[kind](Path(out), available_cores())
    load_seconds, seconds, found = time.monotonic() - started, [], []
    for volume in np.load(Path(folder) / "volumes.npy", mmap_mode="r"):
        started = time.monotonic()
        found.append(np.array(predict(np.ascontiguousarray(volume[None])))[0])
        seconds.append(time.monotonic() - started)
    peak = peak_gb()
    np.save(Path(folder) / "found.npy", np.stack(found))
    later = seconds[1:] or seconds
    figures = {"load_seconds": load_seconds, "first_seconds": seconds[0], "seconds": float(np.median(later))}
    print(json.dumps(figures | {"peak_gb": peak}))


def _tensorflow(out, threads):
    import tensorflow as tf

    del threads  # All of them.
    model = tf.saved_model.load(out)
    return lambda volumes: next(iter(model.probabilities(volumes).values())).numpy()


def _onnx(out, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda volumes: session.run(None, {"volume": volumes})[0]


def _litert(out, threads):
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(out / "model.tflite"), num_threads=threads)
    (inputs,), (outputs,) = model.get_input_details(), model.get_output_details()

    def predict(volumes):
        model.resize_tensor_input(inputs["index"], volumes.shape)
        model.allocate_tensors()
        model.set_tensor(inputs["index"], volumes)
        model.invoke()
        return model.get_tensor(outputs["index"])

    return predict


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure_here(*sys.argv[2:])
    else:
        sys.exit(main())
