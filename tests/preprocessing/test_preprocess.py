import shutil

import nibabel as nib
import numpy as np
import pytest

from brats_tf.data.case import Case
from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import MsdLayout
from brats_tf.data.volumes import geometry_notes, read_volume
from brats_tf.errors import InputError
from brats_tf.preprocessing.preprocess import grid_of, prepare_case
from brats_tf.preprocessing.transforms import LINEAR, brain_statistics, z_score
from brats_tf.regions import MODALITIES, MSD_TASK01, classes_to_labels, labels_to_classes


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


def test_a_volume_that_resampling_would_blow_up_is_refused_and_one_as_large_on_disk_is_not(case, monkeypatch):
    monkeypatch.setattr("brats_tf.preprocessing.preprocess.MAX_VOXELS", 40**3)
    settings = {"modalities": ("flair",), "crop": (32, 32, 24), "with_truth": False}
    with pytest.raises(InputError, match=r"voxels at 3 mm, more than 0 million; its voxels have 6x6x6 mm"):
        prepare_case(case, **settings, spacing_mm=3.0)
    monkeypatch.setattr("brats_tf.preprocessing.preprocess.MAX_VOXELS", 1)
    assert prepare_case(case, **settings).volume.shape == (32, 32, 24, 1)


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


def test_a_case_in_another_spacing_is_resampled_only_when_asked(case):
    # 6 mm phantoms.
    as_it_is = prepare_case(case, modalities=("t1",), crop=(40, 40, 26), with_truth=True)
    finer = prepare_case(case, modalities=("t1",), crop=(80, 80, 52), with_truth=True, spacing_mm=3.0)
    assert np.count_nonzero(finer.classes) == 8 * np.count_nonzero(as_it_is.classes)
    assert (finer.volume[..., 0] != 0).mean() == pytest.approx((as_it_is.volume[..., 0] != 0).mean(), rel=0.25)
    labels = classes_to_labels(finer.to_file_axes(finer.classes), case.convention)
    np.testing.assert_array_equal(labels, np.asanyarray(nib.load(case.segmentation).dataobj))
    probabilities = finer.to_file_axes(np.full((80, 80, 52, 3), 0.25, np.float32))
    assert probabilities.shape == (40, 40, 26, 3)
    np.testing.assert_allclose(probabilities, 0.25)


def test_images_are_scored_then_blended_linearly(case):
    volume = read_volume(case.volumes["t1"], case_id=case.id)
    grid = grid_of(volume, (80, 80, 52), 3.0, case_id=case.id)
    right = grid.to_crop(z_score(volume.voxels, *brain_statistics(volume.voxels)), order=LINEAR)
    found = prepare_case(case, modalities=("t1",), crop=(80, 80, 52), with_truth=False, spacing_mm=3.0).volume[..., 0]
    np.testing.assert_array_equal(found, right)
    assert np.abs(found - grid.to_crop(z_score(volume.voxels, *brain_statistics(volume.voxels)))).max() > 0.1


def test_channels_of_one_file_are_one_case(case, tmp_path):
    """The four modalities in one 4D file with MSD's numbers give what the four files give."""
    images = [nib.load(case.volumes[name]) for name in MODALITIES]
    stacked = np.stack([np.asanyarray(image.dataobj) for image in images], axis=-1)
    nib.save(nib.Nifti1Image(stacked, images[0].affine), tmp_path / "image.nii.gz")
    classes = labels_to_classes(np.asanyarray(nib.load(case.segmentation).dataobj), case.convention)
    nib.save(nib.Nifti1Image(classes_to_labels(classes, MSD_TASK01), images[0].affine), tmp_path / "label.nii.gz")
    together = Case(
        "x",
        dict.fromkeys(MODALITIES, tmp_path / "image.nii.gz"),
        tmp_path / "label.nii.gz",
        MsdLayout(),
        tmp_path,
        {name: index for index, name in enumerate(MODALITIES)},
    )
    settings = {"modalities": ("t2", "flair"), "crop": (32, 32, 24), "with_truth": True}
    one, other = prepare_case(together, **settings), prepare_case(case, **settings)
    np.testing.assert_array_equal(one.volume, other.volume)
    np.testing.assert_array_equal(one.classes, other.classes)


