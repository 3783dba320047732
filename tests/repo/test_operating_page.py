"""docs/operating.md names every right and every metric of the operator, with what the code says about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainrun_operator.kube import rbac
from trainrun_operator.kube.rbac import Grant
from trainrun_operator.metrics import Metrics, StateCollector

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operating.md").read_text()
LINES_AT_MOST = 350

GRANTS = [g for group in vars(rbac).values() if isinstance(group, tuple) for g in group if isinstance(g, Grant)]


def families() -> dict[str, set[str]]:
    """Every metric of ours with its labels, once each has a sample."""
    metrics = Metrics()
    status = {"phase": "Running", "attempts": [{}], "goodput": {"secondsByClass": {"training": 1.0}}}
    metrics.watch_state(StateCollector(lambda: [{"status": status}], lambda: 0, lambda: {"Pod": 1.0}, lambda: 0.0))
    metrics.observe_call("get", "trainingruns", "200")
    metrics.observe_pass("ok", 0.1)
    metrics.observe_line({"type": "decision", "rule": "r", "reason": "r"})
    metrics.observe_action("CreateJob", "done")
    return {
        family.name + ("_total" if family.type == "counter" else ""): {
            label for sample in family.samples for label in sample.labels
        }
        - {"le"}
        for family in metrics.registry.collect()
        if family.name.startswith("trainrun_")
    }


@pytest.mark.parametrize("grant", GRANTS, ids=lambda grant: grant.feature)
def test_every_right_is_explained(grant: Grant) -> None:
    """A row with its resources, verbs and reason."""
    resources = ", ".join(f"`{name}`" for name in grant.resources)
    assert f"| {resources} | {', '.join(grant.verbs)} | {grant.feature} |" in PAGE


def test_no_right_is_explained_that_does_not_exist() -> None:
    """The table has no other rows."""
    table = PAGE.split("\n## Rights\n")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len([row for row in rows if not row.startswith("| ---")]) == len(GRANTS)


@pytest.mark.parametrize(("name", "labels"), families().items(), ids=families())
def test_every_metric_is_explained(name: str, labels: set[str]) -> None:
    """A row with its name and labels."""
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"{name} has no row in docs/operating.md"
    told = {part.strip(" `") for part in rows[0].split("|")[2].split(",")} - {""}
    assert told == labels


def test_the_page_stays_short() -> None:
    """It is read at night."""
    assert len(PAGE.splitlines()) <= LINES_AT_MOST
