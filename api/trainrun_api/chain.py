"""The verdict on a manifest: structure, then the rules, then each stage's configuration. Pure.

To the API server that configuration is a mapping. A stage of kind prepare or train is looked at as a run of its own,
with its overlay in place; the sentences name the stage's field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from trainrun_api.manifest import Problem
from trainrun_api.rules import Facts, broken
from trainrun_api.stage_config import STAGE_CONFIGS
from trainrun_api.stages import PARTS, SCHEME, TRAIN_CONFIGURED, Reference, laid_over, references
from trainrun_api.structure import parse, problems_of
from trainrun_api.v1alpha1 import StageSpec, TrainingRunSpec

RULE = "stage-config"
"""Id of what has no rule of its own."""


def verdict(manifest: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[Problem]:
    """Why it would be refused, as the next version of `old` if there is one; both have their nulls removed."""
    run = parse(manifest)
    if isinstance(run, list):
        return run
    facts = Facts(manifest["metadata"]["name"], run.spec, manifest["spec"], old["spec"] if old is not None else None)
    return broken(facts) or _problems_of_stages(manifest, run.spec)


def _problems_of_stages(manifest: Mapping[str, Any], spec: TrainingRunSpec) -> list[Problem]:
    """Why the stages of a run that is sound in itself would fail."""
    found = []
    for number, stage in enumerate(spec.stages):
        where = f"spec.stages[{stage.name}].config"
        found += [_problem(where, *said) for said in _wrong_references(manifest, stage, spec.stages[:number])]
        if stage.kind in STAGE_CONFIGS:
            found += _own_config(stage, where)
        elif stage.kind in TRAIN_CONFIGURED and (stage.config or stage.workers.model_fields_set):
            found += _as_a_run(manifest, stage)
    return found


def _own_config(stage: StageSpec, where: str) -> list[Problem]:
    model = STAGE_CONFIGS[stage.kind]
    try:
        model.model_validate(stage.config)
    except ValidationError as error:
        return problems_of(error, stage.config, where, model)
    return []


def _as_a_run(manifest: Mapping[str, Any], stage: StageSpec) -> list[Problem]:
    """Problems of the manifest with this stage's overlay; without it there are none."""
    spec = manifest["spec"]
    written = next(one for one in spec["stages"] if one["name"] == stage.name)
    alone = {name: value for name, value in spec.items() if name != "stages"}
    for name in ("config", "workers"):
        if written.get(name):
            alone[name] = laid_over(spec.get(name) or {}, written[name])
    return [
        problem._replace(
            path=_renamed(problem.path, written, stage.name), message=_renamed(problem.message, written, stage.name)
        )
        for problem in verdict({**manifest, "spec": alone})
    ]


def _renamed(text: str, written: Mapping[str, Any], stage: str) -> str:
    """Fields of the run's config and workers as fields of the stage, where it gives them."""
    for name in ("config", "workers"):
        if written.get(name):
            text = text.replace(f"spec.{name}", f"spec.stages[{stage}].{name}")
    return text


def _wrong_references(
    manifest: Mapping[str, Any], stage: StageSpec, earlier: list[StageSpec]
) -> Iterator[tuple[Reference, str]]:
    """References that nothing can stand for, and why."""
    kinds = {other.name: other.kind for other in earlier}
    adapters = {other.name for other in earlier if _config(manifest, other).get("lora") is not None}
    for reference in references(_config(manifest, stage)):
        if reference.stage not in kinds:
            names = ", ".join(f"{SCHEME}{name}" for name in kinds) or "no stage, for this is the first"
            yield reference, f"names no earlier stage; use {names}"
        elif kinds[reference.stage] not in PARTS.get(reference.part, ()):
            kind = kinds[reference.stage]
            has = [f"{SCHEME}{reference.stage}{'/' if part else ''}{part}" for part, of in PARTS.items() if kind in of]
            yield reference, f"names nothing that a stage of kind {kind} has; use {' or '.join(has) or 'another stage'}"
        elif reference.part == "checkpoints" and reference.stage in adapters:
            merge = f"a stage of kind merge with adapter: {SCHEME}{reference.stage}"
            yield reference, f"holds adapters and no model; merge them by {merge}, and use its result"


def _config(manifest: Mapping[str, Any], stage: StageSpec) -> Mapping[str, Any]:
    """With what it takes from the run's, if it is a TrainConfig."""
    run = manifest["spec"].get("config") or {}
    return laid_over(run, stage.config) if stage.kind in TRAIN_CONFIGURED else stage.config


def _problem(where: str, reference: Reference, why: str) -> Problem:
    path = f"{where}.{reference.field}"
    return Problem(path, f"{path}={reference.text} {why}", "cross", RULE)
