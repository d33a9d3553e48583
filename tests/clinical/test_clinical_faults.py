"""Faults of a scanner's folders: one sentence that names patient and series, exit code 2, the others go on."""

import errno
import os
import stat

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from made_up_patients import ball, noise
from made_up_scanner import write_dicom, write_enhanced
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from brats_tf.cli.main import main
from brats_tf.clinical import conform as conform_module
from brats_tf.clinical import pictures
from brats_tf.clinical.conform import read_conform
from brats_tf.clinical.dicom_seg import write_segmentation
from brats_tf.clinical.grids import (
    Grid,
    brats_grid,
    centre_of,
    grid_of,
    largest_part,
    resample,
    to_array,
    to_image,
    top_of,
)
from brats_tf.clinical.identify import identify
from brats_tf.clinical.make_case import share_on_grid
from brats_tf.clinical.patients import find_patients
from brats_tf.clinical.registration import register
from brats_tf.clinical.series import read_series
from brats_tf.clinical.stack import stack
from brats_tf.data.volumes import read_volume
from brats_tf.errors import InputError

T1CE = {"words": "t1 mprage KM", "times": (3, 1900, 900), "agent": "made up"}
T2 = {"words": "t2 tse", "times": (95, 5000, None)}
ONE_FRAME = {"FrameOfReferenceUID": "1.2.3"}


@pytest.fixture
def conform(tmp_path, capsys):
    """Runs `conform` on `scanner/` without looking for a tool; returns (exit code, what was printed)."""

    def run(*arguments):
        code = main(
            [
                "conform",
                str(tmp_path / "scanner"),
                "--out",
                str(tmp_path / "cases"),
                "--brain-mask",
                "nonzero",
                *arguments,
            ]
        )
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, " ".join((said.out + said.err).split())

    return run


@pytest.fixture
def folder(tmp_path):
    """The folder of patient P1."""
    path = tmp_path / "scanner" / "P1"
    path.mkdir(parents=True)
    return path


def write_series(folder, name="a", image=None, **changes):
    write_dicom(
        ball() if image is None else image, folder / name, person=changes.pop("person", None), **T1CE, **changes
    )
    return sorted((folder / name).iterdir())


def assert_refused(conform, tmp_path, *words):
    code, said = conform()
    assert code == 2
    for word in ("Left out: Patient P1", *words):
        assert word in said, said
    assert not (tmp_path / "cases" / "P1").exists() and not list((tmp_path / "cases").glob(".*"))


def test_two_series_for_a_modality_are_named_and_the_next_patient_goes_on(conform, folder, tmp_path):
    write_series(folder, "a")
    write_series(folder, "b", number=2)
    write_series(folder.parent / "P2")
    assert_refused(
        conform, tmp_path, "one series must show t1ce; received 2", "series 1 in a", "series 2 in b", "1 of 2"
    )
    assert (tmp_path / "cases" / "P2" / "P2_t1ce.nii.gz").is_file()
    page = (tmp_path / "cases" / "checks.html").read_text()
    assert "P2" in page and "one series must show t1ce" in page


def test_a_list_chooses_between_two_series(conform, folder, tmp_path):
    write_series(folder, "a")
    write_series(folder, "b", number=2)
    (tmp_path / "list.csv").write_text("patient,modality,path\nP1,t1ce,b\n")
    code, said = conform("--series-list", str(tmp_path / "list.csv"))
    assert code == 0, said
    series = read_conform(tmp_path / "cases" / "P1")["series"]
    assert series["t1ce"]["number"] == 2 and "--series-list" in series["t1ce"]["reason"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patient,modality,path\nP1,t9,a\n", "line 2 must have a patient, a modality"),
        ("patient,modality,path\nP1,t1ce,nowhere\n", "'nowhere', named for t1ce, must be the folder or file of one"),
        ("patient,modality,path\nP7,t1ce,a\n", "patient 'P7' is no folder of"),
        (
            "patient,modality,path\nP1,t1ce,a\nP1,t1,a\n",
            "series 1 in a must be named for one modality; received t1ce and t1",
        ),
        ("patient,modality,path\nP1,t1ce,a\nP1,t1ce,b\n", "line 3 names a second series for t1ce of P1"),
        ("who,what\nP1,t1ce\n", "line 2 must have a patient, a modality"),
    ],
)
def test_a_wrong_list_is_refused(conform, folder, tmp_path, text, words):
    write_series(folder)
    (tmp_path / "list.csv").write_text(text)
    code, said = conform("--series-list", str(tmp_path / "list.csv"))
    assert code == 2 and words in said


