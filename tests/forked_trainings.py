"""Trainings small enough to be killed many times: two convolutions, each in a process forked after the slow imports.

As a program it reads a JSON line a command: {"arguments", "environment", "log"} starts `brats-tf` with them and answers
with the process's number; {"wait": number} answers with its exit code.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def small_network(shape, **settings):
    """(B, H, W, D, C) -> (B, H, W, D, 3), with planes, and with dropout, whose random state must be kept too."""
    import keras

    height, width, depth, _ = shape
    volume = keras.Input(shape, name="volume")
    x = keras.layers.Conv3D(4, 3, padding="same", activation="tanh", name="squeeze4_conv1")(volume)
    x = keras.layers.SpatialDropout3D(float(os.environ.get("DROPOUT", "0.25")), name="dropout")(x)
    slabs = keras.layers.AveragePooling3D((1, 1, depth // 3))(x)
    planes = keras.layers.Reshape((height, width, 12), name="planes")(slabs)
    decoded = keras.layers.Conv2D(3, 1, name="decoded_planes")(planes)
    spread = keras.layers.UpSampling3D((1, 1, depth // 3))(keras.layers.Reshape((height, width, 3, 1))(decoded))
    x = keras.layers.Concatenate()([x, spread])
    return keras.Model(volume, keras.layers.Conv3D(3, 1, activation="sigmoid", dtype="float32", name="last")(x))


def small_networks():
    """What replaces `registry.NETWORKS`."""
    from brats_tf.models.registry import Network

    return {"embedding": Network(small_network, "regions", lambda *arguments: "random weights")}


class Trainings:
    """The program below, from the side of a test."""

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS
        )

    def start(self, arguments, log, **environment):
        """Starts `brats-tf`. Returns the number of its process."""
        return self._ask({"arguments": [str(one) for one in arguments], "log": str(log), "environment": environment})

    def wait(self, process):
        """The exit code: -9 after kill -9."""
        return self._ask({"wait": process})

    def signal(self, process, number):
        """Sends a signal to a process that was started, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

    def run(self, arguments, log, **environment):
        """Starts, waits, and returns the exit code."""
        return self.wait(self.start(arguments, log, **environment))

    def close(self):
        """Ends the program."""
        self.server.communicate()

    def _ask(self, question):
        print(json.dumps(question), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())


def main():
    """Answers until its input ends."""
    from brats_tf.runtime.tensorflow import import_tensorflow

    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import_tensorflow()
    from brats_tf.cli.main import main as brats_tf
    from brats_tf.models import registry
    from brats_tf.training import train as training
    from brats_tf.visualisation.plots import save_curves

    assert training  # Imported here, once, because it takes seconds; so does the first picture.
    with tempfile.TemporaryDirectory() as folder:
        save_curves(Path(folder) / "curve.png", {"loss": [1.0, 0.5]}, title="", x_label="")
    registry.NETWORKS |= small_networks()
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            print(os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1]), flush=True)
            continue
        process = os.fork()
        if process == 0:
            _become(question["log"], question["environment"])
            os._exit(brats_tf(question["arguments"]))
        print(process, flush=True)


def _become(log, environment):
    """Makes a forked process one of its own."""
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(0)
    sys.stdout.reconfigure(line_buffering=True)  # What a killed process said shall not be lost.
    if os.environ.get("LOGICAL_DEVICES"):
        import tensorflow as tf

        parts = [tf.config.LogicalDeviceConfiguration()] * int(os.environ["LOGICAL_DEVICES"])
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)


if __name__ == "__main__":
    main()
