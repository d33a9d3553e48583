import gzip
import os
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from brats_tf.data import nifti
from brats_tf.data.nifti import read_header
from brats_tf.data.volumes import check_same_geometry, read_probabilities, read_volume, write_volume
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
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.affine, AFFINE)


def test_the_output_has_the_geometry_of_the_input_to_the_byte(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_qform(AFFINE, code=2)
    image.set_sform(AFFINE, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(2, 1)
    image.header["cal_max"] = 900  # What a viewer shows as white.
    nib.save(image, tmp_path / "in.nii.gz")
    reference = read_volume(tmp_path / "in.nii.gz", case_id="a")
    labels = (voxels > 400).astype(np.uint8) * 4
    write_volume(tmp_path / "new" / "out.nii.gz", labels, like=reference)
    written = nib.load(tmp_path / "new" / "out.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels)
    assert written.get_data_dtype() == np.uint8
    assert (written.header["cal_min"], written.header["cal_max"]) == (0, 0)
    for field in ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x"):
        np.testing.assert_array_equal(written.header[field], reference.header[field], err_msg=field)
    for field in ("srow_x", "srow_y", "srow_z", "qoffset_y", "qoffset_z", "xyzt_units"):
        np.testing.assert_array_equal(written.header[field], reference.header[field], err_msg=field)


def truncated(path, voxels):
    write(path, np.random.default_rng(0).integers(0, 900, size=(20, 20, 20)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:-60])


def truncated_plain(path, voxels):
    write(path.with_suffix(""), voxels)
    path.with_suffix("").rename(path.with_name("plain.nii"))
    path.with_name("plain.nii").write_bytes(path.with_name("plain.nii").read_bytes()[:-60])
    return path.with_name("plain.nii")


def flipped_bit(path, voxels):
    write(path, voxels)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # In the checksum.
    path.write_bytes(content)


def cut_short(path, voxels):
    write(path, voxels)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:400]))


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
        (truncated, "is damaged or truncated: Compressed file ended before the end"),
        (truncated_plain, "is damaged or truncated: expected 6x7x5 voxels in 420 bytes, received 360"),
        (flipped_bit, "is damaged or truncated: "),
        (cut_short, "is damaged or truncated: expected 6x7x5 voxels in 420 bytes, received 48"),
        (pointer, "is no readable NIfTI file: it is a Git LFS pointer"),
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
        check_same_geometry(first.geometry, smaller.geometry, case_id="x")
    moved = AFFINE.copy()
    moved[0, 3] += 0.2
    beside = read_volume(write(tmp_path / "x_t1ce.nii.gz", voxels, moved), case_id="x")
    with pytest.raises(InputError, match="x_t1ce.nii.gz must have the affine of x_flair.nii.gz"):
        check_same_geometry(first.geometry, beside.geometry, case_id="x")
    flipped = read_volume(write(tmp_path / "x_t2.nii.gz", voxels, np.diag([1.0, 1, 1, 1])), case_id="x")
    with pytest.raises(InputError, match=r"x_t2.nii.gz must have the affine of x_flair.*axes RAS, expected LPS"):
        check_same_geometry(first.geometry, flipped.geometry, case_id="x")


def test_no_flipped_bit_gives_a_traceback(tmp_path, voxels):
    random, refused = np.random.default_rng(0), 0
    whole = write(tmp_path / "a.nii.gz", voxels).read_bytes()
    for _ in range(200):
        content = bytearray(whole)
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        (tmp_path / "a.nii.gz").write_bytes(content)
        for read in (read_volume, read_header):
            try:
                read(tmp_path / "a.nii.gz", case_id="a")
            except InputError as error:
                refused += 1
                assert str(error).count("Case a:") == 1
    assert refused > 200


def bytes_of_header(field, value):
    def change(path, voxels):
        write(path.with_suffix(""), voxels)
        content = bytearray(path.with_suffix("").read_bytes())
        header = np.frombuffer(content, nib.Nifti1Header.template_dtype, count=1)
        header[field][0] = value
        path.write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("dim", [3, 0, 7, 5, 1, 1, 1, 1], "must have axes of at least one voxel; received the shape 0x7x5"),
        ("dim", [3, -6, 7, 5, 1, 1, 1, 1], "must have axes of at least one voxel; received the shape -6x7x5"),
        ("dim", [0, 6, 7, 5, 1, 1, 1, 1], "must have axes of at least one voxel; received the shape "),
        ("vox_offset", np.nan, "is no readable NIfTI file"),
        ("vox_offset", np.inf, "is no readable NIfTI file"),
        ("scl_inter", np.inf, "is no readable NIfTI file"),
        ("datatype", 9999, "is no readable NIfTI file"),
    ],
)
def test_a_header_that_cannot_be_is_refused(field, value, sentence, tmp_path, voxels):
    path = tmp_path / "a.nii.gz"
    bytes_of_header(field, value)(path, voxels)
    if field == "scl_inter":
        content = bytearray(path.read_bytes())
        np.frombuffer(content, nib.Nifti1Header.template_dtype, count=1)["scl_slope"][0] = 2
        path.write_bytes(content)
    for read in (read_volume, read_header):
        with pytest.raises(InputError, match=f"Case a: .*{sentence}"):
            read(path, case_id="a")