@pytest.mark.parametrize("place", ["b", "b/0004.dcm", "2", "series 2"])
def test_a_list_decides_about_what_it_names_alone(conform, folder, tmp_path, place):
    write_series(folder, "a", **ONE_FRAME)
    write_series(folder, "b", number=2, **ONE_FRAME)
    write_dicom(ball(), folder / "c", number=3, **T2, **ONE_FRAME)
    (tmp_path / "list.csv").write_text(f"patient,modality,path\nP1,t1ce,{place}\n")
    code, said = conform("--series-list", str(tmp_path / "list.csv"), "--registration", "none")
    assert code == 0, said
    record = read_conform(tmp_path / "cases" / "P1")
    assert {name: one["number"] for name, one in record["series"].items()} == {"t1ce": 2, "t2": 3}
    assert record["left_out"] == [{"number": 1, "reason": "--series-list names another for t1ce"}]


def test_a_missing_modality_is_said_and_the_rest_goes_on(conform, folder, tmp_path):
    write_series(folder)
    code, said = conform()
    assert code == 0 and "Patient P1: no series shows flair, t1, t2; the networks go on without" in said
    assert read_conform(tmp_path / "cases" / "P1")["missing"] == ["flair", "t1", "t2"]


def test_two_patients_in_a_folder_are_refused(conform, folder, tmp_path):
    write_series(folder, "a", person={"PatientID": "1"})
    write_dicom(ball(), folder / "b", person={"PatientID": "2"}, number=2, **T2)
    assert_refused(conform, tmp_path, "the folder must hold one patient; received series of 2 patients")


@pytest.mark.parametrize("known", [("", ""), ("1", "")])
def test_without_an_id_names_and_birth_dates_tell_two_patients(conform, folder, tmp_path, known):
    for name, words, one, person in (("a", T1CE, known[0], "Doe^Jane"), ("b", T2, known[1], "Roe^Rick")):
        write_dicom(ball(), folder / name, person={"PatientID": one, "PatientName": person}, **words)
    assert_refused(conform, tmp_path, "the folder must hold one patient; received series of 2 patients")


def test_a_series_without_a_person_does_not_join_two(conform, folder, tmp_path):
    write_dicom(ball(), folder / "a", person={"PatientID": "", "PatientName": ""}, number=1, **T2)
    write_dicom(ball(), folder / "b", person={"PatientID": "1"}, number=2, **T1CE)
    write_dicom(ball(), folder / "c", person={"PatientID": "2"}, number=3, **T2)
    assert_refused(conform, tmp_path, "the folder must hold one patient; received series of 2 patients")


def test_two_examinations_without_a_frame_of_reference_need_a_registration(conform, folder, tmp_path):
    for number, words in enumerate((T1CE, T2), start=1):
        person = {"StudyInstanceUID": f"1.2.{number}"}
        write_dicom(ball(), folder / str(number), person=person, number=number, FrameOfReferenceUID="", **words)
    code, said = conform("--registration", "none")
    assert code == 2 and "must have one frame of reference; received 2" in said


def test_two_frames_of_reference_need_a_registration(conform, folder, tmp_path):
    write_series(folder, "a")
    write_dicom(ball(), folder / "b", number=2, **T2)
    code, said = conform("--registration", "none")
    assert code == 2 and "must have one frame of reference; received 2" in said


def test_one_frame_of_reference_needs_none(conform, folder, tmp_path):
    write_series(folder, "a", **ONE_FRAME)
    write_dicom(ball(), folder / "b", number=2, **T2, **ONE_FRAME)
    assert conform("--registration", "none")[0] == 0
    np.testing.assert_array_equal(read_conform(tmp_path / "cases" / "P1")["series"]["t2"]["case_to_series"], np.eye(4))


def test_a_missing_slice_is_found(conform, folder, tmp_path):
    write_series(folder)[5].unlink()
    assert_refused(conform, tmp_path, "series 1 in a", "12 mm apart, but two that are 24 mm apart")


def test_three_slices_are_too_few(conform, folder, tmp_path):
    for path in write_series(folder)[3:]:
        path.unlink()
    assert_refused(conform, tmp_path, "series 1 in a must have at least 4 slices; received 3")


def test_a_position_of_two_numbers_is_refused(conform, folder, tmp_path):
    paths = write_series(folder)
    header = pydicom.dcmread(paths[2])
    header.ImagePositionPatient = list(header.ImagePositionPatient)[:2]
    header.save_as(paths[2])
    assert_refused(conform, tmp_path, "series 1 in a has slices without position in their headers")