def test_labels_of_another_convention_are_refused_with_what_is_known_of_the_layout(case, tmp_path):
    ped = tmp_path / "ped"
    ped.mkdir()
    for part, suffix in (("flair", "t2f"), ("seg", "seg")):
        shutil.copy(case.require(part), ped / f"BraTS-PED-00001-000-{suffix}.nii.gz")
    (found,), _ = find_cases(ped)
    with pytest.raises(InputError, match=r"0, 1, 2, 3 expected \(BraTS 2023\), received also 4 \(BraTS-PED "):
        prepare_case(found, modalities=("flair",), crop=(32, 32, 24), with_truth=True)


AFFINE = np.diag([-1.0, -1, 1, 1])


def header_with(*, sform=None, qform=None):
    header = nib.Nifti1Header()
    header.set_data_shape((4, 5, 6))
    header.set_sform(sform if sform is not None else AFFINE, code=int(sform is not None))
    header.set_qform(AFFINE if qform is None or isinstance(qform, str) else qform, code=int(qform is not None))
    if isinstance(qform, str):
        header["quatern_b"] = header["quatern_c"] = 1.0
    return header


@pytest.mark.parametrize(
    ("forms", "note"),
    [
        ({"sform": AFFINE, "qform": AFFINE}, None),
        ({"sform": AFFINE}, None),
        ({"sform": AFFINE, "qform": nib.affines.from_matvec(AFFINE[:3, :3], [0, 0, 7])}, "differ by up to 7 mm"),
        ({"sform": AFFINE, "qform": "damaged"}, "the qform is damaged; the sform is used"),
        ({}, "neither sform nor qform is set"),
        ({"sform": np.diag([-1.0, -1, 3, 1])}, "voxels of 1x1x3 mm, not resampled to 1 mm"),
        ({"sform": nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3), [0, 0, 0])}, "axes tilted by up to 17"),
    ],
)
def test_what_is_odd_about_a_geometry_is_said(forms, note):
    notes = geometry_notes(header_with(**forms))
    assert notes == [] if note is None else note in notes[0]
    assert geometry_notes(header_with(sform=np.diag([-1.0, -1, 3, 1])), spacing_mm=1.0) == []


@pytest.mark.parametrize("spacing_mm", [None, 10])
def test_a_brain_that_the_crop_misses_is_told_of_and_one_outside_of_it_refused(case, spacing_mm):
    modalities, scale = ("t2", "flair"), 1 if spacing_mm is None else 2  # Voxels of 5 mm.
    brain = np.flatnonzero(np.asanyarray(nib.load(case.volumes["t2"]).dataobj).any(axis=(1, 2)))
    shape = nib.load(case.volumes["t2"]).shape
    crop = tuple(size // scale for size in shape)

    def prepared(shift):
        """The case with its brain moved along X by as many voxels, by zeros before it."""
        for path in case.volumes.values():
            rewrite(
                path, lambda voxels, affine: nib.Nifti1Image(np.pad(voxels, ((2 * shift, 0), (0, 0), (0, 0))), affine)
            )
        return prepare_case(case, modalities=modalities, crop=crop, with_truth=False, spacing_mm=spacing_mm)

    width = brain.size
    outside = f"over a quarter of the brain lies outside the crop {'x'.join(map(str, crop))}"
    assert outside not in prepared(0).notes
    assert outside in prepared(shape[0] // 2 - width // 8).notes  # Its middle comes near the edge of the crop.
    with pytest.raises(InputError, match="the brain must lie in the middle of the volume.* Received: .*nii.gz, which"):
        prepared(2 * shape[0])


def test_a_modality_of_one_value_is_no_brain_outside_the_crop(case):
    rewrite(case.volumes["t2"], lambda voxels, affine: nib.Nifti1Image((voxels != 0).astype(np.uint8), affine))
    prepared = prepare_case(case, modalities=("t2",), crop=(64, 64, 36), with_truth=True)
    assert not prepared.volume.any() and not [note for note in prepared.notes if "crop" in note]
