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


def _stage_kind(facts: Facts) -> Values | None:
    other = next((stage for stage in facts.spec.stages if stage.kind != "train"), None)
    return OK if other is None else {"name": other.name, "got": other.kind}


def _one_train_stage(facts: Facts) -> Values | None:
    number = len([stage for stage in facts.spec.stages if stage.kind == "train"])
    return OK if number <= 1 else {"got": number}


def _stage_overlay(facts: Facts) -> Values | None:
    return {} if any({"config", "workers"} & stage.model_fields_set for stage in facts.spec.stages) else OK


def _sifting(facts: Facts) -> Values | None:
    return {} if facts.spec.config and facts.spec.config.sifting else OK


_OTHER_STAGE = "self.stages.filter(s, s.kind != 'train')[0]"

RULES = (
    Rule(
        id="stage-kinds-later",
        at="spec",
        child="stages",
        cel="!has(self.stages) || self.stages.all(s, s.kind == 'train')",
        message="spec.stages[{name}].kind={got} is not yet available in this version; use train, or leave stages out",
        values={"name": f"{_OTHER_STAGE}.name", "got": f"{_OTHER_STAGE}.kind"},
        check=_stage_kind,
        kind="later",
    ),
    Rule(
        id="several-stages-later",
        at="spec",
        child="stages",
        cel="!has(self.stages) || self.stages.filter(s, s.kind == 'train').size() <= 1",
        message="spec.stages has {got} stages of kind train, which is not yet available in this version; use one",
        values={"got": "self.stages.filter(s, s.kind == 'train').size()"},
        check=_one_train_stage,
        kind="later",
    ),
    Rule(
        id="stage-overlays-later",
        at="spec",
        child="stages",
        cel="!has(self.stages) || self.stages.all(s, !has(s.config) && !has(s.workers))",
        message="spec.stages[].config and spec.stages[].workers are not yet available in this version; "
        "use spec.config and spec.workers",
        check=_stage_overlay,
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
