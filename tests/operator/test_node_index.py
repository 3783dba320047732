"""What a pass learns of nodes, and that each is parsed once per version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from trainrun_operator import node_index
from trainrun_operator.core.observed import NodeFacts
from trainrun_operator.node_index import NodeIndex

from tests.operator.test_facts import node

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def versioned(name: str, version: int, **words: Any) -> dict[str, Any]:
    """A Node object with a resourceVersion."""
    obj = node(name, **words)
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version)}}


def test_healthy_nodes_are_only_counted() -> None:
    """Told of are those that deviate, the excluded ones, and the used ones that are gone."""
    nodes = [node("well"), node("well-2"), node("down", "False"), node("cordoned", unschedulable=True), node("blamed")]
    facts = NodeIndex().facts(nodes, ["well", "gone"], ["blamed", "gone too"], reachable_since=None)
    assert facts.total == 5
    assert set(facts.deviating) == {"down", "cordoned", "blamed", "gone"}
    assert facts.deviating["gone"] == NodeFacts("gone", exists=False, ready=None)
    assert facts.deviating["blamed"].ready_since == T0


def test_a_node_is_parsed_once_per_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has changed is parsed anew, what has gone is forgotten."""
    parsed: list[str] = []

    def counted(obj: dict[str, Any], reachable_since: datetime | None = None) -> NodeFacts:
        parsed.append(obj["metadata"]["name"])
        return NodeFacts(obj["metadata"]["name"])

    monkeypatch.setattr(node_index, "node_facts", counted)
    index = NodeIndex()
    first = [versioned("a", 1), versioned("b", 2)]
    for nodes in (first, first, [versioned("a", 1), versioned("b", 3)]):
        assert index.facts(nodes, [], [], reachable_since=None).total == 2
    assert parsed == ["a", "b", "b"]
    assert index.facts([versioned("a", 1)], ["b"], [], reachable_since=None).deviating["b"].exists is False


def test_staleness_is_a_matter_of_the_moment() -> None:
    """The same object is stale while an outage is remembered, and not afterwards."""
    index, nodes = NodeIndex(), [versioned("down", 1, status="Unknown")]
    after = T0 + timedelta(minutes=5)
    stale = [index.facts(nodes, [], [], reachable_since=since).deviating["down"].is_stale for since in (after, None)]
    assert stale == [True, False]
