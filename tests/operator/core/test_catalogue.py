"""The generated page says everything."""

from __future__ import annotations

from pathlib import Path

from trainrun_operator.core.catalogue import page
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


def test_generate_writes_the_page(tmp_path: Path):
    """Where docs/ is."""
    (tmp_path / "docs").mkdir()
    main(tmp_path)
    assert (tmp_path / "docs" / "rules.md").read_text() == page()
