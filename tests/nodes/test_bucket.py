"""Checkpoints in a bucket, on a real S3-protocol server: pods share nothing else that they write to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nodes.network import ADDRESS
from tests.nodes.trainee import INTERVAL, Traces, pod_template
from tests.nodes.user import NodeUser
from tests.trainer.buckets import BUCKET, copy_prefix, environment, s3_server

pytestmark = pytest.mark.timeout(900)

TOLD = ("claims/", "metrics/", "manifest.json")
"""Keys that hold what a test looks at; tensors stay where they are."""


@pytest.fixture
def url() -> Iterator[str]:
    """A server that nodes and pods reach."""
    with s3_server(ADDRESS) as url:
        yield url


def test_a_node_vanishes_and_the_checkpoint_is_in_a_bucket(user: NodeUser, calm: Traces, url: str) -> None:
    """The next attempt fetches it into empty pods, and not one bit is different."""
    env = [{"name": name, "value": value} for name, value in environment(url).items()]
    template = pod_template(user.cluster.shared, {"env": env})
    path = f"s3://{BUCKET}/bucket"
    traces = user.create_run("bucket", {"spec": {"checkpoint": {"path": path}, "workers": {"template": template}}})

    def step() -> int:
        copy_prefix(url, "bucket", user.cluster.shared / "bucket", TOLD)
        return traces.step()

    user.wait(lambda: step() >= INTERVAL, "bucket", "its first checkpoint")
    with user.node_vanished(user.node_of(user.pods("bucket")[1])):
        user.wait_succeeded("bucket")
    assert user.attempts("bucket") == [(0, "NodeLost"), (1, "Done")]
    assert step() == calm.step()
    traces.assert_same_bits(calm)