def test_what_nobody_foresaw_costs_one_patient(conform, folder, tmp_path, monkeypatch):
    write_series(folder)
    write_series(tmp_path / "scanner" / "P2")
    make_case = conform_module.make_case

    def fail(patient, *given):
        if patient.id == "P1":
            raise RuntimeError("ITK ERROR: the number of pixels along dimension 2 is less than 4")
        return make_case(patient, *given)

    monkeypatch.setattr(conform_module, "make_case", fail)
    code, said = conform()
    assert code == 2 and "Left out: Patient P1: its series could not be read: " in said and "less than 4" in said
    assert [path.name for path in (tmp_path / "cases").iterdir() if path.is_dir()] == ["P2"]


def test_replace_deletes_nothing_that_conform_did_not_write(conform, folder, tmp_path):
    write_series(folder)
    assert conform()[0] == 0
    case = tmp_path / "cases" / "P1"
    (case / "P1_seg.nii.gz").write_bytes(b"hours of work")
    (case / ".DS_Store").write_bytes(b"of a file browser")
    code, said = conform("--replace", "--n4")
    assert code == 2 and "P1_seg.nii.gz was not written by `brats-tf conform`, and --replace would delete it" in said
    assert (case / "P1_seg.nii.gz").read_bytes() == b"hours of work"
    assert read_conform(case)["options"]["n4"] is False
    (case / "P1_seg.nii.gz").unlink()
    assert conform("--replace", "--n4")[0] == 0
    assert read_conform(case)["options"]["n4"] is True


def test_hidden_files_do_not_change_a_patient(conform, folder, tmp_path):
    write_series(folder)
    assert conform()[0] == 0
    (folder / ".DS_Store").write_bytes(b"of a file browser")
    code, said = conform()
    assert code == 0 and "is there already" in said


def test_a_slice_twice_is_found(conform, folder, tmp_path):
    again = pydicom.dcmread(write_series(folder)[4])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    pydicom.dcmwrite(folder / "a" / "again.dcm", again)
    assert_refused(conform, tmp_path, "2 slices or more at one place")


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        ("ImageOrientationPatient", "orientation"),
        ("ImagePositionPatient", "position"),
        ("PixelSpacing", "pixel spacing"),
    ],
)
def test_a_slice_that_does_not_say_where_it_lies_is_refused(conform, folder, tmp_path, tag, word):
    write_series(folder, **{tag: None})
    assert_refused(conform, tmp_path, f"series 1 in a has slices without {word} in their headers")


def test_slices_of_two_orientations_are_refused(conform, folder, tmp_path):
    path = write_series(folder)[0]
    other = pydicom.dcmread(path)
    other.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    pydicom.dcmwrite(path, other)
    assert_refused(conform, tmp_path, "series 1 in a has slices of several sizes or orientations, as localisers have")


def test_a_tilted_gantry_is_refused(conform, folder, tmp_path):
    for number, path in enumerate(write_series(folder)):
        slice_ = pydicom.dcmread(path)
        x, y, z = slice_.ImagePositionPatient
        slice_.ImagePositionPatient = [x, float(y) + 4 * number, z]
        pydicom.dcmwrite(path, slice_)
    assert_refused(conform, tmp_path, "series 1 in a has slices that are shifted sideways, by 18 degrees")


def test_colour_is_refused(conform, folder, tmp_path):
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8}
    rows, columns = ball().GetSize()[1::-1]
    pixels = bytes(rows * columns * 3)
    write_series(folder, **colour, BitsStored=8, HighBit=7, PixelRepresentation=0, PixelData=pixels)
    assert_refused(conform, tmp_path, "series 1 in a must be grey; received colour images")


def test_a_truncated_file_is_named(conform, folder, tmp_path):
    path = write_series(folder)[3]
    path.write_bytes(path.read_bytes()[:-300])
    assert_refused(conform, tmp_path, "series 1 in a")


@pytest.mark.parametrize("number", [3, -1])
@pytest.mark.parametrize(
    ("length", "words"),
    [
        (700, "its header is cut short"),
        (400, "its header is cut short"),
        (40, "it is empty, or no DICOM file any more"),
        (0, "it is empty, or no DICOM file any more"),
    ],
)
def test_a_slice_cut_short_is_not_left_away(conform, folder, tmp_path, number, length, words):
    path = write_series(folder)[number]
    path.write_bytes(path.read_bytes()[:length])
    assert_refused(conform, tmp_path, f"series 1 in a must be whole, but a/{path.name} cannot be read: {words}")


