"""What one rule answers; `settle` makes a Decision of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trainrun_api.v1alpha1 import TrainingRunStatus

from trainrun_operator.core.decision import Action
from trainrun_operator.core.outcome import Outcome
from trainrun_operator.core.situation import Situation


@dataclass(frozen=True)
class Choice:
    """An outcome, the facts of its sentence, and what shall be written and done."""

    outcome: Outcome
    facts: Mapping[str, object] = field(default_factory=dict)
    status: TrainingRunStatus | None = None
    """None: as the situation has it."""
    actions: tuple[Action, ...] = ()
    wake: datetime | None = None
    is_suspect: bool = False
    """The poller shall ask often, and every pod."""

    @property
    def message(self) -> str:
        """The sentence for people."""
        return self.outcome.template.format(**self.facts)


Rule = Callable[[Situation], Choice | None]
"""Answers if it applies, None if the next rule shall look. Its docstring is its row in docs/rules.md."""
