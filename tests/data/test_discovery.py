import json
import os
from pathlib import Path

import pytest

from brats_tf.data.case import patient_of
from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import PARTS
from brats_tf.data.truth import find_truth
from brats_tf.errors import InputError
from brats_tf.regions import BRATS_2017, BRATS_2023, BRATS_2024, BRATS_2024_PED, MSD_TASK01


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def underscored(case_id, ending=".nii.gz"):
    return [f"{case_id}_{suffix}{ending}" for suffix in ("flair", "t1", "t1ce", "t2", "seg")]


def hyphened(case_id, ending=".nii.gz"):
    return [f"{case_id}-{suffix}{ending}" for suffix in ("t2f", "t1n", "t1c", "t2w", "seg")]


@pytest.mark.parametrize(
    ("case_id", "names", "layout", "convention"),
    [
        ("Brats17_CBICA_AAB_1", underscored, "BraTS 2017", BRATS_2017),
        ("Brats18_TCIA02_377_1", underscored, "BraTS 2018", BRATS_2017),
        ("BraTS19_2013_10_1", underscored, "BraTS 2019", BRATS_2017),
        ("BraTS20_Training_001", underscored, "BraTS 2020", BRATS_2017),
        ("BraTS2021_00000", underscored, "BraTS 2021", BRATS_2017),
        ("patient_7", underscored, "BraTS 2017-2021", BRATS_2017),
        ("BraTS-GLI-00000-000", hyphened, "BraTS 2023 GLI", BRATS_2023),
        ("BraTS-GLI-00005-001", hyphened, "BraTS 2023 GLI", BRATS_2023),
        ("BraTS-SSA-00041-000", hyphened, "BraTS 2023 SSA", BRATS_2023),
        ("BraTS-PED-00001-000", hyphened, "BraTS 2023 PED", BRATS_2023),
        ("BraTS-MET-00001-000", hyphened, "BraTS 2023 MET", BRATS_2023),
        ("BraTS-GLI-00005-100", hyphened, "BraTS 2024 post-treatment", BRATS_2024),
        ("BraTS-GLI-02073-103", hyphened, "BraTS 2024 post-treatment", BRATS_2024),
        ("patient-7", hyphened, "BraTS 2023", BRATS_2023),
    ],
)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_each_layout_is_found_with_its_label_convention(case_id, names, layout, convention, ending, tmp_path):
    files = names(case_id, ending)
    touch(tmp_path / case_id, *files)
    (case,), skipped = find_cases(tmp_path)
    assert (case.id, case.layout.name, case.convention, skipped) == (case_id, layout, convention, [])
    flair, t1, t1ce, t2, seg = (tmp_path / case_id / name for name in files)
    assert case.volumes == {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}
    assert case.segmentation == seg


def test_grades_come_from_folders_or_from_the_name_mapping(tmp_path):
    touch(tmp_path / "train" / "HGG" / "Brats18_A_1", *underscored("Brats18_A_1"))
    touch(tmp_path / "train" / "LGG" / "Brats18_B_1", *underscored("Brats18_B_1"))
    touch(tmp_path / "train" / "BraTS20_Training_001", *underscored("BraTS20_Training_001"))
    touch(tmp_path / "train" / "BraTS20_Training_002", *underscored("BraTS20_Training_002"))
    (tmp_path / "train" / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2020_subject_ID\nHGG,Brats17_X_1,BraTS20_Training_001\n"
    )
    (tmp_path / "train" / "survival_info.csv").write_text("Brats20ID,Age,Survival_days\nBraTS20_Training_001,60,289\n")
    cases, skipped = find_cases(tmp_path)
    assert {case.id: case.grade for case in cases} == {
        "BraTS20_Training_001": "HGG",
        "BraTS20_Training_002": None,
        "Brats18_A_1": "HGG",
        "Brats18_B_1": "LGG",
    }
    assert skipped == []
    (below,), _ = find_cases(tmp_path / "train" / "LGG")
    assert below.grade == "LGG"


def test_a_table_that_is_no_text_is_skipped(tmp_path):
    touch(tmp_path / "a", *underscored("a"))
    (tmp_path / "name_mapping.csv").write_bytes(b"Grade,\xff\xfe\x00")
    _, ((path, reason),) = find_cases(tmp_path)
    assert (path.name, reason.split(":")[0]) == ("name_mapping.csv", "it is no readable table")


def test_scans_of_one_patient_share_it():
    assert patient_of("BraTS-GLI-00005-100") == patient_of("BraTS-GLI-00005-101") == "BraTS-GLI-00005"
    assert patient_of("Brats18_2013_10_1") == "Brats18_2013_10"
    # Numbers that count patients, not scans.
    for name in ("BraTS20_Training_001", "BraTS2021_00001", "case_1", "BRATS_001"):
        assert patient_of(name) == name