def test_a_long_extension_hides_nothing(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 200_000))
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz", case_id="a").voxels, voxels)
    assert read_header(tmp_path / "a.nii.gz", case_id="a").get_data_shape() == voxels.shape


def test_numbers_beyond_float32_are_refused(tmp_path, voxels):
    write(tmp_path / "a.nii.gz", np.where(voxels > 800, 1e39, voxels))
    with pytest.raises(InputError, match="must hold finite numbers"):
        read_volume(tmp_path / "a.nii.gz", case_id="a")


def test_a_voxel_that_is_a_hundredth_larger_moves_the_far_corner(tmp_path, voxels):
    long = np.concatenate([voxels] * 20, axis=2)
    first = read_volume(write(tmp_path / "x_flair.nii.gz", long), case_id="x")
    second = read_volume(write(tmp_path / "x_t1.nii.gz", long, AFFINE * [1, 1, 1.01, 1]), case_id="x")
    with pytest.raises(InputError, match="received one that moves a corner by 0.98999"):
        check_same_geometry(first.geometry, second.geometry, case_id="x")


def test_a_gzip_of_several_members_is_read(tmp_path, voxels):
    content = gzip.decompress(write(tmp_path / "a.nii.gz", voxels).read_bytes())
    half = len(content) // 2
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz", case_id="a").voxels, voxels)


def test_a_header_that_claims_more_than_the_file_can_hold_is_refused_without_unpacking(tmp_path, monkeypatch):
    header = nib.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(10**6)))
    monkeypatch.setattr(nifti, "unpacked", None)
    with pytest.raises(InputError, match="^Case a: [^:]* is damaged or truncated: expected 30000x.* received at most"):
        read_volume(tmp_path / "a.nii.gz", case_id="a")


def test_a_size_that_no_gzip_can_have_is_not_believed(tmp_path, voxels):
    content = write(tmp_path / "a.nii.gz", voxels).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(content[:-4] + b"\xff\xff\xff\xff")
    with pytest.raises(InputError, match="is damaged or truncated"):
        read_volume(tmp_path / "a.nii.gz", case_id="a")


def test_content_decides_not_the_name(tmp_path, voxels):
    plain = write(tmp_path / "a.nii", voxels)
    plain.rename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz", case_id="a").voxels, voxels)


def test_a_channel_of_a_4d_file(tmp_path, voxels):
    write(tmp_path / "a.nii.gz", np.stack([voxels, voxels + 1], axis=-1))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz", case_id="a", channel=1).voxels, voxels + 1)
    with pytest.raises(InputError, match="must hold at least 3 channels .* received the shape 6x7x5x2"):
        read_volume(tmp_path / "a.nii.gz", case_id="a", channel=2)


def test_a_header_is_read_without_the_voxels(tmp_path, voxels):
    write(tmp_path / "a.nii.gz", voxels)
    header = read_header(tmp_path / "a.nii.gz", case_id="a")
    assert header.get_data_shape() == voxels.shape
    np.testing.assert_array_equal(header.get_best_affine(), AFFINE)
    pointer(tmp_path / "b.nii.gz", voxels)
    with pytest.raises(InputError, match="Case b: .*Git LFS pointer"):
        read_header(tmp_path / "b.nii.gz", case_id="b")


