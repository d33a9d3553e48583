import re
import shutil
import zipfile

import nibabel as nib
import numpy as np
import pytest
from prediction_records import write_record

from brats_tf.cli.main import main
from brats_tf.data.discovery import find_cases
from brats_tf.errors import InputError
from brats_tf.evaluation.submission import package_submission

AFFINE = np.diag([-1.0, -1, 1, 1])


def label_map(folder, name, *, labels=(0, 1, 2, 4), shape=(240, 240, 155), affine=AFFINE):
    folder.mkdir(exist_ok=True)
    voxels = np.zeros(shape, np.uint8)
    voxels.flat[: len(labels)] = labels
    nib.save(nib.Nifti1Image(voxels, affine), folder / name)
    return folder


def test_a_good_folder_becomes_a_zip_that_repeats(tmp_path):
    for name, labels in (("BraTS20_Validation_001.nii.gz", (1, 4)), ("BraTS-GLI-00001-000.nii.gz", (1, 3))):
        label_map(tmp_path / "p", name, labels=labels)
    write_record(tmp_path / "p", ["BraTS20_Validation_001", "BraTS-GLI-00001-000"])
    assert (
        package_submission(tmp_path / "p", tmp_path / "a.zip")
        == package_submission(tmp_path / "p", tmp_path / "b.zip")
        == []
    )
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert file.namelist() == ["BraTS-GLI-00001-000.nii.gz", "BraTS20_Validation_001.nii.gz"]
        assert file.read(file.namelist()[0]) == (tmp_path / "p" / "BraTS-GLI-00001-000.nii.gz").read_bytes()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("patient_1.nii.gz", {}, "must be named as its case"),
        ("BraTS20_Validation_001_seg.nii.gz", {}, "must be named as its case"),
        ("brats20_validation_001 copy.nii.gz", {}, "must be named as its case"),
        ("BraTS20_Validation_001.nii.gz", {"shape": (240, 240, 144)}, "240x240x155. Received: 240x240x144"),
        ("BraTS20_Validation_001.nii.gz", {"labels": (1, 3)}, r"0, 1, 2, 4 \(BraTS 2017-2021\). Received also: 3"),
        ("BraTS-GLI-00001-000.nii.gz", {"labels": (4,)}, r"0, 1, 2, 3 \(BraTS 2023\). Received also: 4"),
        ("BraTS-GLI-00001-000.nii.gz", {"labels": (1,), "affine": np.diag([2.0, 1, 1, 1])}, "voxels of 1 mm"),
    ],
)
def test_each_objection_is_a_sentence_and_nothing_is_written(tmp_path, capsys, name, changes, sentence):
    label_map(tmp_path / "p", name, **changes)
    ((its, said),) = package_submission(tmp_path / "p", tmp_path / "a.zip")
    assert its == name
    assert re.search(sentence, said)
    assert f"{name}: {said}" in capsys.readouterr().out
    assert not (tmp_path / "a.zip").exists()


def test_maps_that_are_not_those_of_the_record_are_objections(tmp_path):
    names = [f"BraTS20_Validation_00{number}" for number in (1, 2, 3)]
    for name in names:
        label_map(tmp_path / "p", f"{name}.nii.gz", labels=(1, 4))
    write_record(tmp_path / "p", names[:2], left_out={"A": "no FLAIR."}, pending=["B"])
    label_map(tmp_path / "p", f"{names[1]}.nii.gz", labels=(1,))
    said = dict(package_submission(tmp_path / "p", tmp_path / "a.zip"))
    assert set(said) == {"A.nii.gz", "B.nii.gz", f"{names[1]}.nii.gz", f"{names[2]}.nii.gz"}
    assert "is not the label map that prediction.json records" in said[f"{names[1]}.nii.gz"]
    assert "no prediction by flair" in said[f"{names[2]}.nii.gz"]
    assert "left out: no FLAIR" in said["A.nii.gz"] and "stopped before it" in said["B.nii.gz"]


