import hashlib
import json

import keras
import numpy as np
import pytest
from test_state_dict import write_zip

from brats_tf.errors import InputError
from brats_tf.models import torchvision_weights as torchvision
from brats_tf.models.albunet import albunet
from brats_tf.models.resnet34 import PREFIX
from brats_tf.models.torchvision_weights import fill_resnet34, read_safetensors

SHAPE = (32, 32, 2, 3)


def torch_names(layer):
    stage, _, rest = layer.name.removeprefix(PREFIX).partition("_")
    block, _, part = rest.partition("_")
    stem = f"{stage}.{block}.{part.replace('_', '.')}" if rest else stage
    return [f"{stem}.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")[: len(layer.weights)]]


def state_like(network):
    """What torchvision's file would hold: names, shapes (out, in, h, w), random numbers."""
    random, state = np.random.default_rng(0), {}
    for layer in network.layers:
        if layer.name.startswith(PREFIX):
            for name, weight in zip(torch_names(layer), layer.weights, strict=bool(layer.weights)):
                shape = tuple(weight.shape)
                shape = (shape[4], shape[3], *shape[:2]) if len(shape) == 5 else shape
                state[name] = random.standard_normal(shape).astype("float32")
    return state | {"fc.weight": np.zeros((1000, 512), "float32")}


def write(path, state):
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in state.items():
        header[name] = {
            "dtype": "F32",
            "shape": array.shape,
            "data_offsets": [len(body), len(body) + array.nbytes],
        }
        body += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


@pytest.fixture(scope="module")
def network():
    return albunet(SHAPE)


@pytest.fixture(scope="module")
def state(network):
    return state_like(network)


@pytest.fixture
def file(tmp_path, state):
    return write(tmp_path / "resnet34.safetensors", state)


@pytest.mark.slow
def test_every_weight_of_the_encoder_comes_from_the_file_and_no_other_changes(network, state, file, monkeypatch):
    before = {layer.name: layer.get_weights() for layer in network.layers}
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(file.parent))
    assert fill_resnet34(network, source="imagenet") == "ImageNet weights from resnet34.safetensors"
    used = set()
    for layer in network.layers:
        if not layer.name.startswith(PREFIX):
            for old, new in zip(before[layer.name], layer.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)
            continue
        for name, array in zip(torch_names(layer), layer.get_weights(), strict=bool(layer.weights)):
            expected = state[name]
            expected = expected.transpose(2, 3, 1, 0)[:, :, None] if expected.ndim == 4 else expected
            np.testing.assert_array_equal(array, expected)
            used.add(name)
    assert used == set(state) - {"fc.weight"}


def test_four_channels_share_the_first_kernel(state, file):
    network = albunet((32, 32, 1, 4))
    fill_resnet34(network, source=str(file))
    kernel = network.get_layer(f"{PREFIX}conv1").get_weights()[0]
    np.testing.assert_allclose(
        kernel.sum(axis=3), state["conv1.weight"].transpose(2, 3, 1, 0).sum(axis=2)[:, :, None], rtol=1e-4, atol=1e-5
    )


def test_random_weights_are_left_as_they_are(network):
    assert fill_resnet34(network, source="none") == "random weights"


def test_bad_files_change_nothing_and_say_why(network, state, file, tmp_path, monkeypatch):
    before = [np.array(weight) for weight in network.get_weights()]

    def refused(path, sentence):
        with pytest.raises(InputError, match=sentence):
            fill_resnet34(network, source=str(path))

    refused(tmp_path / "none.safetensors", "The weights file .* does not exist")
    refused(tmp_path / "resnet34.h5", "must be imagenet, none or a .safetensors or .pth or .pt file")
    (tmp_path / "resnet34-b627a593.pth").write_bytes(b"x")
    refused(
        tmp_path / "resnet34-b627a593.pth", "SHA-256 that begins with b627a593, as its name says. Received: 2d711642"
    )
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(file.read_bytes()[:-4])
    refused(truncated, "is no readable safetensors file: expected")
    (tmp_path / "noise.safetensors").write_bytes(b"\xff" * 100)
    refused(tmp_path / "noise.safetensors", "no readable safetensors file: a header of")
    (tmp_path / "list.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    refused(tmp_path / "list.safetensors", "no readable safetensors file")
    for channels in (1, 4):
        kernel = np.repeat(state["conv1.weight"][:, :1], channels, axis=1)
        other = write(tmp_path / f"channels{channels}.safetensors", state | {"conv1.weight": kernel})
        refused(other, f"conv1.weight of 7x7x1x3x64.* Received: 7x7x1x{channels}x64")
    short = {name: array for name, array in state.items() if name != "layer4.2.conv2.weight"}
    refused(write(tmp_path / "short.safetensors", short), "layer4.2.conv2.weight of 3x3x1x512x512.* Received: none")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  resnet34.safetensors\n")
    refused(file, "must have the SHA256 0000")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("BRATS_TF_WEIGHTS", str(tmp_path / "empty"))
    refused("imagenet", "must hold resnet34.safetensors or resnet34-b627a593.pth .* Received: neither")
    monkeypatch.delenv("BRATS_TF_WEIGHTS")
    monkeypatch.setattr(torchvision, "download", no_network)
    refused(
        "imagenet",
        "could not be downloaded .OSError: no network.. Put torchvision's resnet34-b627a593.pth into a folder",
    )
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def no_network(name, url):
    assert url == f"https://download.pytorch.org/models/{name}"
    raise OSError("no network")


def test_the_published_file_is_downloaded_once_and_its_name_is_its_hash(network, state, tmp_path, monkeypatch):
    written = write_zip(tmp_path / "state.pth", state)
    digits = hashlib.sha256(written.read_bytes()).hexdigest()[:8]
    published = written.rename(tmp_path / f"resnet34-{digits}.pth")
    monkeypatch.delenv("BRATS_TF_WEIGHTS", raising=False)
    monkeypatch.setattr(torchvision, "download", lambda name, url: published)
    assert fill_resnet34(network, source="imagenet") == f"ImageNet weights from {published.name}"
    kernel = network.get_layer(f"{PREFIX}layer4_2_conv2").get_weights()[0]
    np.testing.assert_array_equal(kernel[:, :, 0], state["layer4.2.conv2.weight"].transpose(2, 3, 1, 0))


def test_other_writers_files_are_read(tmp_path):
    writer = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    arrays = {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.array([1, 2], "int64")}
    writer.save_file(arrays, tmp_path / "x.safetensors")
    got = read_safetensors(tmp_path / "x.safetensors")
    assert sorted(got) == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)


def test_the_same_file_fills_two_dimensions(file):
    from brats_tf.models.resnet34 import resnet34

    image = keras.Input((32, 32, 3))
    assert fill_resnet34(keras.Model(image, resnet34(image)), source=str(file)).endswith("resnet34.safetensors")
