import shutil

import nibabel as nib
import numpy as np
import pytest

from brats_tf.data.cases import find_cases
from brats_tf.data.preparation import prepare_case
from brats_tf.errors import InputError
from brats_tf.regions import classes_to_labels


@pytest.fixture
def case(phantoms, tmp_path):
    """A copy of the first phantom, to be damaged."""
    shutil.copytree(phantoms[0].folder, tmp_path / "x")
    return find_cases(tmp_path)[0][0]


def rewrite(path, change):
    image = nib.load(path)
    nib.save(change(np.asanyarray(image.dataobj), image.affine), path)


def test_channels_come_in_the_order_asked_for(case):
    both = prepare_case(case, modalities=("t2", "flair"), crop=(32, 32, 24), with_truth=True)
    flair = prepare_case(case, modalities=("flair",), crop=(32, 32, 24), with_truth=False)
    assert both.volume.shape == (32, 32, 24, 2)
    assert (both.volume.dtype, both.classes.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(both.volume[..., 1:], flair.volume)
    assert flair.classes is None
    assert both.reference.path.name.endswith("_flair.nii.gz")


def test_labels_there_and_back_to_the_file(case):
    # A crop larger than the volume keeps every voxel.
    prepared = prepare_case(case, modalities=("t1",), crop=(64, 64, 36), with_truth=True)
    labels = classes_to_labels(prepared.to_file_axes(prepared.classes), case.convention)
    np.testing.assert_array_equal(labels, np.asanyarray(nib.load(case.segmentation).dataobj))


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("t1", lambda v, a: nib.Nifti1Image(v[1:], a), "t1.nii.gz must have the shape 40x40x26 of .*flair"),
        ("t1", lambda v, a: nib.Nifti1Image(v, a + np.eye(4)), "t1.nii.gz must have the affine of .*flair"),
        ("seg", lambda v, a: nib.Nifti1Image(v, -a), "seg.nii.gz"),
        (
            "seg",
            lambda v, a: nib.Nifti1Image(np.where(v == 2, 9, v).astype(v.dtype), a),
            "0, 1, 2, 4 expected .* received also 9",
        ),
    ],
)
def test_files_that_do_not_fit_together_are_refused(case, part, change, sentence):
    rewrite(case.require(part), change)
    with pytest.raises(InputError, match=f"Case {case.id}: .*{sentence}"):
        prepare_case(case, modalities=("flair", "t1"), crop=(32, 32, 24), with_truth=True)


def test_a_missing_file_is_refused(case):
    case.volumes.pop("t1ce")
    with pytest.raises(InputError, match="no t1ce in"):
        prepare_case(case, modalities=("flair", "t1ce"), crop=(32, 32, 24), with_truth=False)


@pytest.mark.parametrize("name", ["BraTS20_Training_001", "BraTS-SSA-00041-000"])
def test_a_real_case_against_plain_numpy(real_data, name):
    case = next(case for case in find_cases(real_data / "native")[0] if case.id == name)
    prepared = prepare_case(case, modalities=("flair",), crop=(192, 160, 108), with_truth=True)
    image = nib.load(case.volumes["flair"])
    voxels, labels = image.get_fdata(), nib.load(case.segmentation).get_fdata()
    if nib.aff2axcodes(image.affine) == ("R", "A", "S"):  # Else LPS.
        voxels, labels = voxels[::-1, ::-1], labels[::-1, ::-1]
    brain = voxels[voxels != 0]
    voxels = np.where(voxels != 0, (voxels - brain.mean()) / brain.std(), 0)
    centred = np.s_[24:216, 40:200, 23:131]
    np.testing.assert_allclose(prepared.volume[..., 0], voxels.transpose(1, 0, 2)[centred], atol=1e-5)
    enhancing = 4 if "BraTS20" in name else 3
    np.testing.assert_array_equal(prepared.classes == 3, labels.transpose(1, 0, 2)[centred] == enhancing)
    np.testing.assert_array_equal(prepared.classes == 2, labels.transpose(1, 0, 2)[centred] == 2)
