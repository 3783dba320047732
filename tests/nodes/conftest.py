"""One cluster of real nodes for the session, and one undisturbed run that all others are compared with."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack

import pytest

from tests.chart.helm import FetchError
from tests.controlplane.binaries import BuildError
from tests.nodes import trainee
from tests.nodes.cluster import NodeCluster, node_cluster, session
from tests.nodes.machine import Unavailable
from tests.nodes.trainee import Traces
from tests.nodes.user import NodeUser, remove_run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows its runs' status, events, jobs and pods, which are gone with it."""
    report = yield
    user = getattr(item, "funcargs", {}).get("user")
    if report.when == "call" and report.failed and user is not None:
        for run in user.api.get(user.runs_path)["items"]:
            name = run["metadata"]["name"]
            told = (f"{e.get('lastTimestamp')} {e['reason']}: {e['message']}" for e in user.events(name))
            report.sections.append((f"run {name}", "\n".join([user.story(name), *told])))
    return report


@pytest.fixture(scope="session")
def nodes() -> Iterator[NodeCluster]:
    """Real nodes with the operator on them."""
    with ExitStack() as stack:
        try:
            images = stack.enter_context(session())
        except (Unavailable, BuildError, FetchError) as error:
            pytest.skip(str(error))
        cluster = stack.enter_context(node_cluster(images))
        trainee.write_text(cluster.shared)
        yield cluster


@pytest.fixture
def user(nodes: NodeCluster) -> Iterator[NodeUser]:
    """Every run of a test goes with it, and its nodes are as before."""
    user = NodeUser(nodes)
    yield user
    for run in user.api.get(user.runs_path)["items"]:
        remove_run(user, run["metadata"]["name"])


@pytest.fixture(scope="session")
def calm(nodes: NodeCluster) -> Traces:
    """What the trainee leaves when nothing happens to it."""
    user = NodeUser(nodes)
    traces = user.create_run("calm")
    user.wait_succeeded("calm")
    assert user.attempts("calm") == [(0, "Done")]
    remove_run(user, "calm")
    return traces
