import json
import os
import subprocess
import sys
import threading

import pytest

from brats_tf.errors import InputError
from brats_tf.runtime.lock import LOCK_FILE, _holder, check_unlocked, lock

HOLD = """
import sys
from brats_tf.runtime.lock import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(**changes):
    return _holder() | changes


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_is_refused_while_its_process_lives_and_free_afterwards(tmp_path, other):
    sentence = rf"{tmp_path} is in use by process {other.pid} on .* since 20.*\. Wait for it, or name another folder\."
    for attempt in (lambda: lock(tmp_path).__enter__(), lambda: check_unlocked(tmp_path)):
        with pytest.raises(InputError, match=sentence):
            attempt()
    other.communicate("\n")
    check_unlocked(tmp_path)
    with lock(tmp_path):
        check_unlocked(tmp_path)  # One's own is no obstacle.
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, other, capsys):
    other.kill()
    other.wait()
    assert (tmp_path / LOCK_FILE).is_file()
    check_unlocked(tmp_path)
    with lock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
    assert f"process {other.pid} on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (holder(host="elsewhere"), f"on elsewhere since .*If it is gone, remove .*{LOCK_FILE}"),
        (holder(namespace="pid:[1]", process=2**22), f"If it is gone, remove .*{LOCK_FILE}"),
        ({}, "an unknown process"),
        ([1], "an unknown process"),
    ],
)
def test_a_lock_of_which_nobody_can_know_stays(tmp_path, content, sentence):
    (tmp_path / LOCK_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=sentence):
        with lock(tmp_path):
            pass
    assert json.loads((tmp_path / LOCK_FILE).read_text()) == content
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_the_number_of_a_process_that_was_given_again_is_not_the_process(tmp_path):
    (tmp_path / LOCK_FILE).write_text(json.dumps(holder(start=-1e9)))
    with lock(tmp_path):
        pass


def test_a_lock_of_before_the_last_boot_is_dead(tmp_path):
    if _holder()["boot"] is None:
        pytest.skip("needs a system that names its boot")
    (tmp_path / LOCK_FILE).write_text(json.dumps(holder(boot="another")))
    with lock(tmp_path):
        pass


def test_of_many_that_take_over_one_dead_lock_one_succeeds(tmp_path):
    (tmp_path / LOCK_FILE).write_text(json.dumps(holder(start=-1e9)))
    code = "import sys, time\nfrom brats_tf.runtime.lock import lock\nfrom brats_tf.errors import InputError\ntry:\n"
    code += "    with lock(sys.argv[1]):\n        print('held', flush=True)\n        time.sleep(3)\n"
    code += "except InputError:\n    print('refused')\n"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = [process.communicate()[0] for process in processes]
    assert sum("held" in one for one in said) == 1
    assert sum("refused" in one for one in said) == 5


def test_a_thread_of_the_same_process_is_refused_too(tmp_path):
    found = []

    def attempt():
        try:
            with lock(tmp_path):
                found.append("held")
        except InputError:
            found.append("refused")

    with lock(tmp_path):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert found == ["refused"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/.lock could not be written"):
        with lock(tmp_path / "file"):
            pass