# Every file of odd/: what becomes of it as a modality. Shapes are those that are read, sentences why a file is refused.
NO_TYPE = "is no readable NIfTI file: Cannot work out file type"
NOT_SINGLE = "is no readable NIfTI file: expected a single .nii or .nii.gz, received "
ODD = {
    "dcm/EPI_PE=AP_3.nii": "must be a 3D volume; received the shape 72x72x5x2",
    "dcm/EPI_PE=LR_6.nii": "must be a 3D volume; received the shape 72x72x5x2",
    "dcm/dti_tra_dir16_PA_rot_12_132222.nii": "must be a 3D volume; received the shape 64x64x20x17",
    "dcm/epi_pe_rl-00001.dcm": NO_TYPE,
    "dcm/fMRI_MB_asc_25.nii": "must be a 3D volume; received the shape 86x86x36x2",
    "dcm/uih_t1_00000001.dcm": NO_TYPE,
    "lfs_pointer/brain_atlas_image_3d.mha": "it is a Git LFS pointer, which `git lfs pull` replaces by the file",
    "lfs_pointer/volume-covid19-A-0000.nii.gz": "it is a Git LFS pointer",
    "missing_modality/BraTS-SSA-00008-000/BraTS-SSA-00008-000-seg.nii.gz": (240, 240, 155),
    "missing_modality/BraTS-SSA-00008-000/BraTS-SSA-00008-000-t1c.nii.gz": (240, 240, 155),
    "missing_modality/BraTS-SSA-00008-000/BraTS-SSA-00008-000-t1n.nii.gz": (240, 240, 155),
    "missing_modality/BraTS-SSA-00092-000/BraTS-SSA-00092-000-seg.nii.gz": (240, 240, 155),
    "nibabel/0.dcm": NO_TYPE,
    "nibabel/1.dcm": NO_TYPE,
    "nibabel/README.rst": NO_TYPE,
    "nibabel/analyze.hdr": NOT_SINGLE + "Spm2AnalyzeImage",
    "nibabel/anatomical.nii": (33, 41, 25),  # Big-endian, no gzip
    "nibabel/example4d.nii.gz": "must be a 3D volume; received the shape 128x96x24x2",
    "nibabel/example_nifti2.nii.gz": "must be a 3D volume; received the shape 32x20x12x2",
    "nibabel/functional.nii": "must be a 3D volume; received the shape 17x21x3x20",
    "nibabel/minc1_1_scale.mnc": NOT_SINGLE + "Minc1Image",
    "nibabel/minc2_4d.mnc": "is no readable NIfTI file: ",  # h5py would read it
    "nibabel/nifti1.hdr": NOT_SINGLE + "Nifti1Pair",
    "nibabel/nifti2.hdr": NOT_SINGLE + "Nifti2Pair",
    "nibabel/phantom_truncated.PAR": "is no readable NIfTI file: Header inconsistency",
    "nibabel/phantom_truncated.REC": "is no readable NIfTI file: Header inconsistency",
    "nibabel/reoriented_anat_moved.nii": (21, 26, 22),  # Big-endian
    "nibabel/resampled_anat_moved.nii": "must hold finite numbers; received 153 voxels that are NaN or infinite",
    "nibabel/row_major.dconn.nii": "must be a 3D volume; received the shape 1x1x1x1x10x10",
    "nifti-reader-js/avg152T1_LR_nifti.nii.gz": (91, 109, 91),
    "nifti-reader-js/avg152T1_LR_nifti2.nii.gz": (91, 109, 91),  # NIfTI-2
    "nifti-reader-js/big.nii.gz": (64, 64, 21),  # Big-endian
    "nifti-reader-js/little.nii.gz": (64, 64, 21),  # A fourth axis of one
    "nifti-reader-js/not-nifti.nii": NO_TYPE,
    "nifti-reader-js/with_extension.nii.gz": (161, 191, 151),
    "niivue/FLAIR.nii.gz": (124, 160, 140),
    "niivue/FLAIR.nrrd": NO_TYPE,
    "niivue/narps-4965_9U7M-hypo1_unthresh.nii.gz": (91, 109, 91),  # float64
    "niivue/shear.nii.gz": (306, 422, 54),  # Scaled integers, a sheared affine
    "niivue/strokez.nii.gz": (157, 189, 156),  # Scaled integers
    "other/patliao/100001_flair_subtraction_seg.nii.gz": "must show a brain; received one value, 0, in every voxel",
    "other/patliao/100001_t1ce_subtraction_seg.nii.gz": "must show a brain; received one value, 0, in every voxel",
    "other/patliao/100001_time1_seg.nii.gz": (240, 240, 155),
    "other/patliao/100001_time2_seg.nii.gz": (240, 240, 155),
    "other/patliao/100011_flair_subtraction_seg.nii.gz": (240, 240, 155),
    "other/patliao/100011_t1ce_subtraction_seg.nii.gz": (240, 240, 155),
    "other/patliao/100011_time1_seg.nii.gz": (240, 240, 155),
    "other/patliao/100011_time2_seg.nii.gz": (240, 240, 155),
    "other/patliao/CT1.nii": (256, 256, 24),
    "other/patliao/ct1_seg_mask.nii": (256, 24, 256),
}


