import errno
import os

import nibabel as nib
import numpy as np
import pytest
from tiny_networks import TINY_SPACING_MM

from brats_tf.data import phantoms as phantoms_module
from brats_tf.data.phantoms import make_phantom, phantom_cases, write_phantoms
from brats_tf.errors import WriteError
from brats_tf.regions import BRATS_2017, MODALITIES


def test_phantoms_are_ordinary_brats_2020_cases(phantoms):
    assert len(phantoms) == 4
    for case in phantoms:
        assert case.convention == BRATS_2017
        assert list(case.volumes) == list(MODALITIES)
        for path in (*case.volumes.values(), case.segmentation):
            image = nib.load(path)
            assert image.shape == (40, 40, 26)
            assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
            np.testing.assert_allclose(image.header.get_zooms(), TINY_SPACING_MM)


def test_the_same_seed_writes_the_same_bytes(phantoms, tmp_path):
    list(write_phantoms(tmp_path, names=[phantoms[0].folder.name], spacing_mm=TINY_SPACING_MM))
    for path in phantoms[0].folder.iterdir():
        assert (tmp_path / phantoms[0].folder.name / path.name).read_bytes() == path.read_bytes()


def test_names_and_seeds_make_different_heads():
    def flair(name, seed):
        return make_phantom(name, spacing_mm=TINY_SPACING_MM, seed=seed, enhancing=True).volumes["flair"]

    assert (flair("a", 0) != flair("b", 0)).any()
    assert (flair("a", 0) != flair("a", 1)).any()


def test_every_fourth_case_has_no_enhancing_tumour(phantoms):
    with_enhancing = [4 in np.unique(np.asanyarray(nib.load(case.segmentation).dataobj)) for case in phantoms]
    assert with_enhancing == [True, True, True, False]


def test_regions_look_different_in_each_modality_as_in_mri():
    phantom = make_phantom("a", spacing_mm=3, seed=0, enhancing=True)
    mean = {
        modality: [voxels[phantom.classes == label].mean() for label in range(1, 4)]
        for modality, voxels in phantom.volumes.items()
    }
    brain = {name: voxels[(phantom.classes == 0) & (voxels > 0)].mean() for name, voxels in phantom.volumes.items()}
    necrosis, edema, enhancing = range(3)
    assert mean["flair"][edema] > 1.3 * brain["flair"]  # Edema is bright in FLAIR and T2,
    assert mean["t2"][edema] > 1.2 * brain["t2"]
    assert mean["t1ce"][enhancing] > 1.5 * mean["t1ce"][edema]  # the rim after contrast,
    assert mean["t1"][enhancing] < 1.2 * mean["t1"][edema]  # not before it,
    assert mean["t1"][necrosis] < 0.8 * brain["t1"]  # and necrosis is dark in T1.


def test_the_background_is_zero_and_the_tumour_inside_the_brain():
    phantom = make_phantom("a", spacing_mm=3, seed=0, enhancing=True)
    for voxels in phantom.volumes.values():
        assert (voxels == 0).mean() > 0.5
        assert (voxels[phantom.classes > 0] > 0).all()


def test_another_process_may_make_the_same(tmp_path, monkeypatch):
    write = phantoms_module._write

    def late(phantom, folder, name, spacing_mm):
        write(phantom, folder, name, spacing_mm)
        write(phantom, tmp_path / name, name, spacing_mm)  # The other one is done first.

    monkeypatch.setattr(phantoms_module, "_write", late)
    assert list(write_phantoms(tmp_path, names=["a"], spacing_mm=TINY_SPACING_MM)) == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    monkeypatch.setattr(phantoms_module, "_write", full)
    with pytest.raises(WriteError, match="b could not be written: No space left"):
        list(write_phantoms(tmp_path, names=["b"], spacing_mm=TINY_SPACING_MM))


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_voxels_grow_as_the_crop_shrinks(tmp_path):
    case = phantom_cases(tmp_path, "unseen", crop=(64, 64, 36))[0]
    assert nib.load(case.volumes["t1"]).header.get_zooms() == (3, 3, 3)