def test_two_conventions_in_one_folder_keep_their_own(tmp_path):
    touch(tmp_path / "a", *underscored("a"))
    touch(tmp_path / "b", *hyphened("b"))
    assert [case.convention for case in find_cases(tmp_path)[0]] == [BRATS_2017, BRATS_2023]


def test_the_segmentation_of_case_355_is_found_under_its_own_name(tmp_path):
    case_id = "BraTS20_Training_355"
    touch(tmp_path / case_id, *underscored(case_id, ".nii")[:-1], "W39_1998.09.19_Segm.nii")
    (case,), skipped = find_cases(tmp_path)
    assert (case.id, case.segmentation.name, skipped) == (case_id, "W39_1998.09.19_Segm.nii", [])
    assert case.layout.name == "BraTS 2020"


def test_a_validation_set_has_no_truth(tmp_path):
    touch(tmp_path / "BraTS20_Validation_001", *underscored("BraTS20_Validation_001")[:-1])
    (case,), skipped = find_cases(tmp_path)
    assert (case.segmentation, skipped) == (None, [])
    with pytest.raises(InputError, match=r"no seg in .*expected BraTS20_Validation_001_seg.nii.gz"):
        case.require("seg")


def test_kaggles_folders_that_are_named_like_files(tmp_path):
    for part, name in zip(PARTS, underscored("BraTS2021_00714", ".nii"), strict=True):
        touch(tmp_path / "BraTS2021_00714" / name, f"00000377_brain_{part}.nii")
    (case,), skipped = find_cases(tmp_path)
    assert (case.id, len(case.volumes), skipped) == ("BraTS2021_00714", 4, [])
    assert case.volumes["t1ce"] == tmp_path / "BraTS2021_00714/BraTS2021_00714_t1ce.nii/00000377_brain_t1ce.nii"
    assert case.segmentation.name == "00000377_brain_seg.nii"


def test_a_folder_named_like_a_file_that_holds_two_is_not_guessed(tmp_path):
    touch(tmp_path / "a", *underscored("a")[1:])
    touch(tmp_path / "a" / "a_flair.nii", "one.nii", "two.nii")
    (case,), skipped = find_cases(tmp_path)
    assert "flair" not in case.volumes
    assert [(path.name, reason) for path, reason in skipped] == [
        ("one.nii", "its name follows no BraTS layout"),
        ("two.nii", "its name follows no BraTS layout"),
    ]


def test_doubled_folders(tmp_path):
    touch(tmp_path / "Data" / "Data" / "BraTS20_Training_001" / "BraTS20_Training_001", *underscored("x"))
    (case,), skipped = find_cases(tmp_path)
    assert (case.id, skipped) == ("x", [])


def test_what_is_skipped_says_why(tmp_path):
    touch(tmp_path / "a", *underscored("a"), "a_notes.nii.gz", "a_flair.nii", "._a_t1.nii.gz")
    touch(tmp_path / "b", "b_seg.nii.gz")
    touch(tmp_path / "copy", *underscored("a"))
    cases, skipped = find_cases(tmp_path)
    assert [case.id for case in cases] == ["a"]
    assert [(path.name, reason.split(" was ")[0]) for path, reason in skipped] == [
        ("a_flair.nii.gz", "a second flair of case a"),
        ("a_notes.nii.gz", "its name follows no BraTS layout"),
        ("copy", "case a"),
        ("b", "case b has a segmentation but no modality"),
    ]


def test_hidden_folders_are_left_alone(tmp_path):
    touch(tmp_path / ".partial-1-a", "a_flair.nii.gz")
    touch(tmp_path / "a", *underscored("a"))
    (case,), skipped = find_cases(tmp_path)
    assert (case.folder, skipped) == (tmp_path / "a", [])


def test_links_are_followed_once(tmp_path):
    touch(tmp_path / "cache" / "a", *underscored("a"))
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "a").symlink_to(tmp_path / "cache" / "a")
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


@pytest.mark.parametrize("case_id", ["..", "=cmd()", "-rf", "+1", "@a"])
def test_a_case_id_is_never_more_than_a_file_name(case_id, tmp_path):
    touch(tmp_path / "a", *underscored(case_id))
    with pytest.raises(InputError, match="No BraTS case"):
        find_cases(tmp_path)


TASK01 = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
    "test": ["./imagesTs/BRATS_485.nii.gz"],
}


