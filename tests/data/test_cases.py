import pytest

from brats_tf.data.cases import find_cases
from brats_tf.errors import InputError
from brats_tf.regions import BRATS_2017, BRATS_2023


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def underscored(case_id, ending=".nii.gz"):
    return [f"{case_id}_{suffix}{ending}" for suffix in ("flair", "t1", "t1ce", "t2", "seg")]


def hyphened(case_id, ending=".nii.gz"):
    return [f"{case_id}-{suffix}{ending}" for suffix in ("t2f", "t1n", "t1c", "t2w", "seg")]


@pytest.mark.parametrize(
    ("case_id", "names", "convention"),
    [
        ("BraTS20_Training_001", underscored("BraTS20_Training_001"), BRATS_2017),
        ("BraTS20_Training_002", underscored("BraTS20_Training_002", ".nii"), BRATS_2017),
        ("BraTS2021_00000", underscored("BraTS2021_00000"), BRATS_2017),
        ("BraTS-GLI-00000-000", hyphened("BraTS-GLI-00000-000"), BRATS_2023),
    ],
)
def test_each_layout_is_found_with_its_label_convention(case_id, names, convention, tmp_path):
    touch(tmp_path / case_id, *names)
    (case,), skipped = find_cases(tmp_path)
    assert (case.id, case.convention, skipped) == (case_id, convention, [])
    flair, t1, t1ce, t2, seg = (tmp_path / case_id / name for name in names)
    assert case.volumes == {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}
    assert case.segmentation == seg


def test_two_conventions_in_one_folder_keep_their_own(tmp_path):
    touch(tmp_path / "a", *underscored("a"))
    touch(tmp_path / "b", *hyphened("b"))
    assert [case.convention for case in find_cases(tmp_path)[0]] == [BRATS_2017, BRATS_2023]


def test_the_segmentation_of_case_355_is_found_under_its_own_name(tmp_path):
    case_id = "BraTS20_Training_355"
    touch(tmp_path / case_id, *underscored(case_id, ".nii")[:-1], "W39_1998.09.19_Segm.nii")
    (case,), skipped = find_cases(tmp_path)
    assert (case.id, case.segmentation.name, skipped) == (case_id, "W39_1998.09.19_Segm.nii", [])


def test_what_is_skipped_says_why(tmp_path):
    touch(tmp_path / "a", *underscored("a"), "a_notes.nii.gz", "a_flair.nii")
    touch(tmp_path / "b", "b_seg.nii.gz")
    touch(tmp_path / "copy", *underscored("a"))
    cases, skipped = find_cases(tmp_path)
    assert [case.id for case in cases] == ["a"]
    assert [(path.name, reason.split(" was ")[0]) for path, reason in skipped] == [
        ("a_flair.nii.gz", "a second flair of case a"),
        ("a_notes.nii.gz", "its name follows no BraTS layout"),
        ("b", "case b has a segmentation but no modality"),
        ("copy", "case a"),
    ]


def test_hidden_folders_are_left_alone(tmp_path):
    touch(tmp_path / ".partial-1-a", "a_flair.nii.gz")
    touch(tmp_path / "a", *underscored("a"))
    (case,), skipped = find_cases(tmp_path)
    assert (case.folder, skipped) == (tmp_path / "a", [])


def test_links_are_followed_once(tmp_path):
    touch(tmp_path / "store" / "a", *underscored("a"))
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "a").symlink_to(tmp_path / "store" / "a")
    (tmp_path / "split" / "again").symlink_to(tmp_path / "split")
    (case,), skipped = find_cases(tmp_path / "split")
    assert (case.id, skipped) == ("a", [])


def test_a_missing_modality_is_named_with_the_file_expected(tmp_path):
    touch(tmp_path / "x", "x-t1c.nii.gz", "x-seg.nii.gz")
    (case,), _ = find_cases(tmp_path)
    with pytest.raises(InputError, match=r"Case x: no flair in .*expected x-t2f.nii.gz, found t1ce, seg"):
        case.require("flair")


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(InputError, match="No BraTS case in .*received no NIfTI file at all"):
        find_cases(tmp_path)
    touch(tmp_path, "scan.nii.gz")
    with pytest.raises(InputError, match=r"received 1 other NIfTI files, the first scan.nii.gz"):
        find_cases(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_cases(tmp_path / "nowhere")


def test_a_case_id_is_never_more_than_a_file_name(tmp_path):
    touch(tmp_path / "a", *underscored(".."))
    with pytest.raises(InputError, match="No BraTS case"):
        find_cases(tmp_path)


def test_real_folders(real_data):
    native, skipped = find_cases(real_data / "native")
    assert (len(native), skipped) == (8, [])
    assert [case.convention for case in native].count(BRATS_2023) == 4
    assert all(len(case.volumes) == 4 and case.segmentation for case in native)
    assert len(find_cases(real_data / "uint8")[0]) == 20
