"""Tuning on the folds of a cross-validation, by the command."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from prediction_records import write_record

from brats_tf.cli.main import main
from brats_tf.config.execution import PostProcessing
from brats_tf.data.splits import Split
from brats_tf.errors import InputError
from brats_tf.inference.postprocessing import with_tuned


@pytest.fixture
def folds(phantoms, phantom_folder, tmp_path):
    """Predictions of four phantoms by two networks, right but for a voxel of ET in the fourth, which has none."""
    folders = []
    for number in (0, 1):
        folder, run = tmp_path / f"fold{number}", tmp_path / "runs" / f"network{number}"
        folder.mkdir()
        cases = phantoms[2 * number : 2 * number + 2]
        for case in cases:
            shutil.copy(case.segmentation, folder / f"{case.id}.nii.gz")
        if number:
            image = nib.load(cases[1].segmentation)
            labels = np.asanyarray(image.dataobj).copy()
            labels[0, 0, 0] = 4
            nib.save(nib.Nifti1Image(labels, image.affine), folder / f"{cases[1].id}.nii.gz")
        Split("all", 0, ["Another"], [case.id for case in cases]).save(run)
        record_of(folder, cases, run, phantom_folder)
        folders.append(folder)
    return folders


def record_of(folder, cases, run, data, **changes):
    facts = {"checkpoint": "last", "chosen_on": [], "initial_weights": "random weights", "run": str(run)}
    ids = [case.id for case in cases]
    networks = {run.name: "0"}
    said = {"networks": networks, "checkpoints": {run.name: facts}, "settings": networks, "data": [str(data)]}
    write_record(folder, ids, **said | changes)


def tune(*folders):
    return main(["tune-postprocessing", *map(str, folders)])


def test_the_volume_of_all_folds_is_for_all_their_networks(folds, tmp_path, capsys):
    assert tune(*folds) == 0
    runs = [tmp_path / "runs" / name for name in ("network0", "network1")]
    files = [json.loads((run / "postprocessing.json").read_text()) for run in runs]
    assert files[0] == files[1]
    # One voxel of 6 mm is 0.216 ml.
    assert (files[0]["drop_et_below_ml"], files[0]["cases"]) == (0.3, 4)
    assert (files[0]["mean_dice"]["0"], files[0]["mean_dice"]["0.3"]) == (0.75, 1)
    # The first fold alone has nothing to drop, so that the fourth case, in the second, is not helped.
    volumes = dict(zip(map(str, folds), (0.3, 0), strict=True))
    assert files[0]["cross_validated"] == {"mean_dice": 0.75, "drop_et_below_ml": volumes}
    said = " ".join(capsys.readouterr().out.split())
    assert "best for the others (0.3 ml, 0 ml): mean Dice of ET x 100 75.00" in said and "too good" not in said
    assert with_tuned(PostProcessing(), runs) == PostProcessing(drop_et_below_ml=0.3)
    with pytest.raises(InputError, match="tuned for the networks network0, network1. Received: network0"):
        with_tuned(PostProcessing(), runs[:1])


def test_one_folder_has_nothing_cross_validated(folds, tmp_path):
    assert tune(folds[1]) == 0
    tuned = json.loads((tmp_path / "runs" / "network1" / "postprocessing.json").read_text())
    assert (tuned["drop_et_below_ml"], "cross_validated" in tuned) == (0.3, False)


def test_folds_that_do_not_belong_together_are_refused(folds, phantoms, phantom_folder, tmp_path, capsys):
    def refused(*folders):
        assert tune(*folders) == 2
        return " ".join(capsys.readouterr().err.split())

    assert "Case Phantom_001 must be predicted in one of the folders" in refused(folds[0], folds[0])
    run, cases = tmp_path / "runs" / "network1", phantoms[2:]
    record_of(folds[1], cases, run, phantom_folder, forward={"precision": "float32", "mirror": "all"})
    assert "must be predicted with the same steps. Received: {'remove_below_ml': 0.0" in refused(*folds)
    shutil.copytree(run, tmp_path / "elsewhere" / "network0")
    record_of(folds[1], cases, tmp_path / "elsewhere" / "network0", phantom_folder)
    assert "Networks must have names of their own" in refused(*folds)
    record_of(folds[1], cases, tmp_path / "runs" / "network0", phantom_folder, networks={"network0": "1"})
    assert "was predicted with other weights of network0 than the others" in refused(*folds)
    record_of(folds[1], cases, run, phantom_folder)
    for case in cases:
        (folds[1] / f"{case.id}.nii.gz").unlink()
    assert f"None of 2 cases could be read from {folds[1]}" in refused(*folds)
    assert not list((tmp_path / "runs").glob("*/postprocessing.json"))


def test_what_the_weights_and_the_checkpoint_say(folds, phantoms, phantom_folder, tmp_path, capsys):
    run, cases = tmp_path / "runs" / "network1", phantoms[2:]
    facts = {"checkpoint": "best", "chosen_on": [cases[1].id], "initial_weights": "random weights", "run": str(run)}
    record_of(folds[1], cases, run, phantom_folder, checkpoints={run.name: facts})
    assert tune(folds[1]) == 0
    assert f"{cases[1].id} chose the checkpoint that predicted them" in " ".join(capsys.readouterr().out.split())
    assert json.loads((run / "postprocessing.json").read_text())["chose_the_checkpoint"] == [cases[1].id]
    (run / "network.weights.h5").write_bytes(b"1")
    assert tune(folds[1]) == 2
    assert f"was predicted with other weights than those of {run}. Predict again." in capsys.readouterr().err
    (run / "network.weights.h5").unlink()
    (run / "split.json").unlink()
    assert tune(folds[1]) == 2
    assert f"{run} must hold split.json, which names the cases that trained it" in capsys.readouterr().err


def test_no_run_is_changed_where_one_cannot_be(folds, tmp_path, monkeypatch, capsys):
    write = Path.write_text

    def full(path, text):
        if path.parent.name == "network1":
            raise OSError(28, "No space left on device")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", full)
    assert tune(*folds) == 2
    assert "postprocessing.json could not be written: No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/*postprocessing.json"))
