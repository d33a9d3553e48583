"""AlbuNet: parity with PyTorch, golden outputs that stay where PyTorch is absent, what a slice sees."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest

from bench.torch_albunet import twin_state
from brats_tf.errors import InputError
from brats_tf.models.albunet import albunet
from brats_tf.models.resnet34 import resnet34

SHAPE = (64, 32, 9, 3)
# Equal in Keras and in PyTorch, as `test_the_network_equals_its_twin` shows where that is installed.
GOLDEN = [[0.0, 0.00024, 0.0, 0.99976], [0.21442, 0.75523, 0.0298, 0.00055]]
# Run in a process of its own: torchvision has to be imported before TensorFlow.
TWIN = """
import sys
import torchvision, torch
import numpy as np
from bench.torch_albunet import torch_albunet, torch_encoder
folder, kind = sys.argv[1:]
state = {name: torch.from_numpy(array) for name, array in np.load(f"{folder}/state.npz").items()}
x = torch.from_numpy(np.load(f"{folder}/x.npy"))
if kind.startswith("albunet"):
    twin = torch_albunet(depth_layers=kind == "albunet3d")
else:
    twin = torch_encoder(slices=kind == "encoder3d")
    state = {name.removeprefix("encoder."): array for name, array in state.items()}
left = [name for name in twin.load_state_dict(state, strict=False).missing_keys if "num_batches" not in name]
assert not left, left
with torch.no_grad():
    y = twin(x)
y = y if isinstance(y, dict) else {"y": y}
np.savez(f"{folder}/y.npz", **{name: array.numpy() for name, array in y.items()})
"""


def fill(network):
    """Well-scaled weights by a formula, the same on every machine."""
    random = np.random.default_rng(0)
    for layer in network.layers:
        arrays = []
        for weight in layer.weights:
            shape, kind = tuple(weight.shape), weight.path.rpartition("/")[2]
            if len(shape) > 1:
                arrays.append(random.standard_normal(shape) * (2 / np.prod(shape[:-1])) ** 0.5)
            elif kind in ("gamma", "moving_variance"):
                arrays.append(random.uniform(0.5, 1.5, shape))
            else:
                arrays.append(random.standard_normal(shape) * 0.1)
        layer.set_weights(arrays)
    return network


def volumes(shape):
    return np.random.default_rng(1).standard_normal((2, *shape)).astype("float32")


def in_torch(folder, kind, network, x):
    if not importlib.util.find_spec("torchvision"):  # Importing it beside TensorFlow would crash.
        pytest.skip("PyTorch and torchvision are not installed (extra `bench`)")
    state = twin_state(network)
    if x.ndim == 4:
        state = {name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array for name, array in state.items()}
    np.savez(folder / "state.npz", **state)
    np.save(folder / "x.npy", np.moveaxis(x, (-1, 1, 2), (1, -2, -1)) if x.ndim == 5 else x.transpose(0, 3, 1, 2))
    subprocess.run([sys.executable, "-W", "ignore", "-c", TWIN, folder, kind], check=True)
    with np.load(folder / "y.npz") as made:
        return {
            name: y.transpose(0, 3, 4, 2, 1) if y.ndim == 5 else y.transpose(0, 2, 3, 1) for name, y in made.items()
        }


@pytest.mark.parametrize("kind", ["encoder2d", "encoder3d"])
@pytest.mark.slow
def test_the_encoder_equals_torchvisions(tmp_path, kind):
    x = volumes(SHAPE) if kind == "encoder3d" else volumes((64, 96, 3))
    inputs = keras.Input(x.shape[1:])
    network = fill(keras.Model(inputs, resnet34(inputs)))
    expected = in_torch(tmp_path, kind, network, x)
    got = network(x, training=False)
    assert sorted(got) == sorted(expected) == ["P2", "P3", "P4", "P5"]
    for scale in got:
        np.testing.assert_allclose(got[scale], expected[scale], atol=1e-4 * np.abs(expected[scale]).max(), rtol=1e-4)


def test_volumes_are_images_slice_by_slice():
    x = volumes(SHAPE)
    image, volume = keras.Input((*SHAPE[:2], 3)), keras.Input(SHAPE)
    flat, deep = keras.Model(image, resnet34(image)), keras.Model(volume, resnet34(volume))
    fill(flat)
    for mine, its in zip(deep.layers, flat.layers, strict=True):
        mine.set_weights([np.expand_dims(array, 2) if array.ndim == 4 else array for array in its.get_weights()])
    got = deep(x, training=False)
    for index in (0, 4, 8):
        expected = flat(x[:, :, :, index], training=False)
        for scale, features in expected.items():
            top = float(np.abs(features).max())
            np.testing.assert_allclose(got[scale][:, :, :, index], features, atol=1e-5 * top)


@pytest.mark.parametrize("kind", ["albunet3d", "albunet2d"])
@pytest.mark.slow
def test_the_network_equals_its_twin(tmp_path, kind):
    x = volumes(SHAPE)
    network = fill(albunet(SHAPE, depth_layers=kind == "albunet3d"))
    expected = in_torch(tmp_path, kind, network, x)["y"]
    np.testing.assert_allclose(network(x, training=False), expected, atol=5e-4)  # 50 layers of float32.


@pytest.mark.parametrize(("depth_layers", "trained"), [(True, 26_673_172), (False, 25_822_372)])
def test_golden_sizes(depth_layers, trained):
    network = albunet((128, 128, 24 if depth_layers else 1, 3), depth_layers=depth_layers)
    # The authors' code has 26,681,684: its 1 x k x k convolutions have a bias each (8,512) that ImageNet's have not.
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == trained
    assert network.output.shape == (None, 128, 128, 24 if depth_layers else 1, 4)
    assert network.get_layer("resnet34_layer4_2_relu2").output.shape[1:3] == (4, 4)


def test_golden_forward_pass():
    y = np.array(fill(albunet(SHAPE))(volumes(SHAPE), training=False))
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose([y[0, 3, 5, 2], y[1, 60, 31, 8]], GOLDEN, atol=1e-4)


def reach(depth_layers):
    """How far from a changed slice the output differs."""
    network = fill(albunet((32, 32, 15, 3), depth_layers=depth_layers))
    x = volumes((32, 32, 15, 3))[:1]
    changed = x.copy()
    changed[:, :, :, 7] += 1
    difference = np.abs(np.array(network(x, training=False)) - np.array(network(changed, training=False)))
    return (np.flatnonzero(difference.max(axis=(0, 1, 2, 4)) > 0) - 7).tolist()


def test_four_depth_layers_reach_four_slices_and_none_reaches_its_own():
    assert reach(depth_layers=True) == list(range(-4, 5))
    assert reach(depth_layers=False) == [0]


def test_sizes_that_do_not_halve_five_times_are_refused():
    with pytest.raises(InputError, match="must be multiples of 32. Received: 48x64x5"):
        albunet((48, 64, 5, 3))