def test_a_damaged_file_of_another_series_costs_nothing(conform, folder, tmp_path):
    """All in one folder, as an archive exports it."""
    write_series(folder, "a", **ONE_FRAME)
    write_dicom(ball(), folder / "b", number=2, words="localizer", times=(5, 20, None), **ONE_FRAME)
    for path in (folder / "b").iterdir():
        path.rename(folder / "a" / f"b{path.name}")
    (folder / "b").rmdir()
    cut = folder / "a" / "b0003.dcm"
    cut.write_bytes(cut.read_bytes()[:700])
    code, said = conform()
    assert code == 0 and "a/b0003.dcm was left out: its header is cut short" in said


@pytest.mark.parametrize(("name", "code"), [("COMPLETE", 0), ("IM0099", 2)])
def test_an_empty_file_beside_slices_without_an_ending_is_one_where_it_is_called_so(
    conform, folder, tmp_path, name, code
):
    for path in write_series(folder):
        path.rename(path.with_name(f"IM{path.stem}"))
    (folder / "a" / name).touch()
    assert conform()[0] == code


def test_what_is_no_slice_may_lie_beside_slices(conform, folder, tmp_path):
    path = write_series(folder)[0]
    report = pydicom.dcmread(path)
    del report.Rows, report.PixelData
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    pydicom.dcmwrite(folder / "a" / "report.dcm", report)
    (folder / "a" / "notes.txt").write_text("of the scanner")
    (folder / "a" / "copy of a slice.dcm").write_bytes(path.read_bytes())
    code, said = conform()
    assert code == 0, said
    for words in (
        "a/report.dcm is no image",
        "1 file(s) that are copies",
        "1 file(s) that are neither DICOM nor NIfTI",
    ):
        assert words in said
    assert read_conform(tmp_path / "cases" / "P1")["series"]["t1ce"]["grid"]["size"] == [20, 20, 12]


def test_a_folder_without_images_is_refused(conform, folder, tmp_path):
    (folder / "notes.txt").write_text("nothing")
    assert_refused(conform, tmp_path, "no series of flair, t1, t1ce, t2 was found")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.slow
def test_compressed_pixels_are_the_same(folder, tmp_path, conform, syntax):
    plain = write_series(folder.parent / "P2", person=ONE_FRAME)
    for path in write_series(folder, person=ONE_FRAME):
        packed = pydicom.dcmread(path)
        packed.compress(syntax, generate_instance_uid=False)
        pydicom.dcmwrite(path, packed)
    assert path.stat().st_size != plain[-1].stat().st_size
    code, said = conform()
    assert code == 0, said
    one, other = (read_volume(tmp_path / "cases" / p / f"{p}_t1ce.nii.gz", case_id=p).voxels for p in ("P1", "P2"))
    np.testing.assert_array_equal(one, other)


def test_pixels_that_cannot_be_unpacked_are_named(conform, folder, tmp_path):
    for path in write_series(folder):
        odd = pydicom.dcmread(path)
        odd.compress(RLELossless, generate_instance_uid=False)
        odd.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2 video.
        pydicom.dcmwrite(path, odd)
    assert_refused(conform, tmp_path, "series 1 in a could not be read by dcm2niix", "MPEG2")


def test_a_multi_frame_file_gives_the_same_case(conform, folder, tmp_path):
    write_enhanced(ball(), folder / "a" / "one.dcm", **T1CE)
    write_series(folder.parent / "P2")
    (series,), _ = read_series(folder, "P1")
    there, frames = stack(series)
    np.testing.assert_allclose(there.matrix, grid_of(ball()).matrix, atol=1e-3)
    assert [index for _, index, *_ in frames] == [*range(12)] or [index for _, index, *_ in frames] == [
        *range(11, -1, -1)
    ]
    code, said = conform()
    assert code == 0, said
    one, other = (read_volume(tmp_path / "cases" / p / f"{p}_t1ce.nii.gz", case_id=p).voxels for p in ("P1", "P2"))
    np.testing.assert_allclose(one, other, atol=1)


def test_nifti_series_are_conformed_too(conform, folder, tmp_path):
    sitk.WriteImage(ball(), str(folder / "P1_t1ce.nii.gz"))
    write_series(folder.parent / "P2")
    code, said = conform()
    assert code == 0, said
    one, other = (read_volume(tmp_path / "cases" / p / f"{p}_t1ce.nii.gz", case_id=p).voxels for p in ("P1", "P2"))
    np.testing.assert_allclose(one, other, atol=2)  # DICOM rounds to whole numbers.


