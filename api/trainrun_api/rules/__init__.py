"""The one table of cross-field rules: the CRD's CEL, `trainrun validate` and the docs are made from it."""

from __future__ import annotations

from trainrun_api.rules import config, later, run, start, workers
from trainrun_api.rules.base import Facts, Rule, Values

RULES: tuple[Rule, ...] = (*run.RULES, *workers.RULES, *start.RULES, *config.RULES, *later.RULES)
"""In the order in which they are said; what is not yet available comes last."""

__all__ = ["RULES", "Facts", "Rule", "Values"]
