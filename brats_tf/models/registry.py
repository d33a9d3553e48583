"""The only place where a name becomes a network."""

from collections.abc import Callable
from dataclasses import dataclass

from brats_tf.errors import InputError
from brats_tf.models.albunet import albunet
from brats_tf.models.embedding import authors_network, embedding_network
from brats_tf.models.imagenet_weights import fill_backbone
from brats_tf.models.plus import plus_network
from brats_tf.models.torchvision_weights import fill_resnet34


@dataclass(frozen=True)
class Network:
    """A builder, what its last channels are, and how ImageNet weights come in."""

    build: Callable
    outputs: str  # Overlapping "regions" or exclusive "classes"
    fill: Callable  # (network, source, settings of the builder) -> where the weights are from, in words


def _fill_classifier(network, source, settings):
    return fill_backbone(network, backbone=settings["backbone"], source=source)


def _fill_encoder(network, source, settings):
    return fill_resnet34(network, source=source)


NETWORKS = {
    "embedding": Network(embedding_network, "regions", _fill_classifier),
    "embedding_authors": Network(authors_network, "classes", _fill_classifier),
    "embedding_plus": Network(plus_network, "regions", _fill_classifier),
    "albunet": Network(albunet, "classes", _fill_encoder),
}


def get_network(name):
    """Looks up a `Network`. Raises `InputError` on an unknown name."""
    if name not in NETWORKS:
        raise InputError(f"`network` must be one of {', '.join(NETWORKS)}. Received: {name!r}.")
    return NETWORKS[name]