def test_nifti_of_three_slices_is_refused(conform, folder, tmp_path):
    sitk.WriteImage(ball()[:, :, 4:7], str(folder / "P1_t1ce.nii.gz"))
    code, said = conform()
    assert code == 2 and "P1_t1ce.nii.gz must have at least 4 slices; received 3" in said


def test_a_broken_nifti_file_is_named(conform, folder, tmp_path):
    sitk.WriteImage(ball(), str(folder / "P1_t1ce.nii.gz"))
    path = folder / "P1_t1ce.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    code, said = conform()
    assert code == 2 and "P1_t1ce.nii.gz" in said and not (tmp_path / "cases" / "P1").exists()


def test_noise_is_not_registered():
    with pytest.raises(InputError, match=r"^the noise could not be registered: the heads overlap by .* moved by 8 mm"):
        register(ball(), noise(), name="the noise")


def test_a_registration_that_fails_names_patient_and_series(conform, folder, tmp_path):
    write_series(folder, "a")
    write_dicom(noise(), folder / "b", number=2, **T2)
    assert_refused(conform, tmp_path, "series 2 in b (t2) could not be registered")


def test_folders_called_after_a_person_or_a_uid_are_not_said(conform, folder, tmp_path):
    person = {"PatientID": "4711-SECRET", "PatientName": "Doe^Jane"}
    write_series(folder, "DOE_JANE_1960", person=person)
    write_series(folder, "1.2.840.113619.2.55", person=person, number=2)
    code, said = conform()
    assert code == 2 and "series 1 in *" in said and "series 2 in *" in said
    assert "DOE" not in said and "113619" not in said and "4711" not in said


def test_without_a_tool_a_mask_is_asked_for(conform, folder, tmp_path, monkeypatch):
    write_series(folder)
    monkeypatch.setenv("PATH", "/nowhere")
    code, said = conform("--brain-mask", "auto")
    assert code == 2 and "a brain mask is needed: install HD-BET (hd-bet) or SynthStrip (mri_synthstrip)" in said
    code, said = conform("--brain-mask", "hd-bet")
    assert code == 2 and "hd-bet is not installed" in said


def _tool(tmp_path, monkeypatch, name, script):
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")


def test_a_tool_is_called_as_its_page_says(conform, folder, tmp_path, monkeypatch):
    write_series(folder)
    made_up = tmp_path / "made_up.nii.gz"
    sitk.WriteImage(sitk.Cast(ball() > 500, sitk.sitkUInt8), str(made_up))
    said_to = tmp_path / "arguments"
    script = f'echo "$@" > {said_to}; cp {made_up} "${{4%.nii.gz}}_bet.nii.gz"'
    _tool(tmp_path, monkeypatch, "hd-bet", script)
    code, said = conform("--brain-mask", "auto")
    assert code == 0, said
    words = said_to.read_text().split()
    assert words[0] == "-i" and words[2] == "-o" and words[4] == "--save_bet_mask"
    assert words[5:] == ["-device", "cpu"]  # No nvidia-smi is in PATH.
    mask = read_conform(tmp_path / "cases" / "P1")["brain_mask"]
    assert mask["how"] == "hd-bet" and mask["ml"] == pytest.approx((4 / 3) * np.pi * 6**3, rel=0.1)
    voxels = read_volume(tmp_path / "cases" / "P1" / "P1_t1ce.nii.gz", case_id="P1").voxels
    assert (voxels > 0).sum() / 1000 == pytest.approx(mask["ml"], rel=0.1)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no weights >&2; exit 3", "hd-bet made no mask; exit code 3, it said: 'no weights'"),
        ("exit 0", "hd-bet made no mask; exit code 0"),
    ],
)
def test_a_tool_that_fails_is_reported(conform, folder, tmp_path, monkeypatch, script, words):
    write_series(folder)
    _tool(tmp_path, monkeypatch, "hd-bet", script)
    code, said = conform("--brain-mask", "hd-bet")
    assert code == 2 and words in said


def test_the_users_mask_is_taken_and_must_be_a_brain(conform, folder, tmp_path):
    write_series(folder)
    code, said = conform("--brain-mask", "file")
    assert code == 2 and "brain_mask.nii.gz, which --brain-mask file takes" in said
    sitk.WriteImage(sitk.Cast(ball() > 950, sitk.sitkUInt8), str(folder / "brain_mask.nii.gz"))
    code, said = conform("--brain-mask", "file")
    assert code == 2 and "must have 300 to 2500 ml; received" in said
    sitk.WriteImage(sitk.Cast(ball() > 600, sitk.sitkUInt8), str(folder / "brain_mask.nii.gz"))
    code, said = conform("--brain-mask", "file")
    assert code == 0, said