def test_every_odd_file_has_a_row(real_data):
    odd = real_data / "odd"
    assert sorted(ODD) == sorted(str(path.relative_to(odd)) for path in odd.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ODD)
@pytest.mark.slow
def test_real_odd_files_are_read_as_nibabel_reads_them_or_refused_in_a_sentence(real_data, name):
    path, outcome = real_data / "odd" / name, ODD[name]
    if isinstance(outcome, str):
        with pytest.raises(InputError) as caught:
            read_volume(path, case_id="odd")
        assert str(caught.value).startswith(f"Case odd: {path} ")
        assert outcome in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    volume = read_volume(path, case_id="odd")
    expected = nib.load(path)
    assert volume.voxels.shape == outcome
    np.testing.assert_allclose(volume.voxels, expected.get_fdata().reshape(outcome), rtol=1e-6)
    np.testing.assert_allclose(volume.affine, expected.affine)


def with_header(path, voxels, edit, kind=nib.Nifti1Image):
    """A single file whose header `edit(bytes)` changed after it was written."""
    nib.save(kind(voxels, AFFINE), path)
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("offset", [0, 348])
def test_voxels_that_would_begin_in_the_header_are_refused(tmp_path, voxels, kind, offset):
    def edit(content):
        if kind is nib.Nifti1Image:
            content[108:112] = np.float32(offset).tobytes()
        else:
            content[168:176] = np.int64(offset).tobytes()

    least = 352 if kind is nib.Nifti1Image else 544
    path = with_header(tmp_path / "a.nii", voxels, edit, kind)
    for read in (read_volume, read_header):
        with pytest.raises(
            InputError, match=f"first voxel at byte {least} or later .*; received 0|offset {offset} too low"
        ):
            read(path, case_id="a")


def test_axes_that_cannot_be_told_apart_are_refused_and_so_are_voxels_of_kilometres(tmp_path, voxels):
    def skew(content):
        content[284:288] = np.float32(1e20).tobytes()

    with pytest.raises(InputError, match="Case a: .*a.nii must have voxels of 0.05 to 100 mm; received 1x1e\\+20x1 mm"):
        read_volume(with_header(tmp_path / "a.nii", voxels, skew), case_id="a")
    kilometres = np.diag([1e6, 1e6, 1e6, 1])
    with pytest.raises(InputError, match="received 1e\\+06x1e\\+06x1e\\+06 mm"):
        read_volume(write(tmp_path / "b.nii.gz", voxels, kilometres), case_id="a")


def test_a_gzip_bomb_is_not_unpacked(tmp_path, voxels):
    path = write(tmp_path / "a.nii", voxels)
    with gzip.open(tmp_path / "bomb.nii.gz", "wb", compresslevel=9) as file:
        file.write(path.read_bytes())
        for _ in range(200):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(InputError, match="expected 6x7x5 voxels in 420 bytes, received at least"):
        read_volume(tmp_path / "bomb.nii.gz", case_id="a")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    content = (tmp_path / "bomb.nii.gz").read_bytes()
    (tmp_path / "liar.nii.gz").write_bytes(content[:-4] + (2000).to_bytes(4, "little"))  # Of a size that fits.
    tracemalloc.start()
    with pytest.raises(InputError, match="is damaged or truncated"):
        read_volume(tmp_path / "liar.nii.gz", case_id="a")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    with open(tmp_path / "a.nii", "ab") as file:  # A sparse file of a terabyte.
        file.truncate(2**40)
    with pytest.raises(InputError, match="received at least"):
        read_volume(tmp_path / "a.nii", case_id="a")


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.nii.gz")
    for path in (tmp_path / "a.nii.gz", "/dev/zero"):
        for read in (read_volume, read_header):
            with pytest.raises(InputError, match="a folder, a pipe or a device"):
                read(path, case_id="a")


@pytest.mark.parametrize(
    ("value", "received"), [(1.5, "0 to 1.5"), (1.01, "0 to 1.01"), (-0.2, "-0.2 to 0"), (np.nan, "nan")]
)
def test_what_are_no_probabilities_is_refused(tmp_path, value, received):
    voxels = np.zeros((4, 4, 4, 3), np.float32)
    voxels[1, 2, 3, 0] = value
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "p.nii.gz")
    with pytest.raises(InputError, match=f"^Case x: .*p.nii.gz must .*{received}"):
        read_probabilities(tmp_path / "p.nii.gz", case_id="x", channels=3)
