"""What the classifier contributes: networks that see with it alone, or that have none."""

import json
import shutil

import keras
import nibabel as nib
import numpy as np
import pytest

from brats_tf.cli.main import main
from brats_tf.models import registry
from brats_tf.report.sections import contribution_section

REGIONS = ("WT", "TC", "ET")


def seeing_with_planes_alone(shape, **settings):
    """(B, H, W, D, 1) -> every region is where the planes, means of slabs of the volume, are above 0.5."""
    height, width, depth, _ = shape
    ones, bias = keras.initializers.Constant(1.0), keras.initializers.Constant(-4.0)
    volume = keras.Input(shape, name="volume")
    x = keras.layers.Conv3D(1, 1, kernel_initializer=ones, name="squeeze4_conv1")(volume)
    x = keras.layers.AveragePooling3D((1, 1, depth // 3))(x)
    planes = keras.layers.Reshape((height, width, 3), name="planes")(x)
    decoded = keras.layers.Identity(name="decoded_planes")(planes)
    x = keras.layers.UpSampling3D((1, 1, depth // 3))(keras.layers.Reshape((height, width, 3, 1))(decoded))
    eight = keras.initializers.Constant(8.0)
    last = keras.layers.Conv3D(3, 1, kernel_initializer=eight, bias_initializer=bias, activation="sigmoid")
    return keras.Model(volume, last(x))


def call(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def predicted(phantom_folder, tmp_path_factory):
    """What a network as it was built predicted of four cases, and the folder for scores."""
    folder = tmp_path_factory.mktemp("contribution")
    options = [phantom_folder, "--runs", folder / "runs"]
    with pytest.MonkeyPatch.context() as patch:
        network = registry.Network(seeing_with_planes_alone, "regions", lambda *arguments: "random weights")
        patch.setitem(registry.NETWORKS, "embedding", network)
        training = ["--modality", "flair", "--crop", "32x32x24", "--weights", "none", "--learning-rate", 1e-12]
        assert call("train", *options, *training, "--epochs", 1) == 0
        assert call("predict", *options, "--networks", "embedding-flair", "--out", folder / "out") == 0
        yield folder / "out", folder / "results"


@pytest.mark.slow
def test_a_network_that_sees_with_its_planes_alone_loses_all_when_blinded(predicted, phantoms, capsys):
    out, results = predicted
    command = ["evaluate", out, "--results", results, "--blind-classifier"]
    assert call(*command) == 0
    assert "Dice x 100" in capsys.readouterr().out
    found = json.loads((results / "classifier.json").read_text())
    assert list(found["cases"]) == [case.id for case in phantoms]
    summary = json.loads((results / "summary.json").read_text())
    for region in REGIONS:
        assert found[region]["normal"]["mean"] == pytest.approx(summary[region]["dice"]["mean"])
    assert found["WT"]["normal"]["mean"] > 0.2 and found["WT"]["blinded"]["mean"] == 0
    assert found["WT"]["difference"]["mean"] == found["WT"]["normal"]["mean"]
    assert found["WT"]["difference"]["low"] > 0
    for case in phantoms:  # Blinded, they are the same networks and see nothing above 0.5.
        assert not np.asanyarray(nib.load(out / "blinded" / f"{case.id}.nii.gz").dataobj).any()
        assert np.asanyarray(nib.load(out / f"{case.id}.nii.gz").dataobj).any()
    assert list(json.loads((out / "blinded" / "prediction.json").read_text())["networks"]) == [
        "embedding-flair-blinded"
    ]
    assert call("report", out, "--results", results) == 0
    assert "What the classifier contributes" in (results / "report.html").read_text()


def test_predictions_of_other_weights_or_without_a_record_are_refused(predicted, phantom_folder, tmp_path, capsys):
    out, _ = predicted
    command = ["evaluate", tmp_path / "out", "--results", tmp_path / "r", "--blind-classifier"]
    (tmp_path / "out").mkdir()
    for path in out.glob("*.nii.gz"):
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    assert call(*command) == 2
    assert "has no prediction.json, so say with --truth which cases" in capsys.readouterr().err
    assert call(*command, "--truth", phantom_folder) == 2
    assert "Received: no prediction.json." in capsys.readouterr().err
    for change, sentence in (
        ({"networks": {"embedding-flair": "0" * 64}}, "was predicted by other weights of embedding-flair. Predict"),
        ({"networks": {"t1": "0" * 64}, "checkpoints": "t1"}, "was predicted by t1. Received: the networks embedding-"),
        ({"checkpoints": {}}, "each network needs checkpoint, chosen_on, initial_weights, run"),
    ):
        record = json.loads((out / "prediction.json").read_text())
        if change.get("checkpoints") == "t1":
            change["checkpoints"] = {"t1": record["checkpoints"]["embedding-flair"]}
        (tmp_path / "out" / "prediction.json").write_text(json.dumps(record | change))
        assert call(*command) == 2
        assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "r" / "classifier.json").exists()


def test_a_case_that_cannot_be_scored_is_left_out_and_the_others_go_on(predicted, phantoms, tmp_path):
    out, _ = predicted
    data = tmp_path / "data"
    shutil.copytree(phantoms[0].folder.parent, data)
    (data / phantoms[1].id / phantoms[1].segmentation.name).write_bytes(b"no gzip")
    assert call("evaluate", out, "--truth", data, "--results", tmp_path / "r", "--blind-classifier") == 2
    found = json.loads((tmp_path / "r" / "classifier.json").read_text())
    assert list(found["left_out"]) == [phantoms[1].id]
    assert list(found["cases"]) == [case.id for case in phantoms if case != phantoms[1]]


@pytest.mark.slow
def test_a_report_does_not_show_what_was_measured_for_other_predictions(predicted, tmp_path):
    out, results = predicted
    record, summary = (json.loads(path.read_text()) for path in (out / "prediction.json", results / "summary.json"))
    assert len(contribution_section(results, summary, record)) == 2
    for changed in (
        (summary | {"empty_rule": "nan"}, record),
        (summary, record | {"networks": {"flair": "0"}}),
        (summary, record | {"postprocessing": record["postprocessing"] | {"fill_holes": True}}),
        (summary, record | {"forward": record["forward"] | {"mirror": "all"}}),
    ):
        (said,) = contribution_section(results, *changed)
        assert "Measured for other predictions" in said.text
