import os
import subprocess
import sys

import pytest

from brats_tf.runtime import system


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """Writes the files of a container's limits: version 2's one file, or version 1's two."""
    files = [tmp_path / name for name in ("cpu.max", "quota", "period")]
    monkeypatch.setattr(system, "_CPU_LIMITS", ((files[0],), tuple(files[1:])))
    monkeypatch.setattr(system.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)

    def write(*texts):
        for file, text in zip(files if len(texts) == 1 else files[1:], texts, strict=False):
            file.write_text(f"{text}\n")

    return write


@pytest.mark.parametrize(
    ("texts", "cores"),
    [
        ((), 8),
        (("200000 100000",), 2),
        (("150000 100000",), 2),
        (("max 100000",), 8),
        (("6400000 100000",), 8),
        (("50000", "100000"), 1),
        (("-1", "100000"), 8),
        (("nothing",), 8),
    ],
)
def test_a_container_limits_the_cores(limits, texts, cores):
    limits(*texts)
    assert system.available_cores() == cores
    words = "1 core" if cores == 1 else f"{cores} cores"
    assert system.counted_cores() == words
    assert system.machine().endswith(f", {words}")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux, which binds processes to cores")
def test_a_process_that_is_bound_to_a_core_counts_one():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from brats_tf.runtime.system import available_cores; print(available_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_tensorflow_takes_as_many_threads_as_the_container_has_cores(tmp_path):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    code = (
        "import sys; from pathlib import Path; from brats_tf.runtime import system\n"
        "system._CPU_LIMITS = ((Path(sys.argv[1]),),)\n"
        "from brats_tf.runtime.tensorflow import import_tensorflow; import_tensorflow()\n"
        "import os; print(os.environ.get('TF_NUM_INTRAOP_THREADS'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_NUM_INTRAOP_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "cpu.max")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout == "1\n"
