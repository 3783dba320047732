"""Rules on the stages of a run; what their configurations say is checked by `trainrun_api.chain`."""

from __future__ import annotations

from trainrun_api.rules.base import OK, Facts, Rule, Values
from trainrun_api.stages import TRAIN, is_chain, is_chain_as_written
from trainrun_api.v1alpha1 import StageSpec

_SHAPE = ("replicas", "min_replicas", "spares", "devices_per_worker")


def _stage_twice(facts: Facts) -> Values | None:
    names = [stage.name for stage in facts.spec.stages]
    twice = next((name for name in names if names.count(name) > 1), None)
    return OK if twice is None else {"got": twice}


def _has_shape(stage: StageSpec) -> bool:
    return any(getattr(stage.workers, name) is not None for name in _SHAPE)


def _one_process(facts: Facts) -> Values | None:
    shaped = next((stage for stage in facts.spec.stages if stage.kind != TRAIN and _has_shape(stage)), None)
    return OK if shaped is None else {"name": shaped.name, "kind": shaped.kind}


def _own_program(facts: Facts) -> Values | None:
    return {} if facts.spec.command and is_chain(facts.spec) else OK


def _in_bucket(facts: Facts) -> Values | None:
    path = facts.spec.checkpoint.path
    return {"path": path} if is_chain(facts.spec) and path.startswith("s3://") else OK


def _changed(facts: Facts) -> Values | None:
    if facts.old is None or facts.old.get("stages") == facts.raw.get("stages"):
        return OK
    return {} if is_chain(facts.spec) or is_chain_as_written(facts.old) else OK


_TWICE = "self.stages.filter(a, !self.stages.exists_one(b, b.name == a.name))[0].name"
_SHAPED = (
    "s.kind != 'train' && has(s.workers) && (has(s.workers.replicas) || has(s.workers.minReplicas) || "
    "has(s.workers.spares) || has(s.workers.devicesPerWorker))"
)
_FIRST_SHAPED = f"self.stages.filter(s, {_SHAPED})[0]"
_NO_CHAIN = "!has({0}.stages) || {0}.stages.size() == 0 || ({0}.stages.size() == 1 && {0}.stages[0].kind == 'train')"
_IS_NONE, _WAS_NONE = (_NO_CHAIN.format(root) for root in ("self", "oldSelf"))

RULES = (
    Rule(
        id="stage-names-unique",
        at="spec",
        child="stages",
        cel="!has(self.stages) || self.stages.all(a, self.stages.exists_one(b, b.name == a.name))",
        message="spec.stages has the name {got} twice; give each stage its own name",
        values={"got": _TWICE},
        check=_stage_twice,
    ),
    Rule(
        id="stage-of-one-process",
        at="spec",
        child="stages",
        cel=f"!has(self.stages) || !self.stages.exists(s, {_SHAPED})",
        message="spec.stages[{name}].workers sets replicas, minReplicas, spares or devicesPerWorker, but a stage of "
        "kind {kind} runs as one process; leave them out",
        values={"name": f"{_FIRST_SHAPED}.name", "kind": f"{_FIRST_SHAPED}.kind"},
        check=_one_process,
    ),
    Rule(
        id="stages-need-our-trainer",
        at="spec",
        child="command",
        cel=f"!has(self.command) || self.command.size() == 0 || {_IS_NONE}",
        message="spec.command cannot go with spec.stages, because each stage is a program of our trainer; leave one of "
        "the two out",
        check=_own_program,
    ),
    Rule(
        id="stages-in-a-folder",
        at="spec",
        child="checkpoint.path",
        cel=f"!self.checkpoint.path.startsWith('s3://') || {_IS_NONE}",
        message="spec.checkpoint.path={path} is a bucket, but stages hand models on as folders; use a path on a volume "
        "that all workers share",
        values={"path": "self.checkpoint.path"},
        check=_in_bucket,
    ),
    Rule(
        id="stages-kept",
        at="spec",
        child="stages",
        cel=f"(({_IS_NONE}) && ({_WAS_NONE})) || "
        "(has(self.stages) && has(oldSelf.stages) && self.stages == oldSelf.stages)",
        message="spec.stages cannot change during the life of a run; delete the run and create it again: stages that "
        "are complete and unchanged are not done again",
        check=_changed,
        kind="immutable",
    ),
)
