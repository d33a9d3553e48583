import nibabel as nib
import numpy as np
import pytest

from brats_tf.data.truth import find_truth
from brats_tf.errors import InputError
from brats_tf.regions import BRATS_2017, BRATS_2023, MSD_TASK01


def write(path, *labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.zeros((4, 4, 4), np.uint8)
    voxels.flat[: len(labels)] = labels
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def test_segmentations_alone_are_truth_whatever_else_is_missing(tmp_path):
    write(tmp_path / "a" / "BraTS20_Training_001_seg.nii.gz", 1, 4)
    write(tmp_path / "b" / "BraTS-GLI-00001-000-seg.nii.gz", 1, 3)
    cases, skipped = find_truth(tmp_path)
    assert [(case.id, case.convention, case.volumes) for case in cases] == [
        ("BraTS-GLI-00001-000", BRATS_2023, {}),
        ("BraTS20_Training_001", BRATS_2017, {}),
    ]
    assert skipped == []


def test_files_named_by_their_case_are_truth_where_names_tell_the_labels(tmp_path):
    write(tmp_path / "BraTS20_Training_001.nii.gz", 1)
    write(tmp_path / "BraTS-GLI-00001-000.nii", 1)
    cases, skipped = find_truth(tmp_path)
    assert skipped == []
    assert [(case.id, case.convention) for case in cases] == [
        ("BraTS-GLI-00001-000", BRATS_2023),
        ("BraTS20_Training_001", BRATS_2017),
    ]


def test_other_names_need_labels_that_tell_or_to_be_told(tmp_path):
    write(tmp_path / "p1.nii.gz", 1, 2, 4)
    write(tmp_path / "p2.nii.gz")
    assert {case.convention for case in find_truth(tmp_path)[0]} == {BRATS_2017}
    write(tmp_path / "p1.nii.gz", 1, 2, 3)
    with pytest.raises(InputError, match=r"say it with --labels \(brats2023 or msd\). Received: 0, 1, 2, 3."):
        find_truth(tmp_path)
    assert {case.convention for case in find_truth(tmp_path, "msd")[0]} == {MSD_TASK01}
    write(tmp_path / "p2.nii.gz", 4)
    with pytest.raises(InputError, match=r"--labels \(brats2017, brats2023, brats2024"):
        find_truth(tmp_path)


def test_one_damaged_segmentation_does_not_hide_what_the_others_tell(tmp_path, capsys):
    write(tmp_path / "p1.nii.gz", 1, 2, 4)
    write(tmp_path / "p2.nii.gz", 1)
    (tmp_path / "p2.nii.gz").write_bytes((tmp_path / "p2.nii.gz").read_bytes()[:60])
    assert {case.convention for case in find_truth(tmp_path)[0]} == {BRATS_2017}
    assert "1, 2, 4 as in BraTS 2017-2021; --labels says otherwise" in capsys.readouterr().out


def test_truth_of_which_nothing_can_be_read_says_why(tmp_path):
    write(tmp_path / "p1.nii.gz", 1)
    (tmp_path / "p1.nii.gz").write_bytes((tmp_path / "p1.nii.gz").read_bytes()[:60])
    with pytest.raises(InputError, match="p1.nii.gz is damaged or truncated"):
        find_truth(tmp_path)


def test_a_list_may_name_segmentations_alone(tmp_path):
    write(tmp_path / "x.nii.gz", 1, 3)
    (tmp_path / "list.csv").write_text("id,seg,convention\np1,x.nii.gz,msd\n")
    ((case,), _) = find_truth(tmp_path / "list.csv")
    assert (case.id, case.convention, case.segmentation) == ("p1", MSD_TASK01, tmp_path / "x.nii.gz")


def test_data_without_truth_are_refused(phantoms, tmp_path):
    for modality, path in phantoms[0].volumes.items():
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"a_{modality}.nii.gz").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"must hold truth: a segmentation for each case. Received 1 cases, none."):
        find_truth(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No BraTS case in"):
        find_truth(tmp_path / "empty")
