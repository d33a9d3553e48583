import errno
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from brats_tf.errors import InputError, WriteError
from brats_tf.runtime.files import atomic, check_space, read_csv, read_json, remove_partial, temporary_prefix
from brats_tf.runtime.program import catch_signals


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match=r"a.csv could not be written: No space left on device"):
        with atomic(tmp_path / "a.csv") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        with atomic(tmp_path / "a.csv") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "old")]


def test_a_failed_folder_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="saved could not be written"):
        with atomic(tmp_path / "saved") as temporary:
            (temporary / "deep").mkdir(parents=True)
            raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_gives_way_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    (path / "old").mkdir(parents=True)
    replace = os.replace

    def fail(source, target):
        if target == path and not (Path(source) / "old").exists():
            raise OSError(errno.EBUSY, "busy")
        replace(source, target)

    for broken in (True, False):
        monkeypatch.setattr(os, "replace", fail if broken else replace)
        with (
            pytest.raises(WriteError, match="busy") if broken else nullcontext(),
            atomic(path, replace=True) as temporary,
        ):
            (temporary / "new").mkdir(parents=True)
        assert [one.name for one in path.iterdir()] == ["old" if broken else "new"]
        assert list(tmp_path.iterdir()) == [path]


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="out/a.csv could not be written: "):
        with atomic(tmp_path / "out" / "a.csv") as temporary:
            temporary.write_text("x")


def test_what_no_sane_file_holds_is_an_error_that_readers_catch(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="decode"):
        read_json(path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(OSError, match="a pipe or a device"):
        read_json(tmp_path / "pipe.json")
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}


def test_a_column_that_is_named_twice_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("id,flair,flair\na,b,c\n")
    with pytest.raises(ValueError, match="the column 'flair' is named twice"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("id,flair\r\na,b\r\n")
    assert read_csv(tmp_path / "a.csv") == [{"id": "a", "flair": "b"}]


def test_what_does_not_fit_is_said_before_it_is_written(tmp_path):
    check_space(tmp_path, 2**20)
    with pytest.raises(InputError, match=r"1e\+12 MB could not be written to .*: "):
        check_space(tmp_path, 10**18)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_container_left_goes_after_a_day(tmp_path):
    node = platform.node()
    names = [f".partial-{node}-1-9999-a", f".partial-{node}-9999-b", f"{temporary_prefix()}{os.getpid()}-c"]
    for name in (*names, ".partial-elsewhere-1-d"):
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4  # Young, or of a process that runs.
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[2], ".partial-elsewhere-1-d"])


def test_signals_are_left_alone_outside_the_main_thread():
    """Where Python allows no handlers: a training in a notebook's or a server's thread."""
    with ThreadPoolExecutor(1) as pool:

        def train():
            with catch_signals(lambda number, frame: None):
                return "trained"

        assert pool.submit(train).result() == "trained"
