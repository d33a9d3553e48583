"""Networks, losses and metrics know Keras alone: with JAX under it they give the numbers that TensorFlow gives.

So does a whole network with PyTorch.
"""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from repository import REPOSITORY
from tiny_networks import TINY_CROP

from brats_tf.models.blocks import residual_block
from brats_tf.models.embedding import embedding_network
from brats_tf.models.losses import CrossEntropyMinusDice, region_dice

SHAPE = (8, 8, 16, 16)
WITH_CHUNKS = (32, 32, 16, 16)
START = """
import jax, keras, numpy as np, sys
assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
with np.load("given.npz") as file:
    given = dict(file)
"""
BLOCK = """
from brats_tf.models.blocks import residual_block
from brats_tf.models.losses import CrossEntropyMinusDice, region_dice
found = {"dice": region_dice("WT")(given["truth"], given["y"])}
found["loss"] = CrossEntropyMinusDice()(given["truth"], given["y"])
for policy in given["policies"]:
    policy = str(policy)
    keras.config.set_dtype_policy(policy)
    x = keras.Input(given["x"].shape[1:])
    block = keras.Model(x, residual_block(x, 32, name="block"))
    block.load_weights("network.weights.h5")
    def total(weights, x):
        y, _ = block.stateless_call(weights, [], x, training=True)
        return (y.astype("float32") * given["upstream"]).sum()
    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))([one.value for one in block.trainable_variables], given["x"])
    found |= {f"{policy}{i:02}": one for i, one in enumerate([gradients[1], *gradients[0]])}
np.savez("found.npz", **found)
"""
NETWORK = """
from brats_tf.models.embedding import embedding_network
from tiny_networks import TINY_CROP, register
register()
network = embedding_network((*TINY_CROP, 1), backbone="tiny")
network.load_weights("network.weights.h5")
np.savez("found.npz", y=jax.jit(lambda volume: network(volume, training=False))(given["volume"]))
"""


ON_TORCH = """
import keras, numpy as np, sys
assert keras.backend.backend() == "torch" and "tensorflow" not in sys.modules
with np.load("given.npz") as file:
    given = dict(file)
from brats_tf.models.embedding import embedding_network
from tiny_networks import TINY_CROP, register
register()
network = embedding_network((*TINY_CROP, 1), backbone="tiny")
network.load_weights("network.weights.h5")
np.savez("found.npz", y=keras.ops.convert_to_numpy(network(given["volume"], training=False)))
"""


def on_jax(program, network, given, folder):
    """See `on_backend`."""
    return on_backend("jax", START + program, network, given, folder)


def on_backend(backend, program, network, given, folder):
    """What `program` finds with the weights of `network` and the arrays of `given`: {name: array}."""
    network.save_weights(folder / "network.weights.h5")
    np.savez(folder / "given.npz", **given)
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=folder)
    with np.load(folder / "found.npz") as file:
        return dict(file)


# In bfloat16 what a bias sums over many voxels is rounded, and cancels out here, because its mean is 0.
@pytest.mark.parametrize(
    ("shape", "rounding"), [(SHAPE, {"float32": 1e-4, "mixed_bfloat16": 0.1}), (WITH_CHUNKS, {"float32": 1e-4})]
)
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the package jax")
@pytest.mark.slow
def test_a_block_s_gradients_and_the_losses_are_tensorflow_s(shape, rounding, tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input(shape)
    block = keras.Model(x, residual_block(x, 32, name="block"))
    random = np.random.default_rng(0)
    given = {"x": random.normal(1, 2, (2, *shape)), "upstream": random.normal(size=(2, *shape[:3], 32))}
    given |= {"truth": random.random((1, 8, 8, 8, 3)) > 0.7, "y": random.random((1, 8, 8, 8, 3))}
    given = {name: values.astype("float32") for name, values in given.items()}
    found = on_jax(BLOCK, block, given | {"policies": np.array(list(rounding))}, tmp_path)
    np.testing.assert_allclose(found["dice"], region_dice("WT")(given["truth"], given["y"]), rtol=1e-5)
    np.testing.assert_allclose(found["loss"], CrossEntropyMinusDice()(given["truth"], given["y"]), rtol=1e-5)
    x = tf.constant(given["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(block(x, training=True) * given["upstream"])
    expected = [one.numpy() for one in tape.gradient(total, [x, *block.trainable_variables])]
    for policy, share in rounding.items():
        received = [found[name] for name in sorted(found) if name.startswith(policy)]
        for mine, right in zip(received, expected, strict=True):
            assert np.linalg.norm(mine - right) <= share * np.linalg.norm(right), (policy, right.shape)


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.large
def test_a_whole_network_predicts_what_it_does_on_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs the package {backend}")
    keras.utils.set_random_seed(0)
    network = embedding_network((*TINY_CROP, 1), backbone="tiny")
    volume = np.random.default_rng(0).normal(size=(1, *TINY_CROP, 1)).astype("float32")
    program = {"jax": START + NETWORK, "torch": ON_TORCH}[backend]
    found = on_backend(backend, program, network, {"volume": volume}, tmp_path)
    np.testing.assert_allclose(found["y"], network(volume, training=False), atol=1e-3)