def test_a_case_whose_prediction_was_killed_is_an_objection(tmp_path):
    name = "BraTS20_Validation_001"
    label_map(tmp_path / "p", f"{name}.nii.gz")
    write_record(tmp_path / "p", [name], pending=[name])
    said = package_submission(tmp_path / "p", tmp_path / "a.zip")
    assert set(said) == {(f"{name}.nii.gz", f"Case {name}: the prediction stopped before it; predict it again.")}


@pytest.mark.parametrize("name", ["Brats17_TCIA_123_1", "Brats18_CBICA_AAM_1", "BraTS19_CBICA_AAB_1", "BraTS2021_02"])
def test_names_of_all_years_are_known(tmp_path, name):
    label_map(tmp_path / "p", f"{name}.nii.gz")
    assert package_submission(tmp_path / "p", tmp_path / "a.zip") == []


def test_cases_that_were_never_predicted_are_objections(phantom_folder, phantoms, tmp_path, capsys):
    """The data that was predicted has got another case and a file that is no case since."""
    data = tmp_path / "data"
    for case in phantoms[:2]:
        shutil.copytree(phantom_folder / case.id, data / case.id)
    (data / "c").mkdir()
    shutil.copy(phantoms[0].segmentation, data / "c" / "c_seg.nii.gz")
    (tmp_path / "p").mkdir()
    shutil.copy(phantoms[0].segmentation, tmp_path / "p" / f"{phantoms[0].id}.nii.gz")
    write_record(tmp_path / "p", [phantoms[0].id], data=[str(data)])
    (tmp_path / "a.zip").write_bytes(b"of before")
    assert main(["package-submission", str(tmp_path / "p"), "--archive", str(tmp_path / "a.zip")]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert f"{phantoms[1].id}.nii.gz: is missing: every case needs a prediction." in said
    assert "was skipped, so its prediction may be missing" in said
    assert f"no archive was written; {tmp_path / 'a.zip'} is from an earlier call" in said


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold label maps"):
        package_submission(tmp_path, tmp_path / "a.zip")


def test_real_cases_must_all_be_there_with_their_own_affine(real_data, tmp_path, capsys):
    cases = [case for case in find_cases(real_data / "native")[0] if case.id.startswith("BraTS2021")]
    (tmp_path / "p").mkdir()
    for case in cases:
        shutil.copy(case.segmentation, tmp_path / "p" / f"{case.id}.nii.gz")
    assert package_submission(tmp_path / "p", tmp_path / "a.zip", cases=cases) == []
    moved = nib.load(cases[0].segmentation)
    affine = moved.affine.copy()
    affine[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asanyarray(moved.dataobj), affine), tmp_path / "p" / f"{cases[0].id}.nii.gz")
    (tmp_path / "p" / f"{cases[1].id}.nii.gz").rename(tmp_path / "p" / "BraTS2021_99999.nii.gz")
    said = dict(package_submission(tmp_path / "p", tmp_path / "b.zip", cases=cases))
    assert "moves a corner by 5 mm" in said[f"{cases[0].id}.nii.gz"]
    assert "is missing" in said[f"{cases[1].id}.nii.gz"]
    assert "belongs to none of the cases" in said["BraTS2021_99999.nii.gz"]
    arguments = ["package-submission", "--data", str(real_data / "native"), str(tmp_path / "p")]
    assert main([*arguments, "--archive", str(tmp_path / "b.zip")]) == 2


def test_predictions_may_lie_among_the_cases(real_data, tmp_path):
    (case,) = [case for case in find_cases(real_data / "native")[0] if case.id == "BraTS20_Training_001"]
    shutil.copytree(case.folder, tmp_path / case.id)
    for folder in ("predictions", "other"):
        (tmp_path / folder).mkdir()
        shutil.copy(case.segmentation, tmp_path / folder / f"{case.id}.nii.gz")
    command = ["package-submission", "--data", str(tmp_path), "--archive", str(tmp_path / "a.zip")]
    assert main([*command, str(tmp_path / "predictions")]) == 2  # The other file is of nobody knows what.
    shutil.rmtree(tmp_path / "other")
    assert main([*command, str(tmp_path / "predictions")]) == 0
