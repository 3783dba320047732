"""The images themselves, built from the Dockerfiles: what the operator's weighs, and the trainer's on others' torch."""

from __future__ import annotations

import json

import pytest

from tests.nodes.cluster import NodeCluster
from tests.nodes.images import STORAGE
from tests.nodes.layers import Storage

OPERATOR_BYTES = 250 * 10**6


def test_operator_image_is_small(nodes: NodeCluster) -> None:
    """On a plain Debian with Python."""
    image = Storage(STORAGE).image(nodes.images.operator)
    assert 0 < sum(layer["size"] for layer in image.layers) < OPERATOR_BYTES


@pytest.mark.parametrize("way", ["on_cuda", "on_neuron"])
def test_torch_of_the_base_is_left_alone(nodes: NodeCluster, way: str) -> None:
    """The build has imported the trainer with it; no layer above has a file of it, or of its numpy."""
    storage = Storage(STORAGE)
    base, image = storage.image(nodes.images.vendor), storage.image(getattr(nodes.images, way))
    below = len(base.layers)
    assert image.layers[:below] == base.layers
    names = [name for layer in image.layers[below:] for name in storage.names(layer["digest"])]
    assert any("/transformers/" in name for name in names)
    assert not [name for name in names if "/torch/" in name or "/numpy/" in name]
    config = json.loads(image.config)["config"]
    assert config["User"] == "1000:1000" and "org.opencontainers.image.version" in config["Labels"]
