"""What one outcome of a decision is; `reasons` lists them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kstatus = Literal["Ready", "Reconciling", "Stalled"]
"""Ready: as the spec wants it, so it trains, has succeeded, or rests; Reconciling: on the way; Stalled: a person must
act. Rest is Ready too: Flux and `helm --wait` take anything else for unfinished and would wait for ever."""


@dataclass(frozen=True)
class Outcome:
    """One way in which a pass can end."""

    reason: str
    phase: str
    kstatus: Kstatus
    event: Literal["Normal", "Warning"] | None
    """None: no Event, the state is not news."""
    goodput: str
    """Class on which the wall seconds from now on are booked (goodput.CLASSES)."""
    template: str
    """The sentence, with named facts."""
    meaning: str
    """What is going on, for docs/conditions.md."""
    todo: str
    """What a person should do about it, for docs/conditions.md."""
