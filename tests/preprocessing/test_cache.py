import dataclasses
import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from tiny_networks import TINY_CROP

from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import ListLayout
from brats_tf.errors import InputError
from brats_tf.preprocessing.cache import Cache, CacheSettings, damage, read_cache_record, record_path
from brats_tf.preprocessing.preprocess import prepare_case
from brats_tf.regions import CONVENTIONS

PARTS = ("flair", "t2", "seg")
SETTINGS = CacheSettings(TINY_CROP)


@pytest.fixture
def case(phantoms, tmp_path):
    """A copy of the first phantom, to be changed."""
    shutil.copytree(phantoms[0].folder, tmp_path / "data" / "x")
    return find_cases(tmp_path / "data")[0][0]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def stored(case, folder, settings=SETTINGS, parts=PARTS):
    return Cache(folder).add(case, parts, settings)[0]


def change(path, how):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(how(np.asanyarray(image.dataobj)), image.affine), path)


def test_it_holds_what_preparation_made(case, folder):
    prepared = prepare_case(case, modalities=("flair", "t2"), crop=TINY_CROP, with_truth=True)
    entry = stored(case, folder)
    for channel, name in enumerate(("flair", "t2")):
        voxels = np.fromfile(entry.volumes[name], "<f4").reshape(TINY_CROP)
        np.testing.assert_array_equal(voxels, prepared.volume[..., channel])
    np.testing.assert_array_equal(np.fromfile(entry.classes, np.uint8).reshape(TINY_CROP), prepared.classes)
    brain = np.argwhere(prepared.volume.any(axis=-1))
    assert entry.box == (tuple(brain.min(axis=0)), tuple(brain.max(axis=0) + 1))


@pytest.mark.parametrize("wider", ["flair", "t2"])
def test_the_box_holds_the_brain_of_every_modality(case, folder, wider):
    for modality in {"flair", "t2"} - {wider}:
        change(case.volumes[modality], lambda voxels: voxels * (np.arange(voxels.shape[0]) % 2 == 0)[:, None, None])
        change(case.volumes[modality], lambda voxels: np.where(np.arange(voxels.shape[2]) < 24, voxels, 0))
    boxes = [stored(case, folder, parts=parts).box for parts in (("flair", "t2"), (wider,))]
    (narrow,) = {"flair", "t2"} - {wider}
    assert boxes[0] == boxes[1] != stored(case, folder, parts=(narrow,)).box


def test_a_resampled_entry_is_what_preparation_resamples(case, folder):
    prepared = prepare_case(case, modalities=("flair",), crop=TINY_CROP, with_truth=True, spacing_mm=5.0)
    entry = stored(case, folder, CacheSettings(TINY_CROP, spacing_mm=5.0), parts=("flair", "seg"))
    np.testing.assert_array_equal(np.fromfile(entry.volumes["flair"], "<f4"), prepared.volume.ravel())
    np.testing.assert_array_equal(np.fromfile(entry.classes, np.uint8), prepared.classes.ravel())


def test_a_second_preparation_writes_nothing(case, folder):
    stored(case, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    stored(case, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_networks_of_one_and_of_several_modalities_share_it(case, folder):
    both = stored(case, folder)
    one = stored(case, folder, parts=("t2", "seg"))
    assert (one.volumes["t2"], one.classes) == (both.volumes["t2"], both.classes)


def test_a_changed_file_or_setting_is_noticed(case, folder):
    entries = [stored(case, folder)]
    entries.append(stored(case, folder, CacheSettings((32, 32, 36))))
    entries.append(stored(case, folder, CacheSettings(TINY_CROP, spacing_mm=5.0)))
    change(case.volumes["flair"], lambda voxels: voxels + 1)
    entries.append(stored(case, folder))
    assert len({entry.volumes["flair"] for entry in entries}) == 4
    assert entries[3].volumes["t2"] == entries[0].volumes["t2"]


def test_another_convention_makes_other_classes(case, folder, tmp_path):
    (tmp_path / "list.csv").write_text(
        f"id,flair,t2,seg,convention\nx,{case.volumes['flair']},{case.volumes['t2']},{case.segmentation},brats2024\n"
    )
    (listed,), _ = find_cases(tmp_path / "list.csv")
    assert stored(listed, folder).classes != stored(case, folder).classes


@pytest.mark.parametrize("what", ["bytes", "time"])
def test_a_file_of_another_size_or_time_is_read_again(what, case, folder):
    stored(case, folder)
    assert Cache(folder).find(case, "flair", SETTINGS)
    path = case.volumes["flair"]
    before = path.stat()
    if what == "bytes":
        path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (what == "time")))
    assert (path.stat().st_size != before.st_size) == (what == "bytes")
    assert Cache(folder).find(case, "flair", SETTINGS) is None


