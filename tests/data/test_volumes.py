import gzip

import nibabel as nib
import numpy as np
import pytest

from brats_tf.data.volumes import check_same_geometry, read_volume, write_volume
from brats_tf.errors import InputError

AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


def write(path, voxels, affine=AFFINE):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(0, 900, size=(6, 7, 5)).astype(np.int16)


def test_a_volume_is_read_as_it_is(tmp_path, voxels):
    volume = read_volume(write(tmp_path / "a.nii.gz", voxels), case_id="a")
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.affine, AFFINE)


def test_the_output_has_the_geometry_of_the_input_to_the_byte(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_qform(AFFINE, code=2)
    image.set_sform(AFFINE, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(2, 1)
    nib.save(image, tmp_path / "in.nii.gz")
    reference = read_volume(tmp_path / "in.nii.gz", case_id="a")
    labels = (voxels > 400).astype(np.uint8) * 4
    write_volume(tmp_path / "new" / "out.nii.gz", labels, like=reference)
    written = nib.load(tmp_path / "new" / "out.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels)
    assert written.get_data_dtype() == np.uint8
    for field in ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x"):
        np.testing.assert_array_equal(written.header[field], reference.image.header[field], err_msg=field)
    for field in ("srow_x", "srow_y", "srow_z", "qoffset_y", "qoffset_z", "xyzt_units"):
        np.testing.assert_array_equal(written.header[field], reference.image.header[field], err_msg=field)


def truncated(path, voxels):
    write(path, np.random.default_rng(0).integers(0, 900, size=(20, 20, 20)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:-60])


def truncated_plain(path, voxels):
    write(path.with_suffix(""), voxels)
    path.with_suffix("").rename(path.with_name("plain.nii"))
    path.with_name("plain.nii").write_bytes(path.with_name("plain.nii").read_bytes()[:-60])
    return path.with_name("plain.nii")


def pointer(path, voxels):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def gzip_of_text(path, voxels):
    path.write_bytes(gzip.compress(b"no header" * 100))


def four_dimensional(path, voxels):
    write(path, np.stack([voxels, voxels], axis=-1))


def not_a_number(path, voxels):
    write(path, np.where(voxels > 800, np.nan, voxels).astype(np.float32))


def colours(path, voxels):
    write(path, np.zeros(voxels.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def zeros(path, voxels):
    write(path, np.zeros_like(voxels))


def flat_affine(path, voxels):
    image = nib.Nifti1Image(voxels, None)
    image.header["sform_code"] = 1
    nib.save(image, path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncated, "is damaged or truncated: expected 20x20x20 voxels"),
        (truncated_plain, "is damaged or truncated: expected 6x7x5 voxels"),
        (pointer, "is no readable NIfTI file"),
        (gzip_of_text, "is no readable NIfTI file"),
        (four_dimensional, "must be a 3D volume; received the shape 6x7x5x2"),
        (not_a_number, "must hold finite numbers; received [0-9]+ voxels that are NaN or infinite"),
        (colours, "must hold plain numbers; received"),
        (zeros, "must show a brain; received one value, 0, in every voxel"),
        (flat_affine, "has an affine that cannot be inverted"),
    ],
)
def test_a_bad_file_is_refused_naming_case_and_file(damage, sentence, tmp_path, voxels):
    path = tmp_path / "x_flair.nii.gz"
    path = damage(path, voxels) or path
    with pytest.raises(InputError, match=rf"^Case x: .*{path.name} {sentence}") as caught:
        read_volume(path, case_id="x")
    assert "\n" not in str(caught.value)


def test_files_of_different_shape_or_place_do_not_mix(tmp_path, voxels):
    first = read_volume(write(tmp_path / "x_flair.nii.gz", voxels), case_id="x")
    smaller = read_volume(write(tmp_path / "x_t1.nii.gz", voxels[1:]), case_id="x")
    with pytest.raises(InputError, match="x_t1.nii.gz must have the shape 6x7x5 of x_flair.nii.gz; received 5x7x5"):
        check_same_geometry(first, smaller, case_id="x")
    flipped = read_volume(write(tmp_path / "x_t2.nii.gz", voxels, np.diag([1.0, 1, 1, 1])), case_id="x")
    with pytest.raises(InputError, match=r"x_t2.nii.gz must have the affine of x_flair.*axes RAS, expected LPS"):
        check_same_geometry(first, flipped, case_id="x")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lfs_pointer/volume-covid19-A-0000.nii.gz", "is no readable NIfTI file"),
        ("nifti-reader-js/not-nifti.nii", "is no readable NIfTI file"),
        ("nibabel/functional.nii", "must be a 3D volume; received the shape 17x21x3x20"),
        ("nibabel/resampled_anat_moved.nii", "must hold finite numbers"),
        ("nibabel/row_major.dconn.nii", "must be NIfTI; received Cifti2Image"),
        ("dcm/EPI_PE=AP_3.nii", "must be a 3D volume; received the shape 72x72x5x2"),
    ],
)
def test_real_odd_files_are_refused_in_a_sentence(real_data, name, sentence):
    with pytest.raises(InputError, match=sentence):
        read_volume(real_data / "odd" / name, case_id="odd")


@pytest.mark.parametrize("name", ["nibabel/anatomical.nii", "nifti-reader-js/big.nii.gz", "niivue/shear.nii.gz"])
def test_real_files_that_are_only_unusual_are_read(real_data, name):
    expected = nib.load(real_data / "odd" / name).get_fdata()
    np.testing.assert_allclose(read_volume(real_data / "odd" / name, case_id="odd").voxels, expected, rtol=1e-6)
