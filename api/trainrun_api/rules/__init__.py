"""The one table of cross-field rules: the CRD's CEL, `trainrun validate` and the docs are made from it."""

from __future__ import annotations

from trainrun_api.manifest import Problem
from trainrun_api.rules import config, later, run, stages, start, workers
from trainrun_api.rules.base import Facts, Rule, Values

RULES: tuple[Rule, ...] = (*run.RULES, *workers.RULES, *stages.RULES, *start.RULES, *config.RULES, *later.RULES)
"""In the order in which they are said; what is not yet available comes last."""

__all__ = ["RULES", "Facts", "Rule", "Values", "broken"]


def broken(facts: Facts) -> list[Problem]:
    """What the rules say of a run that is sound in its structure."""
    said = ((rule, rule.check(facts)) for rule in RULES)
    return [
        Problem(rule.path, rule.sentence(values), rule.kind, rule.id) for rule, values in said if values is not None
    ]
