"""The only place where a name becomes a network."""

from dataclasses import dataclass

from brats_tf.errors import InputError
from brats_tf.models.embedding import authors_network, embedding_network


@dataclass(frozen=True)
class Network:
    """A builder, and what its last channels are: overlapping "regions" or exclusive "classes"."""

    build: callable
    outputs: str


NETWORKS = {
    "embedding": Network(embedding_network, outputs="regions"),
    "embedding_authors": Network(authors_network, outputs="classes"),
}


def get_network(name):
    """Looks up a `Network`. Raises `InputError` on an unknown name."""
    if name not in NETWORKS:
        raise InputError(f"`network` must be one of {', '.join(NETWORKS)}. Received: {name!r}.")
    return NETWORKS[name]
