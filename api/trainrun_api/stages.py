"""The stages of a run: which there are, and the spec as each of them has it. Pure.

A run without stages, or with one of kind train, is a single stage whose checkpoints lie in checkpoint.path itself. Any
other run is a *chain*: its stages run one after another, and each has a folder of its own below checkpoint.path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from trainrun_api.train_config import TrainConfig
from trainrun_api.v1alpha1 import ResumeSpec, StageSpec, TrainingRunSpec

TRAIN = "train"
REPORT = "report"
ONLY_STAGE = StageSpec(name=TRAIN, kind=TRAIN)
"""The stage of a run that names none."""

TRAIN_CONFIGURED = frozenset({"prepare", TRAIN})
"""Kinds whose config is a TrainConfig, laid over the run's."""

MAKES_MODEL = frozenset({TRAIN, "consolidate", "merge"})
"""Kinds whose result is a model."""

ONE_PROCESS: Mapping[str, Any] = {"replicas": 1, "min_replicas": None, "spares": 0, "devices_per_worker": 1}
"""Shape of every kind but train."""

REPLACED_WHOLE = frozenset({"sources", "mix"})
"""Mappings whose keys are the user's own names: an overlay replaces them, as it does lists."""

ALTERNATIVES: Mapping[str, str] = {"path": "architecture", "architecture": "path"}
TOKENIZER_ALTERNATIVES: Mapping[str, str] = {"path": "vocab_size", "vocab_size": "path"}
"""Exactly one of a pair is given: an overlay that gives one takes the other away."""

SCHEME = "stage:"
"""`stage:NAME` in a stage's config is an output of an earlier stage: its result, or with a suffix another part."""

PARTS: Mapping[str, frozenset[str]] = {
    "": frozenset({"prepare", TRAIN, "evaluate", "consolidate", "merge"}),
    "checkpoints": frozenset({TRAIN}),
    "data": frozenset({"prepare", TRAIN}),
}
"""Part of a stage that may be named -> kinds that have it."""


class Reference(NamedTuple):
    """A `stage:NAME/part` in a stage's configuration."""

    field: str
    """Path within the stage's config, such as model.path or models[1]."""
    text: str
    stage: str
    part: str


def is_chain(spec: TrainingRunSpec) -> bool:
    """Whether the stages have folders of their own."""
    return _is_chain([stage.kind for stage in spec.stages])


def is_chain_as_written(spec: Mapping[str, Any]) -> bool:
    """The same of a spec as JSON that some version took."""
    return _is_chain([stage.get("kind") for stage in spec.get("stages") or []])


def _is_chain(kinds: list[Any]) -> bool:
    return bool(kinds) and kinds != [TRAIN]


def result_stage_as_written(spec: Mapping[str, Any]) -> str | None:
    """The stage of a chain that another run starts from: the last one that makes a model. None: it is no chain."""
    made = [str(stage.get("name")) for stage in spec.get("stages") or [] if stage.get("kind") in MAKES_MODEL]
    return made[-1] if made and is_chain_as_written(spec) else None


def stages_of(spec: TrainingRunSpec) -> list[StageSpec]:
    """All stages in their order; at least one."""
    return spec.stages or [ONLY_STAGE]


def stage_of(spec: TrainingRunSpec, name: str) -> StageSpec:
    """The stage of that name, or the first: a status that names none is of before the first attempt."""
    stages = stages_of(spec)
    return next((stage for stage in stages if stage.name == name), stages[0])


def next_stage(spec: TrainingRunSpec, name: str) -> str | None:
    """Name of the stage after that one; None: it is the last."""
    stages = stages_of(spec)
    after = stages[stages.index(stage_of(spec, name)) + 1 :]
    return after[0].name if after else None


def spec_of(spec: TrainingRunSpec, name: str) -> TrainingRunSpec:
    """The spec as that stage has it: its workers, its training configuration, where its first step comes from.

    Raises pydantic's ValidationError where `validate` would refuse the run.
    """
    stage = stage_of(spec, name)
    overlay = stage.workers.model_dump(exclude_none=True)
    shape = overlay if stage.kind == TRAIN else {**overlay, **ONE_PROCESS}
    update: dict[str, Any] = {}
    if shape:
        update["workers"] = spec.workers.model_copy(update=shape)
    if stage.config and stage.kind in TRAIN_CONFIGURED and spec.config is not None:
        written = laid_over(spec.config.model_dump(mode="json", exclude_unset=True), stage.config)
        update["config"] = TrainConfig.model_validate(written)
    if stage.name != _first_train(spec):
        update["resume"] = ResumeSpec()
    return spec.model_copy(update=update) if update else spec


def own_config(spec: TrainingRunSpec, stage: StageSpec) -> dict[str, Any]:
    """The configuration of a stage that has one of its own. A report that names no stages is about all before it."""
    if stage.kind != REPORT or stage.config.get("stages") is not None:
        return stage.config
    earlier = spec.stages[: spec.stages.index(stage)]
    return {**stage.config, "stages": [one.name for one in earlier if one.kind != REPORT]}


def laid_over(base: Mapping[str, Any], overlay: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """`base` with the overlay's values: mappings of fields key by key, all else replaced."""
    merged = dict(base)
    pairs = {"model": ALTERNATIVES, "tokenizer": TOKENIZER_ALTERNATIVES}.get(key, {})
    for name, value in overlay.items():
        merged.pop(pairs.get(name, ""), None)
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and name not in REPLACED_WHOLE:
            merged[name] = laid_over(below, value, name)
        else:
            merged[name] = value
    return merged


def references(config: Any) -> Iterator[Reference]:
    """All `stage:...` values in a stage's configuration."""
    for field, text in strings(config):
        if text.startswith(SCHEME):
            stage, _, part = text.removeprefix(SCHEME).partition("/")
            yield Reference(field, text, stage, part)


def strings(config: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """(field, text) of all strings in a configuration; the field as in `models[1]` and `model.path`."""
    if isinstance(config, str):
        yield field, config
    elif isinstance(config, Mapping):
        for name, value in config.items():
            yield from strings(value, f"{field}.{name}" if field else str(name))
    elif isinstance(config, list):
        for number, value in enumerate(config):
            yield from strings(value, f"{field}[{number}]")


def _first_train(spec: TrainingRunSpec) -> str | None:
    return next((stage.name for stage in stages_of(spec) if stage.kind == TRAIN), None)
