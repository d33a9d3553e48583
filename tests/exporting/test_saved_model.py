import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import TINY_CROP
from untrained_runs import untrained

from brats_tf.cli.main import main
from brats_tf.config.execution import ForwardOptions
from brats_tf.errors import InputError
from brats_tf.exporting import export, saved_model, verification
from brats_tf.exporting.export import export_networks
from brats_tf.models import winograd
from brats_tf.runs.network import load_network

LOADER = """
import sys
import numpy as np, tensorflow as tf
assert "brats_tf" not in sys.modules
volume = np.load(sys.argv[2])
network = tf.saved_model.load(sys.argv[1])
np.save(sys.argv[3], network.probabilities(volume)["regions"].numpy())
assert not any(name.startswith("brats_tf") for name in sys.modules)
"""


@pytest.fixture
def run(small, tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("flair"), modalities=("flair",))


@pytest.mark.parametrize("backbone", ["small", pytest.param("efficientnetb0", marks=pytest.mark.large)])
@pytest.mark.slow
def test_a_python_without_brats_tf_computes_the_same(backbone, tmp_path, capsys, request):
    if backbone == "small":
        request.getfixturevalue("small")
        backbone = "tiny"
    run = tmp_path / "flair"
    run.mkdir()
    untrained(run, backbone=backbone, modalities=("flair",))
    assert main(["export", str(run), "--out", str(tmp_path / "saved")]) == 0
    assert "differ from the networks' by at most" in capsys.readouterr().out
    sizes = [path.stat().st_size for path in (tmp_path / "saved" / "variables").iterdir()]
    assert sum(sizes) < 1.2 * (run / "network.weights.h5").stat().st_size  # Every weight once.
    volume = np.random.default_rng(1).normal(size=(1, *TINY_CROP, 1)).astype("float32")
    np.save(tmp_path / "volume.npy", volume)
    command = [sys.executable, "-c", LOADER, tmp_path / "saved", tmp_path / "volume.npy", tmp_path / "out.npy"]
    subprocess.run([str(part) for part in command], check=True, cwd=tmp_path, capture_output=True)
    network = load_network(run)[1]  # What predictions compute with.
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), network(volume, training=False), atol=1e-5)


def test_its_convolutions_are_those_of_every_machine(tmp_path, monkeypatch):
    """A GPU may run what a CPU has exported."""

    def refused(*values):
        raise AssertionError("of this processor alone")

    for least in ("LEAST_CHANNELS", "LEAST_MULTIPLY_ADDS"):
        monkeypatch.setattr(winograd, least, 0)
    monkeypatch.setattr(winograd, "convolve", refused)
    (tmp_path / "flair").mkdir()
    config, network = load_network(untrained(tmp_path / "flair", modalities=("flair",)))
    with pytest.raises(AssertionError, match="of this processor alone"):
        network(np.zeros((1, *TINY_CROP, 1), "float32"), training=False)
    saved_model.write([(config, network)], tmp_path / "out", weight_type="float32", label_map={"labels": (0, 1, 2, 4)})
    assert set(tf.saved_model.load(tmp_path / "out").signatures) == {"serving_default", "probabilities", "label_map"}


@pytest.mark.large
@pytest.mark.parametrize("backbone", ["seresnext50", "inceptionresnetv2", "convnext_tiny"])
def test_a_classifier_with_layers_of_its_own_is_exported_and_compared(backbone, tmp_path, capsys):
    run = tmp_path / "flair"
    run.mkdir()
    export_networks(
        [untrained(run, backbone=backbone, crop=(96, 96, 24), modalities=("flair",))], out=tmp_path / "saved"
    )
    assert "differ from the networks' by at most" in capsys.readouterr().out


def test_a_savedmodel_that_differs_gets_no_name(run, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "TOLERANCE", {"savedmodel": -1.0})
    with pytest.raises(InputError, match="must equal its networks"):
        export_networks([run], out=tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_in_it_is_not_replaced(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="is no export"):
        export_networks([run], out=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years"
    (tmp_path / "metadata.json").write_text('{"name": "a data set"}')
    with pytest.raises(InputError, match="is no export"):
        export_networks([run], out=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_an_export_that_holds_what_it_did_not_write_is_not_replaced(run, tmp_path):
    out = tmp_path / "saved"
    (out / "onnx").mkdir(parents=True)
    written = {"brats_tf": "0", "format": "savedmodel", "networks": [], "sha256": {"saved_model.pb": "0"}}
    (out / "metadata.json").write_text(json.dumps(written))
    for name in ("saved_model.pb", "model_card.md", "onnx/model.onnx"):
        (out / name).write_text("x")
    with pytest.raises(
        InputError, match="saved would be replaced, and with it onnx/model.onnx, which the export there"
    ):
        export_networks([run], out=out)
    assert (out / "onnx" / "model.onnx").exists()
    (out / "onnx" / "model.onnx").unlink()
    export._check_replaceable(out)
    (out / ".DS_Store").touch()
    export._check_replaceable(out)
    (out / ".env").touch()
    (out / "data").symlink_to(tmp_path)
    with pytest.raises(InputError, match="and with it .env, data, which the export there did not write"):
        export._check_replaceable(out)


def test_the_recorded_weights_are_those_that_were_loaded(run, tmp_path, monkeypatch):
    loaded, load = [], export.load_weights

    def load_and_replace(network, folder, checkpoint):
        loaded.append(load(network, folder, checkpoint))
        network.save_weights(folder / "network.weights.h5")  # As a training does meanwhile; HDF5 has the time in it.
        with open(folder / "network.weights.h5", "ab") as file:
            file.write(b"another")
        return loaded[0]

    copy = shutil.copytree(run, tmp_path / run.name)
    monkeypatch.setattr(export, "load_weights", load_and_replace)
    export_networks([copy], out=tmp_path / "saved")
    facts = json.loads((tmp_path / "saved" / "metadata.json").read_text())
    assert [one["weights_sha256"] for one in facts["networks"]] == loaded


@pytest.mark.slow
def test_a_network_in_bfloat16_takes_and_gives_float32(run, tmp_path):
    checked = export_networks([run], out=tmp_path / "half", forward=ForwardOptions(precision="bfloat16"))
    assert checked["largest_difference"] <= 1e-5
    export_networks([run], out=tmp_path / "whole")
    volume = np.random.default_rng(1).normal(size=(1, *TINY_CROP, 1)).astype("float32")
    networks = [tf.saved_model.load(tmp_path / name) for name in ("half", "whole")]  # They must stay alive.
    half, whole = (network.probabilities(volume)["regions"].numpy() for network in networks)
    assert half.dtype == whole.dtype == np.float32
    assert 0 < np.abs(half - whole).max() < 0.05