def write_task01(folder, **changes):
    touch(folder / "imagesTr", "BRATS_001.nii.gz", "._BRATS_001.nii.gz")
    touch(folder / "labelsTr", "BRATS_001.nii.gz")
    touch(folder / "imagesTs", "BRATS_485.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(TASK01 | changes))


def test_msd_task01_has_its_modalities_in_one_file(tmp_path):
    write_task01(tmp_path / "Task01_BrainTumour")
    (train, test), skipped = find_cases(tmp_path)
    assert (train.id, test.id, skipped) == ("BRATS_001", "BRATS_485", [])
    assert train.channels == {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}
    assert set(train.volumes.values()) == {tmp_path / "Task01_BrainTumour/imagesTr/BRATS_001.nii.gz"}
    assert (train.convention, train.segmentation.parent.name, test.segmentation) == (MSD_TASK01, "labelsTr", None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"labels": {"0": "background", "1": "liver"}},
            "does not describe MSD Task01: expected the labels 0 background",
        ),
        ({"modality": {"0": "CT"}}, "does not describe MSD Task01"),
        ({"training": [3]}, "each case must name an image"),
        ({"training": [{"image": ""}]}, "each case must name an image"),
        ({"training": [{"image": 3}]}, "each case must name an image"),
        ({"modality": {"-1": "FLAIR"}}, "channels are counted from 0"),
        ({"training": 3}, "does not describe MSD Task01"),
        ({"training": [{"image": "imagesTr/BRATS_009.nii.gz"}]}, "dataset.json names it, but it is not there"),
    ],
)
def test_a_dataset_json_that_does_not_fit_is_skipped(changes, reason, tmp_path):
    touch(tmp_path / "a", *underscored("a"))
    write_task01(tmp_path / "task", **changes)
    _, skipped = find_cases(tmp_path)
    assert any(reason in why for _, why in skipped)


def write_list(folder, rows, kind):
    path = folder / f"list.{kind}"
    if kind == "json":
        path.write_text(json.dumps(rows))
    else:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        lines = [",".join(columns), *(",".join(row.get(name) or "" for name in columns) for row in rows)]
        path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_list_names_files_of_any_name(kind, tmp_path):
    touch(tmp_path / "scans", "one.nii", "two.nii.gz", "mask.nii.gz")
    rows = [
        {"id": "b", "flair": "scans/one.nii", "convention": "brats2023", "grade": "LGG", "patient": "p"},
        {"id": "a", "t1ce": "scans/two.nii.gz", "seg": "scans/mask.nii.gz", "convention": "brats2024-ped"},
    ]
    (a, b), skipped = find_cases(write_list(tmp_path, rows, kind))
    assert (a.id, b.id, skipped) == ("a", "b", [])
    assert (a.volumes, a.segmentation) == ({"t1ce": tmp_path / "scans/two.nii.gz"}, tmp_path / "scans/mask.nii.gz")
    assert (a.convention, b.convention, b.grade, b.patient) == (BRATS_2024_PED, BRATS_2023, "LGG", "p")
    with pytest.raises(InputError, match="expected a file in the list's column flair, found t1ce, seg"):
        a.require("flair")


GOOD_ROW = {"id": "a", "flair": "one.nii", "convention": "brats2017"}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"id": "../a"}, r"case 1: `id` must be a name that a file can have. Received: '../a'"),
        ({"id": None}, "case 1: `id` must be a name"),
        ({"convention": "2017"}, "`convention` must be one of brats2017, .*Received: '2017'"),
        ({"convention": None}, "`convention` must be one of"),
        ({"flair": "two.nii"}, "`flair` must name a file. Received: .*two.nii, which is not there"),
        ({"flair": None}, "a case needs one of flair, t1, t1ce, t2. Received: none"),
        ({"grade": "IV"}, "`grade` must be HGG or LGG, or empty. Received: 'IV'"),
        ({"t3": "one.nii"}, "columns must be from id, flair.*Received: t3"),
        ({"flair": 3}, "values must be text"),
    ],
)
def test_a_wrong_row_of_a_list_is_refused(row, sentence, tmp_path):
    touch(tmp_path, "one.nii")
    with pytest.raises(InputError, match=sentence):
        find_cases(write_list(tmp_path, [GOOD_ROW | row], "json"))


