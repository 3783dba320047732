"""Faults that a user asks for: `KIND@step=N[,rank=K]` and `corrupt-checkpoint@latest`.

A fault at step N is a file in `$TRAINRUN_FAULTS`. The worker that completed step N finds it, says that it waits
(`<id>.held`) and waits until `<id>.done` exists; the supervisor writes that file before it does the deed, so each
fault happens once per run, whoever dies in between.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.corruption import corrupt_newest
from trainrun_operator.local.disk import read_json, write_json
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.pod_process import POD_FOLDER
from trainrun_operator.local.process import ProcessId, Tree, environment_value, halt
from trainrun_operator.stores import stores_of

Kind = Literal["lose-node", "kill-worker", "hang-worker", "kill-operator"]
KINDS: tuple[Kind, ...] = ("lose-node", "kill-worker", "hang-worker", "kill-operator")
RESUMING = frozenset({"lose-node", "kill-worker", "hang-worker"})
"""Kinds after which training resumes from a checkpoint."""
CORRUPT = "corrupt-checkpoint"
FORMS = (
    "lose-node@step=N, kill-worker@step=N, hang-worker@step=N, kill-operator@step=N "
    "(each with an optional ,rank=K) or corrupt-checkpoint@latest"
)
PATTERN = re.compile(r"(?P<kind>[a-z-]+)@step=(?P<step>\d+)(,rank=(?P<rank>\d+))?")
LAST_RANK = -1


class UnknownFaultError(LocalModeError):
    """A fault that does not exist or cannot happen in this run."""


@dataclass(frozen=True)
class Fault:
    """One fault at a step; `rank` is the worker that is held there."""

    id: str
    kind: Kind
    step: int
    rank: int = LAST_RANK

    def __str__(self) -> str:
        rank = "" if self.rank == LAST_RANK else f",rank={self.rank}"
        return f"{self.kind}@step={self.step}{rank}"


@dataclass(frozen=True)
class Plan:
    """What is to happen: faults in the order of their steps, and before which of them a checkpoint is corrupted."""

    faults: tuple[Fault, ...] = ()
    corrupt_before: str | None = None
    """Id of the last fault that causes a resume."""


def plan_faults(specs: Sequence[str], total_steps: int, world_size: int) -> Plan:
    """Parse `--fault` values. Raises UnknownFaultError with the valid forms."""
    faults: list[Fault] = []
    wants_corruption = False
    for text in specs:
        if text == f"{CORRUPT}@latest":
            wants_corruption = True
            continue
        match = PATTERN.fullmatch(text)
        if match is None or match["kind"] not in KINDS:
            raise UnknownFaultError(f"--fault {text} is not known; use {FORMS}")
        step, rank = int(match["step"]), int(match["rank"]) if match["rank"] else LAST_RANK
        if not 1 <= step <= total_steps:
            raise UnknownFaultError(f"--fault {text} never happens: the run has steps 1 to {total_steps}")
        if rank >= world_size:
            raise UnknownFaultError(f"--fault {text} never happens: the run has ranks 0 to {world_size - 1}")
        kind = next(k for k in KINDS if k == match["kind"])
        faults.append(Fault(_id(kind, step, rank, faults), kind, step, rank))
    if wants_corruption and not any(f.kind in RESUMING for f in faults):
        step = max(1, total_steps // 2)
        faults.append(Fault(_id("lose-node", step, LAST_RANK, faults), "lose-node", step))
    faults.sort(key=lambda f: (f.step, f.id))
    resuming = [f.id for f in faults if f.kind in RESUMING]
    return Plan(tuple(faults), resuming[-1] if wants_corruption else None)


def _id(kind: str, step: int, rank: int, others: Sequence[Fault]) -> str:
    """The same words give the same id in every start; the second of equal ones gets a number."""
    base = f"{kind}-{step}" + (f"-rank{rank}" if rank != LAST_RANK else "")
    same = sum(1 for f in others if f.id.split(".")[0] == base)
    return f"{base}.{same + 1}" if same else base


class FaultMaker:
    """Arms the plan and does what is due."""

    def __init__(self, run_dir: RunDir, plan: Plan) -> None:
        self._dir = run_dir
        self._plan = plan

    def arm(self) -> None:
        """Write the requests, before any worker starts; those of an earlier start that are not asked for go."""
        wanted = {f.id: f for f in self._plan.faults}
        for path in self._dir.faults.glob("*.json"):
            if path.stem not in wanted:
                path.unlink()
        for fault in wanted.values():
            request = {"id": fault.id, "kind": fault.kind, "step": fault.step, "rank": fault.rank}
            write_json(self._dir.faults / f"{fault.id}.json", request)

    def unfired(self) -> list[Fault]:
        """Faults that have not happened."""
        return [f for f in self._plan.faults if not self._mark(f.id, "done").exists()]

    def act(self, operator_pid: int | None) -> list[dict[str, Any]]:
        """Do the faults whose worker is held; returns what was done, one record each."""
        records: list[dict[str, Any]] = []
        for fault in self.unfired():
            held = read_json(self._mark(fault.id, "held"))
            holder = _holder(held) if held is not None else None
            if holder is None or (fault.kind == "kill-operator" and operator_pid is None):
                continue  # nobody waits, or a worker that died waiting: its successor will come by
            if fault.kind != "kill-operator":
                halt(holder.worker)  # or it would go on as soon as it sees `.done`
            if fault.id == self._plan.corrupt_before:
                records += self._corrupt(held)
            write_json(self._mark(fault.id, "done"), held)
            effect = self._do(fault, holder, operator_pid)
            records.append(_record(str(fault), fault.kind, effect, held))
        return records

    def _do(self, fault: Fault, holder: Holder, operator_pid: int | None) -> str:
        match fault.kind:
            case "kill-worker":
                os.kill(holder.worker, signal.SIGKILL)
                return f"worker process {holder.worker} on {holder.node} killed"
            case "hang-worker":
                return f"worker process {holder.worker} on {holder.node} stopped; it does not move any more"
            case "lose-node":
                (self._dir.lost_nodes / holder.node).touch()  # first: nobody may report the deaths that follow
                holder.pod.kill()
                return f"{holder.node} is gone with everything on it"
            case "kill-operator":
                assert operator_pid is not None
                os.kill(operator_pid, signal.SIGKILL)
                return f"operator process {operator_pid} killed"

    def _corrupt(self, held: Mapping[str, Any]) -> list[dict[str, Any]]:
        done = self._mark(CORRUPT, "done")
        if done.exists():
            return []
        write_json(done, {})
        effect = corrupt_newest(stores_of(self._dir.checkpoints)[-1].path)
        return [_record(f"{CORRUPT}@latest", CORRUPT, effect, held)]

    def _mark(self, fault_id: str, suffix: str) -> Path:
        return self._dir.faults / f"{fault_id}.{suffix}"


def _record(fault: str, kind: str, effect: str, held: Mapping[str, Any]) -> dict[str, Any]:
    """A line for events.jsonl."""
    facts = {"attempt": held.get("attempt"), "step": held.get("step")}
    return {"type": "fault", "fault": fault, "reason": kind, "message": effect, **facts}


@dataclass(frozen=True)
class Holder:
    """The worker that waits: its pid, its pod, and the node of both."""

    worker: int
    pod: Tree
    node: str


def _holder(held: Mapping[str, Any]) -> Holder | None:
    """Who waits; None when that process has died or is none of a pod's."""
    pid = int(held["pid"])
    folder = environment_value(pid, POD_FOLDER)
    record = read_json(Path(folder) / "record.json") if folder else None
    if folder is None or record is None or ProcessId.of(pid) is None:
        return None
    return Holder(pid, Tree(ProcessId.from_json(record["process"]), POD_FOLDER, folder), record["node"])
