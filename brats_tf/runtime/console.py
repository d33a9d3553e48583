"""What people see while they wait: lines, progress bars with time left, and TensorFlow without its start-up chatter."""

import os
import sys
import tempfile

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# soft_wrap: a sentence with a path in it stays one line, for people who copy and for programs that search.
console = Console(highlight=False, soft_wrap=True)


def say(text):
    """Prints one line, square brackets and all."""
    console.print(text, markup=False)


def progress_bar():
    """A progress bar with count, time left (at the end: time taken) and a free text field `note`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def track(items, description, total=None):
    """Yields the items under a progress bar; `total` is needed where they have no length."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=len(items) if total is None else total, note="")
        for item in items:
            yield item
            bar.advance(task)


def import_tensorflow():
    """Imports TensorFlow with its log lines held back, and returns it.

    They come from C++ before any log level counts, so file descriptor 2 is turned aside meanwhile; if the import
    fails, what was held back is printed.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # Whatever ~/.keras/keras.json says: tf.data and SavedModels need it.
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow

            gpus = tensorflow.config.list_physical_devices("GPU")  # Looks for GPUs, which is chatty too.
            if not gpus and "TF_NUM_INTEROP_THREADS" not in os.environ:
                # One operation at a time, each on all cores: as fast, and what is added up then has one order, so that
                # a seed repeats a training bit by bit. `Trainer.prepare` has the other half of it.
                tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
    return tensorflow
