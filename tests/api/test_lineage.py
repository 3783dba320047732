"""The history of a run, told by its claims."""

from __future__ import annotations

from typing import Any

import pytest
from trainrun_api import lineage


def claim(k: int, parent: tuple[int, int] | None) -> dict[str, Any]:
    """A claim; `parent` is (step, claim)."""
    return {"k": k, "parent": None if parent is None else {"step": parent[0], "claim": parent[1]}}


def line(step: int, loss: float, number: int, **more: Any) -> dict[str, Any]:
    """A metrics line."""
    return {"step": step, "loss": loss, "loss_hex": loss.hex(), "claim": number, **more}


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param([], [], id="no claim"),
        pytest.param([claim(1, None)], [(1, -1, None)], id="first start"),
        pytest.param([claim(1, None), claim(2, (20, 1))], [(2, 20, None), (1, -1, 20)], id="one resume"),
        pytest.param(
            [claim(1, None), claim(2, (20, 1)), claim(3, (10, 1))], [(3, 10, None), (1, -1, 10)],
            id="claim 2 committed nothing that counts",
        ),
        pytest.param([claim(1, None), claim(2, None)], [(2, -1, None)], id="started again from nothing"),
        pytest.param(
            [claim(3, (40, 2)), claim(1, None), claim(2, (20, 1))], [(3, 40, None), (2, 20, 40), (1, -1, 20)],
            id="order of reading does not matter",
        ),
    ],
)  # fmt: skip
def test_chain_follows_parents(claims: list[dict[str, Any]], expected: list[lineage.Span]) -> None:
    """The newest claim, then its parents, each up to the step that its child started from."""
    assert lineage.chain(claims) == expected


@pytest.mark.parametrize(
    "claims", [[claim(2, (5, 1))], [claim(1, (5, 2)), claim(2, (5, 1))][:1], [claim(2, (1, 2))]],
    ids=["missing", "younger and missing", "itself"],
)  # fmt: skip
def test_chain_refuses_broken_parents(claims: list[dict[str, Any]]) -> None:
    """A history with a hole is not guessed."""
    with pytest.raises(ValueError, match="claim"):
        lineage.chain(claims)


def test_merge_has_one_line_per_step_from_the_claim_that_counts() -> None:
    """Steps that an older claim ran beyond its child's parent are replaced, and told if they differ."""
    claims = [claim(1, None), claim(2, (2, 1))]
    lines = {
        1: [line(1, 9.0, 1), line(2, 8.0, 1), line(3, 7.0, 1), line(4, 6.0, 1)],
        2: [line(3, 7.0, 2), line(4, 6.5, 2), line(5, 5.0, 2)],
    }
    merged, diverged = lineage.merge_metrics(claims, lines)
    assert [(m["step"], m["claim"]) for m in merged] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    assert diverged == [{"step": 4, "claim": 1, "loss_hex": (6.0).hex(), "kept_claim": 2, "kept_loss_hex": (6.5).hex()}]


def test_merge_puts_evaluations_into_their_steps() -> None:
    """A line without loss is an evaluation; after a resume it belongs to the parent's last step."""
    evaluation = {"step": 2, "loss": None, "loss_hex": None, "claim": 2, "eval": {"a": {"loss": 1.0}}}
    start = {"step": 0, "loss": None, "loss_hex": None, "claim": 1, "eval": {"a": {"loss": 3.0}}}
    merged, diverged = lineage.merge_metrics(
        [claim(1, None), claim(2, (2, 1))], {1: [start, line(1, 9.0, 1), line(2, 8.0, 1)], 2: [evaluation]}
    )
    assert [m["step"] for m in merged] == [0, 1, 2]
    assert merged[0]["eval"] == {"a": {"loss": 3.0}}
    assert merged[2]["loss"] == 8.0
    assert merged[2]["eval"] == {"a": {"loss": 1.0}}
    assert not diverged


def test_evaluations_beyond_the_parent_do_not_count() -> None:
    """What a fenced claim evaluated is not the run's."""
    late = {"step": 4, "loss": None, "loss_hex": None, "claim": 1, "eval": {"a": {"loss": 0.1}}}
    merged, _ = lineage.merge_metrics(
        [claim(1, None), claim(2, (2, 1))], {1: [line(4, 6.0, 1), late], 2: [line(4, 6.0, 2)]}
    )
    assert merged == [line(4, 6.0, 2)]


def test_a_torn_last_line_is_left_out() -> None:
    """A worker may have died while it wrote."""
    assert lineage.read_lines('{"step":1}\n\n{"step":2}\n{"st') == [{"step": 1}, {"step": 2}]
    assert lineage.read_lines("") == []
