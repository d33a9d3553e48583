import errno

import pytest

from brats_tf.errors import InputError
from brats_tf.runtime.files import atomic


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


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="out/a.csv could not be written: "):
        with atomic(tmp_path / "out" / "a.csv") as temporary:
            temporary.write_text("x")
