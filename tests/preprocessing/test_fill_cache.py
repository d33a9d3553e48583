import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tiny_networks import TINY_CROP

from brats_tf.data.discovery import find_cases
from brats_tf.errors import InputError, WriteError
from brats_tf.preprocessing import fill_cache as preparing
from brats_tf.preprocessing.cache import CacheSettings
from brats_tf.preprocessing.fill_cache import prepare_cases, verify_cache
from brats_tf.runtime.files import atomic, temporary_prefix

PARTS = ("flair", "t1", "t1ce", "t2", "seg")
SETTINGS = CacheSettings(TINY_CROP)


def prepare(cases, folder, **changes):
    return prepare_cases(cases, **({"parts": PARTS, "settings": SETTINGS, "folder": folder} | changes))


def hashes(folder):
    """{file name: hash} of all data files; records name the source's path and time, so only their names count."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix != ".json" else ""
        for path in folder.iterdir()
    }


@pytest.fixture(scope="module")
def many(phantoms, tmp_path_factory):
    """Twenty cases, copies of the phantoms."""
    root = tmp_path_factory.mktemp("many")
    for number in range(20):
        source = phantoms[number % len(phantoms)]
        (root / f"case_{number:02}").mkdir()
        for path in source.folder.iterdir():
            shutil.copy(path, root / f"case_{number:02}" / path.name.replace(source.id, f"case_{number:02}"))
    return root


@pytest.mark.parametrize("workers", [1, 3])
def test_cases_come_back_in_their_order_whatever_the_workers(many, tmp_path, workers):
    cases, _ = find_cases(many)
    stored = prepare(cases, tmp_path, workers=workers)
    assert [one.id for one in stored] == [case.id for case in cases]
    assert len(list(tmp_path.iterdir())) == 20 * 5 * 2


def test_it_says_what_it_will_take(many, tmp_path, capsys):
    cases, _ = find_cases(many)
    prepare(cases[:4], tmp_path, workers=2)
    voxels = 32 * 32 * 24
    assert f"Preprocessing 20 files of 4 cases, {4 * (4 * 4 + 1) * voxels / 1e9:.2g} GB" in capsys.readouterr().out
    prepare(cases[:6], tmp_path, workers=1)
    assert "Preprocessing 10 files of 2 cases" in (said := capsys.readouterr().out)
    assert "with 1 worker; 20 are already there." in said
    prepare(cases[:6], tmp_path)
    assert f"All 6 cases are preprocessed in {tmp_path}." in capsys.readouterr().out


def test_a_killed_preparation_goes_on_and_ends_with_the_same_store(many, tmp_path):
    cases, _ = find_cases(many)
    prepare(cases, tmp_path / "at_once")
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "brats_tf", "preprocess", many, "--cache-dir", folder, "--workers", "1"]
    command += ["--crop", "x".join(map(str, TINY_CROP))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (folder.is_dir() and any(folder.glob("*.json"))):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(list(folder.glob("*.json")))
    assert 0 < done < 100  # Killed in the middle.
    # And what a kill in the middle of a file leaves behind.
    (folder / f"{temporary_prefix()}{process.pid}-case_09-t1-0.volume").write_bytes(b"half")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("are already there") == 1
    assert hashes(folder) == hashes(tmp_path / "at_once")


def test_a_half_written_file_of_a_living_process_stays(many, tmp_path):
    cases, _ = find_cases(many)
    mine = tmp_path / f"{temporary_prefix()}{os.getpid()}-x.volume"
    others = tmp_path / ".partial-another_machine-4026531836-1-x.volume"
    for path in (mine, others):
        path.write_bytes(b"half")
    prepare(cases[:1], tmp_path)
    assert mine.exists()
    assert others.exists()


def test_a_disk_that_is_too_small_is_refused_before_the_first_file(many, tmp_path, monkeypatch):
    cases, _ = find_cases(many)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WriteError, match="needs 0.00836 GB for these cases; the disk has 1e-06 GB left."):
        prepare(cases, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_ends_in_one_sentence_with_nothing_broken(many, small_disk, monkeypatch):
    cases, _ = find_cases(many)
    usage = type("Usage", (), {"free": 10**12})  # Somebody else fills it after the check.
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WriteError, match=r"could not be written: No space left on device\.$") as caught:
        prepare(cases, small_disk, skip_invalid=True)
    assert "\n" not in str(caught.value)
    assert {sentence.partition(": ")[2] for sentence in verify_cache(small_disk)} <= {"it has no record."}
    assert [path for path in small_disk.iterdir() if path.name.startswith(".partial")] == []


def test_a_full_disk_stops_the_others_and_leaves_only_complete_entries(many, tmp_path, monkeypatch):
    """The same without the right to mount: the sixth file cannot be written."""
    cases, _ = find_cases(many)
    real, written = preparing.Cache._prepare, []

    def fails_later(self, reader, part, settings):
        if len(written) >= 5:
            with atomic(self.folder / "x"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(part)
        return real(self, reader, part, settings)

    monkeypatch.setattr(preparing.Cache, "_prepare", fails_later)
    with pytest.raises(WriteError, match="No space left on device"):
        prepare(cases, tmp_path, workers=1)
    assert len(list(tmp_path.glob("*.json"))) == 5
    assert verify_cache(tmp_path) == []


def test_bad_cases_are_all_named_and_the_good_ones_are_kept(phantoms, damaged, tmp_path, capsys):
    cases = [phantoms[0], *damaged, phantoms[1]]
    with pytest.raises(InputError) as caught:
        prepare(cases, tmp_path)
    first, second, last = str(caught.value).splitlines()
    assert "Case no_flair: no flair in" in first
    assert "Case truncated: " in second
    assert last == "2 of 4 cases cannot be used. Fix them, or exclude them with --skip-invalid."
    stored = prepare(cases, tmp_path, skip_invalid=True)
    assert [one.id for one in stored] == [phantoms[0].id, phantoms[1].id]
    assert "Left out: Case no_flair" in (said := capsys.readouterr().out)
    assert "cases are prepared" not in said


def test_none_that_can_be_used_is_refused_though_bad_ones_may_be_skipped(damaged, tmp_path):
    with pytest.raises(InputError, match=r"2 of 2 cases cannot be used\.$"):
        prepare(damaged, tmp_path, skip_invalid=True)


def test_childrens_labels_of_2024_make_all_children_of_the_folder_doubtful(phantoms, tmp_path, capsys):
    """One case with label 4 shows that the names are those of 2024; one without would be read wrongly."""
    for number, source in enumerate((phantoms[0], phantoms[3])):  # The second has labels 1 and 2 alone.
        case_id = f"BraTS-PED-0000{number}-000"
        (tmp_path / "data" / case_id).mkdir(parents=True)
        for part, suffix in (("flair", "t2f"), ("seg", "seg")):
            shutil.copy(source.require(part), tmp_path / "data" / case_id / f"{case_id}-{suffix}.nii.gz")
    cases, _ = find_cases(tmp_path / "data")
    with pytest.raises(InputError) as caught:
        prepare(cases, tmp_path / "cache", parts=("flair", "seg"), skip_invalid=True)
    first, second, _ = str(caught.value).splitlines()
    assert "received also 4 (BraTS-PED files are called alike" in first
    assert second.startswith("Case BraTS-PED-00001-000: labels of other cases do not fit its layout: BraTS-PED files")
    stored = prepare(cases[1:], tmp_path / "cache", parts=("flair", "seg"))
    assert len(stored) == 1
    assert "Note: BraTS-PED files are called alike in 2023 and 2024" in capsys.readouterr().out


def test_odd_geometry_is_said_once_with_its_cases(many, tmp_path, capsys):
    cases, _ = find_cases(many)
    prepare(cases, tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Note:" in line]
    named = "case_00, case_01, case_02, case_03, case_04 and 15 more"
    assert line == f"Note: voxels of 6x6x6 mm, not resampled to 1 mm: {named}."


def test_verify_removes_what_is_damaged_and_preparing_makes_it_anew(many, tmp_path, capsys):
    cases = find_cases(many)[0][:3]
    prepare(cases, tmp_path)
    before = hashes(tmp_path)
    assert verify_cache(tmp_path) == []
    assert f"15 entries in {tmp_path}, 0 removed." in capsys.readouterr().out
    changed, orphan, unreadable = sorted(tmp_path.glob("*.volume"))[:3]
    content = bytearray(changed.read_bytes())
    content[1000] ^= 1
    changed.write_bytes(content)
    (tmp_path / f"{orphan.name}.json").unlink()
    os.utime(orphan, (0, 0))  # Else its record might be on its way.
    (tmp_path / f"{unreadable.name}.json").write_text("{")
    reasons = sorted(sentence.partition(": ")[2] for sentence in verify_cache(tmp_path))
    assert reasons[0].startswith("expected the checksum ")
    assert reasons[1:] == ["it has no record.", "its record is damaged."]
    assert verify_cache(tmp_path) == []
    prepare(cases, tmp_path)
    assert hashes(tmp_path) == before


def test_verify_touches_nothing_that_is_not_the_stores(many, tmp_path):
    cases = find_cases(many)[0][:1]
    prepare(cases, tmp_path)
    entry = next(tmp_path.glob("*.volume"))
    young = tmp_path / f"young-t1-{'0' * 16}.volume"
    foreign = ["config.json", "dataset.json", "notes.json", f".partial-other-5-{entry.name}", "scan.volume"]
    for path in (young, *(tmp_path / name for name in foreign)):
        path.write_text("{}")
    (tmp_path / "notes").mkdir()
    for name in foreign:
        os.utime(tmp_path / name, (0, 0))
    assert verify_cache(tmp_path) == []
    assert all((tmp_path / name).exists() for name in (young.name, "notes", *foreign))


def test_a_store_that_is_not_there_cannot_be_verified(tmp_path):
    with pytest.raises(InputError, match="does not exist or is not a folder"):
        verify_cache(tmp_path / "nowhere")
