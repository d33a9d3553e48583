"""What is known of the run that a training starts from before anything is prepared."""

import json

import pytest
from tiny_networks import TINY_CROP

from brats_tf.config.config import Config
from brats_tf.data.splits import Split
from brats_tf.errors import InputError
from brats_tf.runtime.files import sha256_of
from brats_tf.training.starting_weights import check_start, warn_of_known_patients

SETTINGS = {"crop": TINY_CROP, "backbone": "tiny", "weights": "none"}


@pytest.fixture
def start(tmp_path):
    folder = tmp_path / "start" / "embedding-flair"
    Config.from_preset("embedding", modalities=("flair",), **SETTINGS).save(folder)
    (folder / "network.weights.h5").write_bytes(b"weights")
    return folder


def config_from(start):
    return Config.from_preset("embedding", modalities=("flair",), **SETTINGS, start_from=f"{start.parent}/")


def test_the_place_of_a_run_is_written_in_one_way(start):
    assert config_from(start).training.start_from == str(start.parent)


def test_a_run_that_was_stopped_before_it_had_weights_is_refused(start, tmp_path):
    (start / "network.weights.h5").unlink()
    with pytest.raises(InputError, match=r"must be a trained run. Received: .*, without network.weights.h5"):
        check_start(config_from(start), tmp_path / "new", restart=False)


def test_a_run_does_not_start_from_itself(start):
    with pytest.raises(InputError, match="must be another run than the one to train"):
        check_start(config_from(start), start, restart=True)


def test_weights_that_have_changed_since_are_told_of(start, tmp_path, capsys):
    run, config = tmp_path / "run", config_from(start)
    config.save(run)
    record = {"settings": {}, "data": "", "validation": [], "status": "finished", "epochs": 1, "seconds": 1}
    origin = f"the weights of embedding-flair, SHA-256 {sha256_of(start / 'network.weights.h5')[:12]}"
    (run / "run.json").write_text(json.dumps(record | {"initial_weights": {"origin": origin}}))
    check_start(config, run, restart=False)
    assert capsys.readouterr().out == ""
    (start / "network.weights.h5").write_bytes(b"others")
    check_start(config, run, restart=False)
    assert "holds other weights now than when" in capsys.readouterr().out
    (start / "config.json").unlink()
    check_start(config, run, restart=False)  # A run that has started needs it no more.
    assert capsys.readouterr().out == ""


def test_cases_that_validate_but_have_trained_the_start_are_told_of(start, capsys):
    config = config_from(start)
    warn_of_known_patients(config, ["a", "b"])
    assert "has no split.json: whether it was trained on cases that validate is not known" in capsys.readouterr().out
    Split("all", 0, ["b", "c"], []).save(start)
    warn_of_known_patients(config, ["a", "b"])
    assert "1 of 2 cases kept from training are of patients that have trained" in capsys.readouterr().out
    Split("all", 0, ["BraTS-GLI-00005-000"], []).save(start)
    warn_of_known_patients(config, {"BraTS-GLI-00005-001", "BraTS-GLI-00006-000"})  # Another scan of the patient.
    assert "start, whose weights this training starts from, such as BraTS-GLI-00005-001" in "".join(
        capsys.readouterr().out.splitlines()
    ).replace(str(start), "start")
    for quiet in (["a"], []):
        warn_of_known_patients(config, quiet)
    assert capsys.readouterr().out == ""
