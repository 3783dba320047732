"""The generated page says everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainrun_operator.core import reasons
from trainrun_operator.core.catalogue import conditions_page, page
from trainrun_operator.core.conditions import FRESHNESS, PHASES, TYPES
from trainrun_operator.core.decide import NO_OPEN_ATTEMPT, OPEN_ATTEMPT, WHOLE_RUN
from trainrun_operator.core.failure_policy import CAUSES
from trainrun_operator.core.rules.always import ALWAYS
from trainrun_operator.core.verdict import (
    CAUSE_OF_DISRUPTION,
    CAUSE_OF_POD_REASON,
    CAUSE_OF_SHELL_EXIT,
    CAUSE_OF_SIGNAL,
)
from trainrun_operator.generate import main


def test_every_rule_has_a_row_of_its_own_words():
    """Name and docstring."""
    text = page()
    for rule in (*WHOLE_RUN, *OPEN_ATTEMPT, *NO_OPEN_ATTEMPT, *ALWAYS):
        assert f"| `{rule.__name__}` | {' '.join(rule.__doc__.split())} |" in text


def test_every_cause_that_a_verdict_names_has_a_policy():
    """Otherwise decide would not be total."""
    named = [
        *CAUSE_OF_SIGNAL.values(),
        *CAUSE_OF_SHELL_EXIT.values(),
        *CAUSE_OF_DISRUPTION.values(),
        *CAUSE_OF_POD_REASON.values(),
    ]
    assert set(named) <= set(CAUSES)


def test_every_reason_says_what_it_means_and_what_to_do():
    """One row each, under the condition that is True; whoever adds an outcome writes both."""
    text = conditions_page()
    for outcome in reasons.ALL.values():
        row = (f"`{outcome.reason}`", outcome.phase, outcome.meaning, outcome.todo, outcome.event or "none")
        section = text.split(f"### {outcome.kstatus}: ")[1].split("##")[0]
        assert section.count("| " + " | ".join(row) + " |\n") == 1
    for reason, fresh in FRESHNESS.items():
        assert text.count(f"| `{reason}` | {fresh.status} | {fresh.meaning} | {fresh.todo} |\n") == 1


@pytest.mark.parametrize("said", [*reasons.ALL.values(), *FRESHNESS.values()], ids=lambda said: said.reason)
def test_explanations_are_sentences(said):
    """Short enough for a table row, whole enough for 3 a.m."""
    for text in (said.meaning, said.todo):
        assert text[0].isupper()
        assert text.endswith(".")
        assert len(text) <= 120


def test_types_and_phases_are_the_ones_in_use():
    """None is missing, none is left over."""
    text = conditions_page()
    assert set(PHASES) == {o.phase for o in reasons.ALL.values()}
    assert set(TYPES) == {o.kstatus for o in reasons.ALL.values()} | {"Completed", "CheckpointFresh"}
    head, phases = text.split("## Reasons\n")[0], text.split("## Phases\n")[1]
    assert all(head.count(f"\n| `{name}` | ") == 1 for name in TYPES)
    assert all(phases.count(f"\n| `{name}` | ") == 1 for name in PHASES)


def test_generate_writes_the_pages(tmp_path: Path):
    """Where docs/ is."""
    (tmp_path / "docs").mkdir()
    main(tmp_path)
    assert (tmp_path / "docs" / "rules.md").read_text() == page()
    assert (tmp_path / "docs" / "conditions.md").read_text() == conditions_page()