def test_an_image_with_a_skull_is_not_taken_for_a_brain(conform, folder, tmp_path):
    write_series(folder, image=ball() + 10)
    assert_refused(conform, tmp_path, "--brain-mask nonzero takes images of a brain alone")


def test_two_persons_without_a_name_are_two_patients(tmp_path):
    """Anonymised: one word for everybody, or none."""
    for number, words in enumerate((T1CE, T2), start=1):
        write_dicom(ball(), tmp_path / "scanner" / f"P0{number}", person={"PatientID": ""}, **words)
    assert [patient.id for patient in find_patients(tmp_path / "scanner")] == ["P01", "P02"]
    examination = {"PatientID": "ANON", "StudyInstanceUID": "1.2.3"}
    for number, words in enumerate((T1CE, T2), start=1):
        write_dicom(ball(), tmp_path / "person" / f"series{number}", person=examination, **words)
    assert [patient.id for patient in find_patients(tmp_path / "person")] == ["person"]


def test_series_of_two_examinations_of_one_name_are_refused(tmp_path):
    for number, words in enumerate((T1CE, T2), start=1):
        person = {"PatientID": "ANON", "StudyInstanceUID": f"1.2.{number}"}
        write_dicom(ball(), tmp_path / f"series{number}", person=person, **words)
    with pytest.raises(InputError, match="2 folders of one series each, which name the same patient but 2 exam"):
        find_patients(tmp_path)


