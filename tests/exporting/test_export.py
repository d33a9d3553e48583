import shutil

import keras
import pytest
from google.protobuf import text_format
from untrained_runs import networks_of_two_convolutions, untrained

from brats_tf.cli.main import main
from brats_tf.config.execution import ForwardOptions
from brats_tf.exporting.export import export_networks


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    with networks_of_two_convolutions():
        yield untrained(tmp_path_factory.mktemp("runs") / "flair", modalities=("flair",))


@pytest.mark.slow
def test_a_network_of_full_width_is_exported_in_bfloat16(tmp_path):
    """Whose batches of one and of several volumes take other sums, and round otherwise."""
    keras.utils.set_random_seed(0)
    run = untrained(tmp_path / "plus", "embedding-plus", crop=(64, 64, 24))
    checked = export_networks([run], out=tmp_path / "out", forward=ForwardOptions(precision="bfloat16"))
    assert checked["voxels_different"] == 0


def test_two_networks_of_one_name_are_refused(small_run, tmp_path, capsys):
    other = shutil.copytree(small_run, tmp_path / "flair")
    assert main(["export", str(small_run), str(other), "--out", str(tmp_path / "out")]) == 2
    assert "must have different names. Received: flair, flair." in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--format", "onnx"], ["--format", "litert"]])
def test_labels_are_refused_where_there_is_no_label_map(small_run, tmp_path, words, capsys):
    assert main(["export", str(small_run), "--out", str(tmp_path / "x"), "--convention", "brats2023", *words]) == 2
    assert "has no label map, so that --mirror, --convention and steps" in " ".join(capsys.readouterr().err.split())


def test_an_export_says_nothing_of_gradients(small_run, tmp_path, caplog):
    assert main(["export", str(small_run), "--out", str(tmp_path / "out")]) == 0
    assert not [record for record in caplog.records if "gradient" in record.getMessage()]


@pytest.mark.slow
def test_what_configures_a_server_is_not_replaced_by_another(small_run, tmp_path, capsys):
    pytest.importorskip("tf2onnx")
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    command = ["export", str(small_run), "--format", "onnx", "--serving", "--out"]
    assert main([*command, str(tmp_path / "flair" / "1")]) == 0
    assert main([*command, str(tmp_path / "flair" / "2")]) == 0
    config = tmp_path / "flair" / "config.pbtxt"
    text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    config.write_text(config.read_text() + "# tuned by hand\n")
    assert main([*command, str(tmp_path / "flair" / "3")]) == 2
    assert f"{config} holds other settings than this export's" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "flair" / "3").exists() and "by hand" in config.read_text()
    assert main([*command, str(tmp_path / 'my "net"' / "1")]) == 2
    assert "names the model, without quotes" in capsys.readouterr().err
