import csv
import importlib.util
import json

import pytest
from repository import REPOSITORY
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.errors import InputError


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("overfit", REPOSITORY / "experiments" / "overfit_one_case.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.large
def test_it_leaves_curve_pictures_and_summary(experiment, phantoms, tmp_path):
    config = Config.from_preset("embedding", modalities=("flair",), crop=TINY_CROP, backbone="tiny", weights="none")
    experiment.learn(phantoms[0], config, steps=3, folder=tmp_path)
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["case"], summary["steps"]) == (phantoms[0].id, 3)
    assert summary["planes_live"] > 0.9 and set(summary["blinded"]) == {"WT", "TC", "ET"}
    assert len(summary["classifier_sha256"]) == 64 and "commit" in summary
    assert (tmp_path / "curve.png").is_file()
    assert (tmp_path / "overlay.png").is_file()


def test_bad_arguments_are_sentences(experiment, phantom_folder, phantoms, capsys):
    assert experiment.main(["/nowhere"]) == 2
    assert "The data folder /nowhere does not exist" in capsys.readouterr().err
    with pytest.raises(InputError, match="`--case` must be one of Phantom_001.*Received: x"):
        experiment.pick(phantoms, "x")
    with pytest.raises(SystemExit):
        experiment.main([str(phantom_folder), "--steps", "0"])
