"""What a supervisor tells its user; the terminal side of it lives in `cli`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainrun_operator.cluster import Object


@dataclass(frozen=True)
class Snapshot:
    """The run at one instant, as status and the agents tell it."""

    run: Object
    progress: Mapping[str, Any] = field(default_factory=dict)
    """contract.Progress of the whole run as worker 0's agent answers; empty when nobody answers."""
    last_decision: Mapping[str, Any] = field(default_factory=dict)
    """Newest line of events.jsonl."""


class Observer(Protocol):
    """Shows a run to a person."""

    def say(self, text: str) -> None:
        """A sentence of the supervisor itself."""
        ...

    def event(self, record: Mapping[str, Any]) -> None:
        """A line that was added to events.jsonl."""
        ...

    def snapshot(self, snapshot: Snapshot) -> None:
        """The present state, several times a second."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...
