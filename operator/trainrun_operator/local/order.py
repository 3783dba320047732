"""What `trainrun run` was asked to do, and every reason not to do it. Starts nothing and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from trainrun_api.manifest import load_manifest
from trainrun_api.stages import TRAIN, spec_of, stages_of
from trainrun_api.structure import without_nulls
from trainrun_api.v1alpha1 import StageSpec, TrainingRunSpec
from trainrun_api.validate import Problem, validate_file, validate_update

from trainrun_operator.cluster import Object
from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.faults import Plan, UnknownFaultError, plan_faults
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.state import stored_run


class Exit(IntEnum):
    """Exit codes of `trainrun run`."""

    SUCCEEDED = 0
    FAILED = 1
    USAGE = 2
    IN_USE = 3
    STOPPED = 10
    REFUSED = 20


class ManifestRefusedError(LocalModeError):
    """The manifest cannot be run; the sentences say why."""


@dataclass(frozen=True)
class Order:
    """The command's arguments."""

    file: Path
    workdir: Path
    nodes: int | None = None
    """Slots; None: one more than there are workers, so that a lost node has a successor at once."""
    faults: tuple[str, ...] = ()
    folder: Path | None = None
    """Where relative paths of the manifest begin; None: where its file is."""


def checked_manifest(file: Path) -> Object:
    """The manifest in a file. Raises ManifestRefusedError with one sentence per problem."""
    _refuse(validate_file(file))
    manifest = load_manifest(file)
    path = str(manifest["spec"]["checkpoint"]["path"])
    if path.startswith("s3://"):
        raise ManifestRefusedError(
            f"spec.checkpoint.path={path} is for clusters: local mode keeps checkpoints in its workdir; give an "
            "absolute path, for which a folder there stands"
        )
    return manifest


def refuse_without_parent(manifest: Object, workdir: Path) -> None:
    """Nothing would ever start a run that has to come first. Raises ManifestRefusedError."""
    parent = (manifest["spec"].get("resume") or {}).get("run")
    if parent is None:
        return
    found = stored_run(RunDir(workdir / parent))
    result = result_of(found) if found is not None else None
    if result != "Succeeded":
        state = "is not there" if found is None else f"has not succeeded (result: {result or 'none yet'})"
        raise ManifestRefusedError(
            f"spec.resume.run={parent} {state} in {workdir}; run it there first, this one starts from its result"
        )


def planned_faults(faults: Sequence[str], spec: Object) -> Plan:
    """Faults of the command line against this spec. Raises UnknownFaultError."""
    if not faults:
        return Plan()
    if spec.get("command"):
        raise UnknownFaultError("--fault needs the steps of our trainer, and spec.command starts another program")
    trained = [one for stage, one in _stages(spec) if stage.kind == TRAIN]
    world_size = max((one.workers.replicas * one.workers.devices_per_worker for one in trained), default=0)
    steps = max((one.config.total_steps for one in trained if one.config is not None), default=0)
    return plan_faults(faults, steps, world_size)


def number_of_slots(order: Order, spec: Object) -> int:
    """As asked, or one more than the largest stage has workers and spares."""
    if order.nodes is not None:
        return order.nodes
    return max(one.workers.replicas + one.workers.spares for _, one in _stages(spec)) + 1


def _stages(spec: Object) -> list[tuple[StageSpec, TrainingRunSpec]]:
    """Each stage with the spec as it has it."""
    whole = TrainingRunSpec.model_validate(without_nulls(spec))
    return [(stage, spec_of(whole, stage.name)) for stage in stages_of(whole)]


def earlier_start(run_dir: RunDir, manifest: Object) -> Object | None:
    """The run as an earlier start left it; None if there was none.

    Raises ManifestRefusedError when the manifest changes what is immutable.
    """
    stored = stored_run(run_dir)
    if stored is None or result_of(stored) is not None:
        return stored
    before = {key: stored[key] for key in ("apiVersion", "kind", "metadata", "spec")}
    _refuse(validate_update(before, manifest))
    return stored


def result_of(run: Object) -> str | None:
    """Succeeded, Failed, or None while it is not over."""
    result: str | None = (run.get("status") or {}).get("result")
    return result


def verdict_of(run: Object) -> str:
    """The result with the sentence that goes with it."""
    ready: Object = next((c for c in run["status"].get("conditions") or [] if c["type"] == "Ready"), {})
    return f"{result_of(run)}. {ready.get('message', '')}".strip().rstrip(".")


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise ManifestRefusedError("\n".join(problem.message for problem in problems))
