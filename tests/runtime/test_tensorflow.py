import errno
import gc
import os
import subprocess
import sys
import weakref

import pytest

from brats_tf.runtime import system, tensorflow
from brats_tf.runtime.tensorflow import (
    as_os_error,
    free_graphs,
    import_tensorflow,
    no_garbage_collection,
    resolved_precision,
)

tf = import_tensorflow()


@pytest.mark.parametrize(
    ("message", "number", "sentence"),
    [
        ("{{function_node __wrapped__SaveV2}} /x; No space left on device [Op:SaveV2]", errno.ENOSPC, "No space left"),
        ("/x; Permission denied", errno.EACCES, "Permission denied"),
        ("{{node a}} something else", None, "something else"),
    ],
)
def test_an_error_of_a_writer_is_what_it_was_before(message, number, sentence):
    error = as_os_error(tf.errors.ResourceExhaustedError(None, None, message))
    assert error.errno == number
    assert (error.strerror or str(error)).startswith(sentence)


@pytest.mark.parametrize(
    ("content", "able"),
    [
        ("flags\t: fpu avx512_bf16 avx2", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t: avx2\nbugs\t: bf16", False),
    ],
)
def test_the_processor_is_asked_for_bfloat16(tmp_path, monkeypatch, content, able):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: bf16\n{content}\n")
    monkeypatch.setattr(system, "CPU_INFO", tmp_path / "cpuinfo")
    assert system.cpu_has_bfloat16() == able
    monkeypatch.setattr(system, "CPU_INFO", tmp_path / "none")
    assert not system.cpu_has_bfloat16()


@pytest.mark.parametrize(("able", "auto"), [(True, "bfloat16"), (False, "float32")])
def test_auto_asks_the_machine(able, auto, monkeypatch, capsys):
    monkeypatch.setattr(tensorflow, "has_bfloat16", lambda: able)
    assert resolved_precision("auto") == auto
    assert resolved_precision("bfloat16") == "bfloat16"
    assert ("many times slower than float32" in " ".join(capsys.readouterr().out.split())) != able


@tf.custom_gradient
def doubled(x):
    return 2 * x, lambda upstream: 2 * upstream


def traced(variable):
    """A function of a graph that holds `variable`, and a weak reference to the graph."""
    function = tf.function(lambda: doubled(variable * 1.0)).get_concrete_function()
    return function, weakref.ref(function.graph)


def test_a_graph_is_freed_with_its_gradients_and_others_are_kept():
    variable = tf.Variable(3.0)
    kept, _ = traced(variable)
    with free_graphs():
        function, freed = traced(variable)
        with tf.GradientTape() as tape:
            value = function()
        assert tape.gradient(value, variable).numpy() == 2
    del function, value, tape
    gc.collect()
    assert freed() is None
    with tf.GradientTape() as tape:
        value = kept()
    assert tape.gradient(value, variable).numpy() == 2


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_garbage_is_not_collected_meanwhile(enabled, keep, monkeypatch):
    done = []
    for name in ("collect", "freeze"):
        monkeypatch.setattr(gc, name, lambda name=name: done.append((name, gc.isenabled())))
    try:
        (gc.enable if enabled else gc.disable)()
        with no_garbage_collection(keep=keep):
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        assert done == ([("collect", enabled), ("freeze", False)] if keep else [])
        with pytest.raises(ValueError, match="inside"), no_garbage_collection(keep=keep):
            raise ValueError("inside")
        assert gc.isenabled() == enabled
        assert [name for name, _ in done].count("freeze") == keep  # Not after a failure.
    finally:
        gc.enable()


@pytest.mark.slow
def test_packages_that_only_unused_parts_of_keras_need_are_left_alone():
    program = (
        "import sys\n"
        "from brats_tf.runtime.tensorflow import UNUSED, import_tensorflow\n"
        "import_tensorflow()\n"
        "assert not set(UNUSED) & set(sys.modules), set(UNUSED) & set(sys.modules)\n"
        "import matplotlib\n"  # And can be imported by whoever uses them.
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    whole = "import sys, brats_tf\nbrats_tf.load_network\nassert 'matplotlib' in sys.modules\n"  # As a notebook does.
    subprocess.run([sys.executable, "-c", whole], check=True)


@pytest.mark.slow
def test_without_looking_for_gpus_none_is_found_yet():
    """A process of Ray is told which GPU is its own only after it has begun."""
    program = (
        "from brats_tf.runtime.tensorflow import import_tensorflow, run_one_operation_at_a_time\n"
        "tf = import_tensorflow(find_gpus=False)\n"
        "from tensorflow.python.eager import context\n"
        "assert context.context()._physical_devices is None\n"
        "run_one_operation_at_a_time(tf)\n"
        "assert tf.config.threading.get_inter_op_parallelism_threads() == 1\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_NUM_INTEROP_THREADS"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
