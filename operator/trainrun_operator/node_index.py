"""Facts of all nodes, parsed once per version: 2,000 nodes are looked at in every pass, and hardly any has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trainrun_operator.cluster import Object
from trainrun_operator.core.observed import NodeFacts, NodesFacts
from trainrun_operator.facts import deviates, node_facts


@dataclass(frozen=True)
class _Parsed:
    """One list of nodes, and what was found in it."""

    nodes: list[Object] = field(default_factory=list)
    by_name: Mapping[str, tuple[Object, NodeFacts]] = field(default_factory=dict)
    deviating: Mapping[str, Object] = field(default_factory=dict)


class NodeIndex:
    """Threads may share it: what it knows is replaced as a whole."""

    def __init__(self) -> None:
        self._parsed = _Parsed()

    def facts(
        self, nodes: list[Object], used: Iterable[str], excluded: Iterable[str], *, reachable_since: datetime | None
    ) -> NodesFacts:
        """What deviates, and how the excluded ones are; names of `used` that do not exist are gone.

        The same list again (not an equal one) costs nothing.
        """
        parsed = self._parsed
        if parsed.nodes is not nodes:
            self._parsed = parsed = _parse(nodes, parsed.by_name)
        told = {**parsed.deviating, **{name: parsed.by_name[name][0] for name in excluded if name in parsed.by_name}}
        # those few are parsed anew: whether they are stale depends on the moment
        facts = {name: node_facts(node, reachable_since) for name, node in told.items()}
        facts |= {name: NodeFacts(name, exists=False, ready=None) for name in used if name not in parsed.by_name}
        return NodesFacts(len(parsed.by_name), facts)


def _parse(nodes: list[Object], old: Mapping[str, tuple[Object, NodeFacts]]) -> _Parsed:
    new: dict[str, tuple[Object, NodeFacts]] = {}
    for node in nodes:
        name = node["metadata"]["name"]
        known = old.get(name)
        new[name] = known if known is not None and _is_same(known[0], node) else (node, node_facts(node))
    return _Parsed(nodes, new, {name: node for name, (node, facts) in new.items() if deviates(facts)})


def _is_same(one: Object, other: Object) -> bool:
    """Resource versions of one server are never used twice."""
    version = one["metadata"].get("resourceVersion")
    return version is not None and version == other["metadata"].get("resourceVersion")
