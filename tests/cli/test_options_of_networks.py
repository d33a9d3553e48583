"""The options of predict, export and serve reach the networks, and what is made of their probabilities."""

import json

import keras
import pytest
from untrained_runs import networks_of_two_convolutions, untrained

from brats_tf.cli.main import main
from brats_tf.config.execution import PostProcessing
from brats_tf.runs.network import load_network
from brats_tf.runtime.files import sha256_of

FORWARD = ["--checkpoint", "best", "--mirror", "lr", "--precision", "bfloat16"]
STEPS = ["--drop-et-below-ml", "0.5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An untrained run whose best epoch is not the last one."""
    with networks_of_two_convolutions():
        keras.utils.set_random_seed(0)
        run = untrained(tmp_path_factory.mktemp("runs") / "flair", modalities=("flair",))
        _, network = load_network(run)
        network.set_weights([values + 0.5 for values in network.get_weights()])
        network.save_weights(run / "best.weights.h5")
        yield run


def test_those_of_predict_are_in_its_record_and_change_what_it_writes(run, phantoms, tmp_path):
    data, maps = str(phantoms[0].folder), []
    for name, words in (("plain", []), ("best", FORWARD[:2]), ("all", [*FORWARD, *STEPS])):
        command = ["predict", data, "--runs", str(run.parent), "--networks", "flair", "--out", str(tmp_path / name)]
        assert main([*command, "--save-probabilities", *words]) == 0
        record = json.loads((tmp_path / name / "prediction.json").read_text())
        maps.append((tmp_path / name / "probabilities" / f"{phantoms[0].id}.nii.gz").read_bytes())
    assert record["networks"] == {"flair": sha256_of(run / "best.weights.h5")}
    assert record["checkpoints"]["flair"]["checkpoint"] == "best"
    assert record["forward"] == {"precision": "bfloat16", "mirror": "lr"}
    assert record["postprocessing"]["drop_et_below_ml"] == 0.5
    assert len(set(maps)) == 3


def test_those_of_export_are_in_its_metadata(run, tmp_path):
    words = [*FORWARD, *STEPS, "--convention", "brats2023"]
    assert main(["export", str(run), "--out", str(tmp_path / "out"), *words]) == 0
    facts = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert [one["weights_sha256"] for one in facts["networks"]] == [sha256_of(run / "best.weights.h5")]
    assert (facts["precision"], facts["mirror"]) == ("bfloat16", "lr")
    assert facts["postprocessing"]["drop_et_below_ml"] == 0.5
    assert facts["labels"]["enhancing"] == 3, facts["labels"]


def test_those_of_serve_reach_the_server(run, monkeypatch):
    app = pytest.importorskip("brats_tf.serving.app", reason="needs the extra `serve`")
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `serve`")
    made = []
    monkeypatch.setattr(app, "create_app", lambda *given: made.append(given))
    monkeypatch.setattr(uvicorn.Server, "run", lambda *given, **named: None)
    words = ["--convention", "brats2023", "--queue", "3", "--upload-mb", "7", "--upload-seconds", "9"]
    command = ["serve", "--runs", str(run.parent), "--networks", "flair", *FORWARD, *STEPS, *words]
    monkeypatch.setattr("brats_tf.cli.serve_commands._bound", lambda host, port: open("/dev/null"))
    assert main(command) == 0
    ((mapper, options),) = made
    (predictor,) = mapper.predictors
    assert (predictor.checkpoint, predictor.mirror, predictor.precision) == ("best", "lr", "bfloat16")
    assert predictor.weights_sha256 == sha256_of(run / "best.weights.h5")
    assert mapper.postprocessing == PostProcessing(drop_et_below_ml=0.5)
    assert mapper.convention.labels == (0, 1, 2, 3)
    assert (options.queue, options.upload_mb, options.upload_seconds) == (3, 7, 9)
