"""From a config to its network, with TensorFlow, JAX or PyTorch under Keras."""

import hashlib

import keras

from brats_tf.config.config import Config
from brats_tf.models.precision import dtype_policy
from brats_tf.models.registry import get_network
from brats_tf.models.remat import classifiers


def build_network(config: Config, *, precision: str = "float32") -> keras.Model:
    """Builds the network that a `Config` describes, with random weights.

    Its weights are float32 in any `precision`, which only says what layers compute in; prediction takes float32.
    """
    with dtype_policy(precision if precision == "float32" else f"mixed_{precision}"):
        return get_network(config.network.name).build(**config.network_settings())


def build_with_weights(config: Config) -> tuple[keras.Model, str]:
    """Builds a config's network in its precision and fills in its initial weights: (network, origin of the weights)."""
    network = build_network(config, precision=config.compute.precision)
    fill = get_network(config.network.name).fill
    return network, fill(network, config.network.weights, config.network_settings())


def classifier_hash(network: keras.Model) -> str:
    """The SHA-256 of the weights of a network's classifier, the nested model; of the whole network without one."""
    digest = hashlib.sha256()
    for weight in next(iter(classifiers(network)), network).get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()
