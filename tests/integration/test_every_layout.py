"""Small trees of every layout, with one phantom's voxels in each: listed, prepared, and the same in the end."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
from tiny_networks import TINY_CROP

from brats_tf.cli.main import main
from brats_tf.data.layouts import PARTS
from brats_tf.regions import (
    BRATS_2017,
    BRATS_2023,
    BRATS_2024,
    BRATS_2024_PED,
    MODALITIES,
    MSD_TASK01,
    classes_to_labels,
    labels_to_classes,
)

UNDERSCORED = dict(zip(PARTS, ("_flair", "_t1", "_t1ce", "_t2", "_seg"), strict=True))
HYPHENED = dict(zip(PARTS, ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), strict=True))


class Tree:
    """Writes the phantom in one layout or another."""

    def __init__(self, root, case):
        self.root, self.image = root, nib.load(case.volumes["flair"])
        self.arrays = {name: np.asanyarray(nib.load(case.volumes[name]).dataobj) for name in MODALITIES}
        self.classes = labels_to_classes(np.asanyarray(nib.load(case.segmentation).dataobj), case.convention)

    def save(self, path, voxels):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, self.image.affine), path)

    def voxels(self, part, convention):
        return classes_to_labels(self.classes, convention) if part == "seg" else self.arrays[part]

    def case(self, folder, case_id, names, convention, *, ending=".nii.gz", parts=PARTS):
        for part in parts:
            self.save(self.root / folder / f"{case_id}{names[part]}{ending}", self.voxels(part, convention))


def hgg_lgg(tree, year):
    tree.case("HGG/a", f"Brats{year}_TCIA02_377_1", UNDERSCORED, BRATS_2017)
    tree.case("LGG/b", f"Brats{year}_2013_0_1", UNDERSCORED, BRATS_2017)


def brats2020(tree):
    tree.case("BraTS20_Training_001", "BraTS20_Training_001", UNDERSCORED, BRATS_2017)
    folder = "BraTS20_Training_355"
    tree.case(folder, folder, UNDERSCORED, BRATS_2017, ending=".nii", parts=MODALITIES)
    tree.save(tree.root / folder / "W39_1998.09.19_Segm.nii", tree.voxels("seg", BRATS_2017))
    tree.case("BraTS20_Validation_001", "BraTS20_Validation_001", UNDERSCORED, BRATS_2017, parts=MODALITIES)
    (tree.root / "name_mapping.csv").write_text(
        "Grade,BraTS_2020_subject_ID\nHGG,BraTS20_Training_001\nLGG,BraTS20_Training_355\n"
    )


def msd(tree):
    stacked = np.stack([tree.arrays[name] for name in MODALITIES], axis=-1)
    tree.save(tree.root / "Task01_BrainTumour/imagesTr/BRATS_001.nii.gz", stacked)
    tree.save(tree.root / "Task01_BrainTumour/labelsTr/BRATS_001.nii.gz", tree.voxels("seg", MSD_TASK01))
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
        "test": [],
    }
    (tree.root / "Task01_BrainTumour/dataset.json").write_text(json.dumps(description))


def kaggle(tree):
    for part, name in UNDERSCORED.items():
        path = f"BraTS2021_00714/BraTS2021_00714{name}.nii/00000377_brain_{part}.nii"
        tree.save(tree.root / path, tree.voxels(part, BRATS_2017))
    tree.case("archive/archive/BraTS2021_00002", "BraTS2021_00002", UNDERSCORED, BRATS_2017, ending=".nii")


def listed(tree):
    for part in PARTS:
        tree.save(tree.root / f"{part}.nii.gz", tree.voxels(part, BRATS_2024_PED))
    row = {"id": "child"} | {part: f"{part}.nii.gz" for part in PARTS} | {"convention": "brats2024-ped"}
    (tree.root / "list.json").write_text(json.dumps([row]))
    return tree.root / "list.json"


def single(case_id, names, convention):
    return lambda tree: tree.case(case_id, case_id, names, convention)


# What writes a tree, and what is found: {case id: (layout, convention, grade)}.
TREES = {
    "2017": (
        lambda tree: hgg_lgg(tree, 17),
        {
            "Brats17_TCIA02_377_1": ("BraTS 2017", BRATS_2017, "HGG"),
            "Brats17_2013_0_1": ("BraTS 2017", BRATS_2017, "LGG"),
        },
    ),
    "2018": (
        lambda tree: hgg_lgg(tree, 18),
        {
            "Brats18_TCIA02_377_1": ("BraTS 2018", BRATS_2017, "HGG"),
            "Brats18_2013_0_1": ("BraTS 2018", BRATS_2017, "LGG"),
        },
    ),
    "2019": (
        lambda tree: hgg_lgg(tree, 19),
        {
            "Brats19_TCIA02_377_1": ("BraTS 2019", BRATS_2017, "HGG"),
            "Brats19_2013_0_1": ("BraTS 2019", BRATS_2017, "LGG"),
        },
    ),
    "2020": (
        brats2020,
        {
            "BraTS20_Training_001": ("BraTS 2020", BRATS_2017, "HGG"),
            "BraTS20_Training_355": ("BraTS 2020", BRATS_2017, "LGG"),
            "BraTS20_Validation_001": ("BraTS 2020", BRATS_2017, None),
        },
    ),
    "2021": (
        single("BraTS2021_00000", UNDERSCORED, BRATS_2017),
        {"BraTS2021_00000": ("BraTS 2021", BRATS_2017, None)},
    ),
    "2023 GLI": (
        single("BraTS-GLI-00000-000", HYPHENED, BRATS_2023),
        {"BraTS-GLI-00000-000": ("BraTS 2023 GLI", BRATS_2023, None)},
    ),
    "2023 SSA": (
        single("BraTS-SSA-00007-000", HYPHENED, BRATS_2023),
        {"BraTS-SSA-00007-000": ("BraTS 2023 SSA", BRATS_2023, None)},
    ),
    "2023 PED": (
        single("BraTS-PED-00002-000", HYPHENED, BRATS_2023),
        {"BraTS-PED-00002-000": ("BraTS 2023 PED", BRATS_2023, None)},
    ),
    "2024": (
        single("BraTS-GLI-00005-100", HYPHENED, BRATS_2024),
        {"BraTS-GLI-00005-100": ("BraTS 2024 post-treatment", BRATS_2024, None)},
    ),
    "msd": (msd, {"BRATS_001": ("MSD Task01", MSD_TASK01, None)}),
    "kaggle": (
        kaggle,
        {
            "BraTS2021_00714": ("BraTS 2021", BRATS_2017, None),
            "BraTS2021_00002": ("BraTS 2021", BRATS_2017, None),
        },
    ),
    "list": (listed, {"child": ("list", BRATS_2024_PED, None)}),
}


def contents(store):
    """The hashes of each part's data, whichever case it is of."""
    found = {}
    for path in store.glob("*.json"):
        record = json.loads(path.read_text())
        data = hashlib.sha256(path.with_suffix("").read_bytes()).hexdigest()
        found.setdefault(record["part"], set()).add(data)
    return found


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_listed_and_prepared(name, phantoms, tmp_path, capsys):
    write, expected = TREES[name]
    (tmp_path / "data").mkdir()
    data = write(Tree(tmp_path / "data", phantoms[0])) or tmp_path / "data"
    assert main(["inspect", str(data), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["skipped"] == []
    assert {one["id"]: (one["layout"], one["convention"], one["grade"]) for one in read["cases"]} == {
        case_id: (layout, convention.name, grade) for case_id, (layout, convention, grade) in expected.items()
    }
    for one in read["cases"]:
        assert (one["missing"], one["problem"], one["axes"]) == ([], None, "LPS")
        if one["segmentation"]:
            convention = expected[one["id"]][1]
            assert one["labels"] == sorted(convention.labels)
    crop = "x".join(map(str, TINY_CROP))
    store = tmp_path / "cache"
    assert main(["preprocess", str(data), "--cache-dir", str(store), "--crop", crop]) == 0
    # Whatever the layout and its numbers, the same brain and the same classes.
    reference = tmp_path / "reference"
    assert main(["preprocess", str(phantoms[0].folder), "--cache-dir", str(reference), "--crop", crop]) == 0
    assert contents(store) == contents(reference)
    truths = sum(bool(one["segmentation"]) for one in read["cases"])
    assert len(list(store.glob("*.volume"))) == 4 * len(expected)
    assert len(list(store.glob("*.classes"))) == truths


def test_all_of_them_in_one_folder_keep_their_own_conventions(phantoms, tmp_path, capsys):
    expected = {}
    for name, (write, found) in TREES.items():
        if name != "list":
            (tmp_path / name).mkdir()
            write(Tree(tmp_path / name, phantoms[0]))
            expected |= found
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    with_truth = len(expected) - 1
    assert f"{len(expected)} cases found, {len(expected)} with all four modalities, {with_truth} with truth" in said
    assert "0 refused; 0 files or folders skipped." in said
    assert "BraTS 2017-2021: 12 cases" in said
    assert "Note: BraTS-PED files are called alike in 2023 and 2024" in said


@pytest.mark.parametrize(("folder", "cases"), [("native", 8), ("uint8", 20)])
@pytest.mark.slow
def test_real_folders_are_prepared(real_data, tmp_path, folder, cases, capsys):
    crop = "96x80x54"
    assert main(["preprocess", str(real_data / folder), "--cache-dir", str(tmp_path), "--crop", crop]) == 0
    assert f"Preprocessing {5 * cases} files of {cases} cases" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.volume"))) == 4 * cases
    assert main(["preprocess", "--verify", "--cache-dir", str(tmp_path)]) == 0
    assert f"{5 * cases} entries in {tmp_path}, 0 removed." in capsys.readouterr().out