def test_every_channel_and_every_set_of_labels_has_its_own_key(case):
    channels = [dataclasses.replace(case, channels={"flair": channel}) for channel in (0, 1)]
    assert len({SETTINGS.key(one, "flair", "0") for one in channels}) == 2
    labelled = [dataclasses.replace(case, layout=ListLayout(CONVENTIONS[name])) for name in sorted(CONVENTIONS)]
    assert len({SETTINGS.key(one, "seg", "0") for one in labelled}) == len(
        {(one.convention.labels, one.convention.others) for one in labelled}
    )


def test_a_file_that_was_only_copied_gives_the_same_entry(case, folder, tmp_path):
    first = stored(case, folder)
    before = {path: path.stat().st_mtime_ns for path in first.paths}
    shutil.copytree(case.folder, tmp_path / "elsewhere" / "x", copy_function=shutil.copyfile)
    (copied,), _ = find_cases(tmp_path / "elsewhere")
    assert stored(copied, folder) == first
    assert {path: path.stat().st_mtime_ns for path in first.paths} == before
    assert Cache(folder).find(copied, "flair", SETTINGS)["source"]["path"] == str(copied.volumes["flair"])


def test_a_part_of_another_geometry_is_refused_though_both_were_stored(case, folder):
    stored(case, folder, parts=("flair",))
    change(case.volumes["t2"], lambda voxels: voxels[1:])
    stored(case, folder, parts=("t2",))
    with pytest.raises(InputError, match="_t2.nii.gz must have the shape 40x40x26 of .*; received 39x40x26"):
        stored(case, folder)


def test_an_entry_that_was_cut_off_is_made_again(case, folder):
    entry = stored(case, folder)
    whole = entry.volumes["flair"].read_bytes()
    entry.volumes["flair"].write_bytes(whole[:-1])
    assert stored(case, folder).volumes["flair"].read_bytes() == whole


def test_a_changed_byte_is_found_by_reading_it(case, folder):
    entry = stored(case, folder)
    record = read_cache_record(record_path(entry.classes))
    assert damage(folder, record) is None
    content = bytearray(entry.classes.read_bytes())
    content[100] ^= 1
    entry.classes.write_bytes(content)
    assert damage(folder, record).startswith(f"expected the checksum {record['crc32']:08x}, received ")
    entry.classes.unlink()
    assert damage(folder, record) == "it cannot be read: No such file or directory"


def test_a_damaged_record_counts_for_none(case, folder):
    entry = stored(case, folder)
    record = record_path(entry.classes)
    whole = json.loads(record.read_text())
    for content in (
        "",
        "{",
        "[]",
        "3",
        json.dumps({"case": "x"}),
        json.dumps(whole | {"source": {}}),
        json.dumps(whole | {"box": 3}),
    ):
        record.write_text(content)
        assert read_cache_record(record) is None
    assert stored(case, folder).classes == entry.classes
    assert read_cache_record(record)["case"] == case.id


def test_a_record_cannot_name_a_file_elsewhere(case, folder):
    entry = stored(case, folder)
    path = record_path(entry.classes)
    path.write_text(json.dumps(read_cache_record(path) | {"file": "../elsewhere.classes"}))
    assert stored(case, folder).classes == entry.classes


def test_a_file_with_hardly_any_background_is_noted(case, folder):
    change(case.volumes["flair"], lambda voxels: voxels + 100)
    _, notes = Cache(folder).add(case, PARTS, SETTINGS)
    assert "hardly any voxel is 0: the skull should be stripped and the background 0" in notes


def test_a_missing_file_is_refused(case, folder):
    case.volumes["flair"].unlink()
    with pytest.raises(InputError, match=f"Case {case.id}: .*flair.nii.gz could not be read: No such file"):
        stored(case, folder)