def test_a_list_that_is_none_is_refused(tmp_path):
    touch(tmp_path, "one.nii")
    with pytest.raises(InputError, match="the id a stands in the list twice"):
        find_cases(write_list(tmp_path, [GOOD_ROW, GOOD_ROW], "csv"))
    for name, content, sentence in (
        ("list.json", "{", "is no readable list of cases"),
        ("list.json", "{}", "must hold a list of objects"),
        ("list.csv", "id,flair\n", "No case in"),
        ("list.txt", "", "must be .csv or .json, or a folder"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=sentence):
            find_cases(tmp_path / name)


def test_real_folders(real_data):
    native, skipped = find_cases(real_data / "native")
    assert (len(native), skipped) == (8, [])
    assert [case.convention for case in native].count(BRATS_2023) == 4
    assert all(len(case.volumes) == 4 and case.segmentation for case in native)
    assert len(find_cases(real_data / "uint8")[0]) == 20


def test_a_segmentation_beside_its_images_comes_before_one_alone(tmp_path):
    """Label maps of another program may lie among the cases, in a folder that sorts before theirs."""
    touch(tmp_path / "A_other_program", "BraTS20_Training_001_seg.nii.gz")
    touch(tmp_path / "BraTS20_Training_001", *underscored("BraTS20_Training_001"))
    for images in (True, False):
        (case,), ((path, reason),) = find_cases(tmp_path, images=images)
        assert case.segmentation.parent == case.folder == tmp_path / "BraTS20_Training_001"
        assert path == tmp_path / "A_other_program" and "was already found in" in reason


def test_of_two_segmentations_alone_none_is_guessed(tmp_path):
    for name in ("labels", "labels_old"):
        touch(tmp_path / name, "BraTS20_Training_001_seg.nii.gz")
    with pytest.raises(InputError, match=r"Case BraTS20_Training_001: two segmentations .*/labels and .*/labels_old"):
        find_cases(tmp_path, images=False)


def test_predictions_among_the_cases_are_no_cases_and_not_skipped(tmp_path):
    touch(tmp_path / "BraTS20_Training_001", *underscored("BraTS20_Training_001"))
    touch(tmp_path / "predictions", "prediction.json", "BraTS20_Training_001.nii.gz")
    touch(tmp_path / "predictions" / "probabilities", "BraTS20_Training_001.nii.gz")
    touch(tmp_path / "predictions" / "cases" / "BraTS20_Training_002", *underscored("BraTS20_Training_002"))
    cases, skipped = find_cases(tmp_path)
    assert ([case.id[-3:] for case in cases], skipped) == (["001", "002"], [])
    touch(tmp_path / "other_predictions", "BraTS20_Training_001.nii.gz")
    assert len(find_cases(tmp_path)[1]) == 1


def test_empty_columns_of_a_spreadsheet_are_none(tmp_path):
    touch(tmp_path, "one.nii")
    path = tmp_path / "list.csv"
    path.write_text("id,flair,convention,,\na,one.nii,brats2017,,,\n\nb,one.nii,brats2017\n")
    assert [case.id for case in find_cases(path)[0]] == ["a", "b"]
    path.write_text("id,flair,convention\na,one.nii,brats2017,HGG\n")
    with pytest.raises(InputError, match="line 2 has a cell without a named column: 'HGG'"):
        find_cases(path)


def test_an_id_is_as_long_as_its_bytes(tmp_path):
    touch(tmp_path, "one.nii")
    for letter, count in (("a", 129), ("\u75c5", 43)):
        (good,), _ = find_cases(write_list(tmp_path, [GOOD_ROW | {"id": letter * (count - 1)}], "json"))
        assert good.id == letter * (count - 1)
        with pytest.raises(InputError, match="`id` must be a name that a file can have"):
            find_cases(write_list(tmp_path, [GOOD_ROW | {"id": letter * count}], "json"))


def test_truth_may_lie_in_another_folder_than_the_images(tmp_path):
    touch(tmp_path / "images", *underscored("BraTS20_Training_001")[:4])
    touch(tmp_path / "labels", "BraTS20_Training_001_seg.nii.gz")
    (case,), _ = find_truth(tmp_path)
    assert case.segmentation == tmp_path / "labels" / "BraTS20_Training_001_seg.nii.gz"


def test_a_folder_that_cannot_be_read_is_skipped(tmp_path, monkeypatch):
    touch(tmp_path / "BraTS20_Training_001", *underscored("BraTS20_Training_001"))
    (tmp_path / "x_flair.nii").mkdir()
    scan, iterate = os.scandir, Path.iterdir

    def refuse(read):
        def refusing(path):
            if Path(path).name == "x_flair.nii":
                raise PermissionError(13, "Permission denied", str(path))
            return read(path)

        return refusing

    monkeypatch.setattr(os, "scandir", refuse(scan))
    monkeypatch.setattr(Path, "iterdir", refuse(iterate))
    cases, skipped = find_cases(tmp_path)
    assert len(cases) == 1
    assert skipped == [(tmp_path / "x_flair.nii", "it cannot be read: Permission denied")]
