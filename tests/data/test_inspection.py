import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from brats_tf.data.discovery import find_cases
from brats_tf.data.inspection import inspect_dataset, summarise_case
from brats_tf.errors import InputError


@pytest.fixture
def mixed(phantoms, tmp_path):
    """A good case, one without truth and T2, one whose labels contradict its layout, one with mixed geometry."""
    root = tmp_path / "data"

    def copy(name, suffixes):
        (root / name).mkdir(parents=True)
        for part, file in suffixes.items():
            shutil.copy(phantoms[0].require(part), root / name / f"{name}{file}.nii.gz")

    underscored = {part: f"_{part}" for part in ("flair", "t1", "t1ce", "t2", "seg")}
    hyphened = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "seg": "-seg"}
    copy("BraTS20_Training_001", underscored)
    copy("BraTS-GLI-00005-100", {part: hyphened[part] for part in ("flair", "t1", "t1ce")})
    copy("BraTS-GLI-00001-000", hyphened)  # Its label 4 is none of 2023's.
    copy("mixed", underscored)
    path = root / "mixed" / "mixed_t1.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[1:], image.affine), path)
    (root / "scan.nii.gz").touch()
    return root


def test_a_good_case_is_described(phantoms):
    about = summarise_case(phantoms[0])
    assert (about["shape"], about["spacing_mm"], about["axes"]) == ([40, 40, 26], [6, 6, 6], "LPS")
    assert (about["labels"], about["missing"], about["problem"]) == ([0, 1, 2, 4], [], None)
    assert about["notes"] == ["voxels of 6x6x6 mm, not resampled to 1 mm"]
    assert summarise_case(phantoms[3])["labels"] == [0, 1, 2]  # The one without enhancing tumour.


def test_the_table_says_what_is_there_and_what_is_wrong(mixed, capsys):
    assert inspect_dataset(mixed) == 2
    said = capsys.readouterr().out
    assert "4 cases found, 3 with all four modalities, 3 with truth, 2 refused; 1 files or folders skipped." in said
    assert f"Skipped {mixed / 'scan.nii.gz'}: its name follows no BraTS layout." in said
    assert "labels 0, 1, 2, 3 expected (BraTS 2023), received also 4" in said
    assert "mixed_t1.nii.gz must have the shape 40x40x26 of mixed_flair.nii.gz; received 39x40x26" in said
    assert "Labels: BraTS 2023: 1 cases, BraTS 2024 post-treatment: 1 cases, BraTS 2017-2021: 2 cases." in said


def test_json_is_for_programs(mixed, capsys):
    assert inspect_dataset(mixed, as_json=True) == 2
    read = json.loads(capsys.readouterr().out)
    by_id = {one["id"]: one for one in read["cases"]}
    assert by_id["BraTS-GLI-00005-100"]["missing"] == ["t2"]
    assert by_id["BraTS-GLI-00005-100"]["segmentation"] is None
    assert by_id["BraTS-GLI-00005-100"]["layout"] == "BraTS 2024 post-treatment"
    assert "received also 4" in by_id["BraTS-GLI-00001-000"]["problem"]
    assert by_id["BraTS20_Training_001"]["labels"] == [0, 1, 2, 4]
    assert read["skipped"] == [
        {"path": str(mixed / "scan.nii.gz"), "reason": "its name follows no BraTS layout"},
    ]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="No BraTS case"):
        inspect_dataset(tmp_path)


@pytest.mark.parametrize(("folder", "count"), [("native", 8), ("uint8", 20)])
def test_real_folders_are_all_good(real_data, folder, count, capsys):
    assert inspect_dataset(real_data / folder, as_json=True) == 0
    read = json.loads(capsys.readouterr().out)
    assert len(read["cases"]) == count
    for one in read["cases"]:
        assert (one["shape"], one["spacing_mm"], one["notes"]) == ([240, 240, 155], [1, 1, 1], [])
        enhancing = 3 if one["layout"] == "BraTS 2023 SSA" else 4
        assert set(one["labels"]) <= {0, 1, 2, enhancing}
        assert (one["axes"] == "RAS") == (one["layout"] == "BraTS 2023 SSA")


def test_real_cases_with_missing_modalities(real_data):
    (case,), _ = find_cases(real_data / "odd" / "missing_modality")
    assert summarise_case(case)["missing"] == ["flair", "t2"]