def test_a_folder_that_cannot_be_read_is_told_of(tmp_path, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    write_dicom(ball(), tmp_path / "P1" / "series1", **T2)
    (tmp_path / "P1" / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    found, left_out = read_series(tmp_path / "P1", "P1")
    assert len(found) == 1
    assert left_out == ["Patient P1: a folder was left out: it cannot be read: Permission denied."]


def test_series_behind_links_are_found_and_circles_end(tmp_path):
    write_dicom(ball(), tmp_path / "archive" / "a", **T2)
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "series").symlink_to(tmp_path / "archive")
    (tmp_path / "archive" / "again").symlink_to(tmp_path / "P1")
    found, _ = read_series(tmp_path / "P1", "P1")
    assert [len(one.files) for one in found] == [12]


def test_a_wrong_template_is_said_once_and_before_any_work(conform, folder, tmp_path):
    write_series(folder)
    code, said = conform("--template", str(tmp_path / "nowhere.nii.gz"))
    assert code == 2 and "Case template:" in said and "nowhere.nii.gz" in said
    assert "Patient P1" not in said


def test_a_series_of_one_value_is_named_by_its_patient(conform, folder):
    write_series(folder, image=0 * ball() + 7)
    code, said = conform()
    assert code == 2
    assert "Patient P1: series 1 in a, converted by dcm2niix, must show a brain; received one value, 7" in said


def test_a_record_of_a_case_that_lacks_a_part_is_refused(tmp_path):
    (tmp_path / "conform.json").write_text('{"series": {}, "grid": {}, "fingerprint": "", "source": ""}')
    with pytest.raises(InputError, match="it lacks reference, brain_mask, template, seconds, missing, left_out"):
        read_conform(tmp_path)


def test_networks_that_are_not_there_show_before_patients_are_conformed(folder, tmp_path, capsys):
    write_series(folder)
    command = ["segment", str(tmp_path / "scanner"), "--runs", str(tmp_path / "runs"), "--networks", "nobody"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "nobody" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nifti_without_directions_is_refused(conform, folder, tmp_path):
    sitk.WriteImage(ball(), folder / "P1_t1ce.nii.gz")
    image = nib.load(folder / "P1_t1ce.nii.gz")
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(nib.Nifti1Image(image.get_fdata(), None, image.header), folder / "P1_t1ce.nii.gz")
    assert_refused(conform, tmp_path, "P1_t1ce.nii.gz must say in a sform or qform where its axes lead")


def test_what_cannot_be_read_is_not_what_cannot_be_written(conform, folder, tmp_path, monkeypatch):
    """An `OSError` while a case is made costs one patient, but a full disk stops all."""
    write_series(folder)
    write_series(tmp_path / "scanner" / "P2")
    make_case, number = conform_module.make_case, errno.EIO

    def fail(patient, *given):
        if patient.id == "P1":
            raise OSError(number, os.strerror(number))
        return make_case(patient, *given)

    monkeypatch.setattr(conform_module, "make_case", fail)
    code, said = conform()
    assert (
        code == 2
        and "Left out: Patient P1: its series could not be read: Input/output error." in said
        and "1 of 2 cases" in said
    )
    number = errno.ENOSPC
    code, said = conform()
    assert code == 2 and "P1 could not be written: No space left on device" in said and "of 2 cases" not in said


def test_folders_that_are_no_patients_cost_nobody_else(conform, folder, tmp_path):
    write_series(folder)
    for name in ("@eaDir", "a b?"):
        (folder.parent / name).mkdir()
    (folder / os.fsdecode(b"M\xfcller.txt")).write_text("no UTF-8")
    code, said = conform()
    assert code == 2 and "1 of 2 cases" in said and "@eaDir" not in said
    assert "Left out: " in said and "a b?: its name becomes the id of a case" in said


def test_cases_that_were_made_are_no_patients(folder, tmp_path, capsys, monkeypatch):
    write_series(folder)
    monkeypatch.chdir(tmp_path / "scanner")
    for _ in range(2):
        assert main(["conform", ".", "--brain-mask", "nonzero"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Skipped cases: it holds cases that `brats-tf conform` made" in said and "1 of 1 cases" in said
    segmented = tmp_path / "scanner" / "segmented"
    (segmented / "predictions").mkdir(parents=True)
    (tmp_path / "scanner" / "cases").rename(segmented / "cases")
    assert [patient.id for patient in find_patients(tmp_path / "scanner")] == ["P1"]
    with pytest.raises(InputError, match="cases must hold patients. Received cases that `brats-tf conform` made"):
        find_patients(segmented / "cases")


def test_cases_inside_a_patients_folder_are_no_series_of_it(folder, tmp_path, monkeypatch):
    write_series(folder)
    write_series(folder.parent / "P2")
    monkeypatch.chdir(folder)
    assert main(["conform", ".", "--brain-mask", "nonzero"]) == 0
    assert [patient.id for patient in find_patients(folder.parent)] == ["P1", "P2"]
    assert [one.name for one in read_series(folder, "P1")[0]] == ["series 1 in a"]


def test_folders_of_a_file_server_are_no_series(folder):
    write_series(folder, "a", **ONE_FRAME, person={"StudyInstanceUID": "1.2.9"})
    write_dicom(ball(), folder / "b", number=2, **T2, **ONE_FRAME, person={"StudyInstanceUID": "1.2.9"})
    for name in "ab":
        (folder / name / "@eaDir").mkdir()
        (folder / name / "@eaDir" / "0001.dcm").write_bytes(b"a thumbnail")
    assert [patient.id for patient in find_patients(folder)] == ["P1"]
    assert len(read_series(folder, "P1")[0]) == 2 and not read_series(folder, "P1")[1]


def test_a_patient_behind_a_link_has_the_links_name(tmp_path):
    (tmp_path / "DOE_JANE").mkdir()
    write_series(tmp_path / "DOE_JANE")
    (tmp_path / "P01").symlink_to(tmp_path / "DOE_JANE")
    (patient,) = find_patients(tmp_path / "P01")
    assert (patient.id, patient.folder) == ("P01", tmp_path / "P01")


def test_names_of_a_person_are_hidden_in_every_line(folder):
    utf8, person = {"SpecificCharacterSet": "ISO_IR 192"}, {"PatientName": "王^小东", "PatientID": "4711"}
    write_dicom(ball(), folder / "王小东", person=person, **T1CE, **utf8)
    path = sorted((folder / "王小东").iterdir())[0]
    (folder / "王小东" / "4711.dcm").write_bytes(path.read_bytes()[:400])
    (folder / "Mu\u0308ller").mkdir()
    write_dicom(ball(), folder / "Mu\u0308ller" / "b", person={"PatientName": "M\u00fcller"}, number=2, **T2, **utf8)
    found, left_out = read_series(folder, "P1")
    assert [one.name for one in found] == ["series 1 in *", "series 2 in */b"]
    assert left_out == ["Patient P1: */* was left out: its header is cut short."]
    assert found[0].damaged == "*/* cannot be read: its header is cut short"


def test_a_list_leaves_out_what_it_does_not_settle(conform, folder, tmp_path):
    write_series(folder, "a")
    for name in "bc":
        write_dicom(ball(), folder / name, number=ord(name), **T2)
    (tmp_path / "list.csv").write_text("patient,modality,path\nP1,t1ce,a\n")
    code, said = conform("--series-list", str(tmp_path / "list.csv"))
    assert code == 0 and "several show t2, of which --series-list names none" in said


def test_an_agent_of_an_enhanced_file_is_read(folder):
    write_enhanced(ball(), folder / "a.dcm", words="T1W_3D_TFE", times=(3, 1900, 900), agent="")
    file = pydicom.dcmread(folder / "a.dcm")
    agent = pydicom.Dataset()
    agent.CodeMeaning = "Gadobutrol"
    file.ContrastBolusAgentSequence = [agent]
    file.save_as(folder / "a.dcm")
    assert list(identify(read_series(folder, "P1")[0], patient="P1")[0]) == ["t1ce"]
    usage = pydicom.Dataset()
    usage.ContrastBolusAgentAdministered = "NO"
    file.SharedFunctionalGroupsSequence[0].ContrastBolusUsageSequence = [usage]
    file.save_as(folder / "a.dcm")
    assert list(identify(read_series(folder, "P1")[0], patient="P1")[0]) == ["t1"]


def test_a_template_of_other_voxels_is_refused_before_any_work(conform, folder, tmp_path):
    write_series(folder)
    sitk.WriteImage(ball(), tmp_path / "template.nii.gz")
    code, said = conform("--template", str(tmp_path / "template.nii.gz"))
    assert code == 2 and "a template must have voxels of 1 mm; received 10x10x12 mm" in said


def test_a_mask_longer_than_the_grid_keeps_the_top_of_the_head():
    """A brain of 140 mm, a cord below it and a stray island far below."""
    mask = np.zeros((60, 60, 80), bool)
    mask[10:50, 10:50, 40:75] = True
    mask[28:32, 28:32, 20:40] = True
    mask[30, 30, 0] = True
    image = to_image(mask, Grid(mask.shape, np.diag([4.0, 4.0, 4.0, 1.0])))
    part = largest_part(image)
    grid = brats_grid(centre_of(part), top=top_of(part))
    brain = to_array(resample(image, grid, sitk.Transform(), kind="nearest")) > 0
    share = brain.sum() / (mask.sum() * 64)
    assert top_of(part) == 74 * 4
    assert 0.97 < share < 1 and not brain[..., -1].any() and brain[..., -5].any()
    assert brats_grid((0, 0, 0), top=70).matrix[2, 3] == brats_grid((0, 0, 0)).matrix[2, 3]
    with pytest.raises(
        InputError, match="P1: the case's grid of 240x240x155 mm must hold the brain; received a mask of"
    ):
        share_on_grid(brain, grid, mask.sum() * 64 / 1000 * 1.2, "P1")


def test_slices_without_an_id_cost_the_dicom_seg_alone(folder):
    write_series(folder)
    series = read_series(folder, "P1")[0][0]
    for header in series.headers:
        del header.SOPInstanceUID
    grid, _ = stack(series)
    with pytest.raises(InputError, match="cannot carry a DICOM SEG: .*SOPInstanceUID"):
        write_segmentation(folder / "seg.dcm", np.ones((*grid.size, 3), bool), series)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LPI", "PLS", "LIP", "RSA", "PIR", "ASL"])
def test_slices_hang_as_a_radiologist_hangs_them(axes, monkeypatch, tmp_path):
    """Bright voxels at the patient's left, back and head; slices across the file's third axis."""
    size, points = 9, {"L": (8, 4, 4), "P": (4, 8, 4), "S": (4, 4, 8)}
    upright = np.zeros((size,) * 3)
    for value, point in enumerate(points.values(), start=1):
        upright[point] = value
    steps = ["LPS".index({"R": "L", "A": "P", "I": "S"}.get(letter, letter)) for letter in axes]
    signs = [1 if letter in "LPS" else -1 for letter in axes]
    image = upright.transpose(steps)[tuple(slice(None, None, sign) for sign in signs)]
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, (step, sign) in enumerate(zip(steps, signs, strict=True)):
        matrix[step, axis] = sign * (axis + 1)
    hung, aspect = pictures._hanging(Grid((size,) * 3, matrix))
    rows, columns = hung(image.max(axis=2)).shape
    places = {name: np.argwhere(hung(image.max(axis=2)) == value) for value, name in enumerate(points, start=1)}
    shown = {letter: tuple(places[letter][0]) for letter in "LPS" if "LPS".index(letter) != steps[2]}
    expected = {"L": (4, 8), "P": (8, 4) if steps[2] == 2 else (4, 8), "S": (0, 4)}
    assert (rows, columns) == (size, size)
    assert shown == {letter: expected[letter] for letter in shown}
    row_axis = next(axis for axis in (0, 1) if steps[axis] == max(steps[0], steps[1]))
    assert aspect == (row_axis + 1) / (2 - row_axis)
