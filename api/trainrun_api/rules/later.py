"""Fields whose behaviour comes with a later version: refused with a sentence, never silently ignored.

Each of these rules is deleted in the change that brings the behaviour; within v1alpha1 rules only loosen.
"""

from __future__ import annotations

from collections.abc import Callable

from trainrun_api.rules.base import OK, Facts, Rule, Values, pick

_TP = pick("parallel.tp", "1")


def _given(get: Callable[[Facts], object], *fine: object) -> Callable[[Facts], Values | None]:
    """Broken when the value is none of `fine`."""

    def check(facts: Facts) -> Values | None:
        got = get(facts)
        return OK if got in fine else {"got": got}

    return check


def _precompile(facts: Facts) -> Values | None:
    later = next((stage for stage in facts.spec.stages if stage.kind == "precompile"), None)
    return OK if later is None else {"name": later.name}


def _sifting(facts: Facts) -> Values | None:
    return {} if facts.spec.config and facts.spec.config.sifting else OK


_PRECOMPILE = "self.stages.filter(s, s.kind == 'precompile')"

RULES = (
    Rule(
        id="stage-kinds-later",
        at="spec",
        child="stages",
        cel="!has(self.stages) || self.stages.all(s, s.kind != 'precompile')",
        message="spec.stages[{name}].kind=precompile is not yet available in this version; leave that stage out",
        values={"name": f"{_PRECOMPILE}[0].name"},
        check=_precompile,
        kind="later",
    ),
    Rule(
        id="node-repair-later",
        at="spec.health",
        child="nodeRepair",
        cel="!has(self.nodeRepair) || self.nodeRepair == 'Never'",
        message="spec.health.nodeRepair={got} is not yet available in this version; use Never or leave it out",
        values={"got": "self.nodeRepair"},
        check=_given(lambda facts: facts.spec.health.node_repair, "Never"),
        kind="later",
    ),
    Rule(
        id="tp-later",
        at="spec.config",
        child="parallel",
        cel=f"{_TP} == 1",
        message="spec.config.parallel.tp={got} is not yet available in this version; use 1",
        values={"got": _TP},
        check=_given(lambda facts: facts.spec.config.parallel.tp if facts.spec.config else 1, 1),
        kind="later",
    ),
    Rule(
        id="sifting-later",
        at="spec.config",
        child="sifting",
        cel="!has(self.sifting)",
        message="spec.config.sifting is not yet available in this version; leave it out to train on every row",
        check=_sifting,
        kind="later",
    ),
)
