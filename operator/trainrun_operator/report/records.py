"""Reads a run's folder (design section 6) into one frozen value. What is missing or half written is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainrun_api.contract import CheckpointLayout
from trainrun_api.lineage import merge_metrics
from trainrun_api.page.words import parse_time
from trainrun_api.store_files import read_claims, read_metrics, read_object, read_objects
from trainrun_api.v1alpha1 import AttemptStatus, TrainingRunStatus

from trainrun_operator.stores import Store, stores_of

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Start:
    """How a worker group started: unix seconds of each phase, absent while it has not happened."""

    claim: int
    attempt: int
    generation: int
    parent_step: int | None
    instants: Mapping[str, float]
    stage: str = ""


@dataclass(frozen=True)
class Learning:
    """What one training stage learnt."""

    stage: str
    """Empty: the only one."""
    steps: tuple[Record, ...]
    """One record per step, in order; may hold an `eval`."""


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint that is still there."""

    step: int
    claim: int
    manifest: Record
    size_bytes: int


@dataclass(frozen=True)
class Replays:
    """Steps that ran again after a resume."""

    number: int
    diverged: tuple[int, ...]
    """Those whose loss was not the same to the last bit."""


@dataclass(frozen=True)
class RunRecords:
    """Everything that the page tells."""

    name: str
    manifest: Record
    status: TrainingRunStatus
    created_at: datetime | None
    ended_at: datetime | None
    """The run's end, or the last thing that was heard of it."""
    learning: tuple[Learning, ...]
    """By stage, in their order; at least one."""
    replays: Replays
    starts: tuple[Start, ...]
    events: tuple[Record, ...]
    checkpoints: tuple[Checkpoint, ...]
    data: Record
    """The data manifest, or empty."""
    export: Record
    """The export's manifest, or empty."""

    @property
    def steps(self) -> tuple[Record, ...]:
        """Of the newest training stage."""
        return self.learning[-1].steps

    @property
    def wall_seconds(self) -> float | None:
        """From creation to the end."""
        if self.created_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.created_at).total_seconds())

    @property
    def attempts(self) -> list[AttemptStatus]:
        """The attempts that status remembers (the last 20)."""
        return self.status.attempts

    @property
    def faults(self) -> list[Record]:
        """Faults that were asked for, as they happened."""
        return [event for event in self.events if event.get("type") == "fault"]

    @property
    def config(self) -> Record:
        """The resolved configuration: as trained if a checkpoint says so, else as written."""
        if self.checkpoints:
            return self.checkpoints[-1].manifest.get("config") or {}
        return self.manifest.get("spec", {}).get("config") or {}


def read(run_dir: Path) -> RunRecords:
    """Read `<workdir>/<run>/`."""
    store = run_dir / "checkpoints"
    manifest = read_object(run_dir / "status.json")
    status = TrainingRunStatus.model_validate(manifest.get("status") or {})
    events = tuple(read_objects(run_dir / "events.jsonl"))
    stores = stores_of(store)
    claims = {one: read_claims(one.path) for one in stores}
    learnt = [(one.stage, *_steps(run_dir, one, claims[one])) for one in stores]
    starts = [start for one in stores for start in _starts(one, claims[one])]
    return RunRecords(
        name=manifest.get("metadata", {}).get("name") or run_dir.name,
        manifest=manifest,
        status=status,
        created_at=parse_time(manifest.get("metadata", {}).get("creationTimestamp")),
        ended_at=parse_time(status.ended_at) or _last_time(events),
        learning=tuple(Learning(stage, steps) for stage, steps, _ in learnt),
        replays=Replays(
            sum(replays.number for _, _, replays in learnt),
            tuple(step for _, _, replays in learnt for step in replays.diverged),
        ),
        starts=tuple(starts),
        events=events,
        checkpoints=_checkpoints(stores[-1].path),
        data=next(
            (
                found
                for path in sorted((store / CheckpointLayout.DATA).glob("*/manifest.json"))
                if (found := read_object(path))
            ),
            {},
        ),
        export=read_object(stores[-1].path / CheckpointLayout.EXPORT / CheckpointLayout.MANIFEST),
    )


def unix(moment: datetime | None) -> float | None:
    """Seconds since 1970."""
    return None if moment is None else moment.timestamp()


def from_unix(seconds: float) -> datetime:
    """The moment of a timeline's instant."""
    return datetime.fromtimestamp(seconds, UTC)


def _steps(run_dir: Path, store: Store, claims: Sequence[Record]) -> tuple[tuple[Record, ...], Replays]:
    """Merged along the claim chain; a run without a store that we can read still has its metrics.jsonl."""
    lines = read_metrics(store.path)
    try:
        merged, diverged = merge_metrics(claims, lines)
    except (ValueError, KeyError):
        merged, diverged = [], []
    if not merged:
        told = (line for line in read_objects(run_dir / "metrics.jsonl") if line.get("stage", "") == store.stage)
        return tuple(told), Replays(0, ())
    ran = [line["step"] for group in lines.values() for line in group if line.get("loss_hex") is not None]
    return tuple(merged), Replays(len(ran) - len(set(ran)), tuple(sorted({int(one["step"]) for one in diverged})))


def _starts(store: Store, claims: Sequence[Record]) -> list[Start]:
    starts = []
    for claim in sorted(claims, key=lambda claim: int(claim["k"])):
        instants = read_object(store.path / CheckpointLayout.timeline(int(claim["k"])))
        parent = claim.get("parent") or {}
        starts.append(
            Start(
                claim=int(claim["k"]),
                attempt=int(claim.get("attempt", 0)),
                generation=int(claim.get("generation", 0)),
                parent_step=parent.get("step"),
                instants={name: float(value) for name, value in instants.items() if isinstance(value, float)},
                stage=store.stage,
            )
        )
    return starts


def _checkpoints(store: Path) -> tuple[Checkpoint, ...]:
    found = []
    for path in store.glob(f"step-*/{CheckpointLayout.MANIFEST}"):
        place, manifest = CheckpointLayout.parse_step_dir(path.parent.name), read_object(path)
        if place is None or not manifest:
            continue
        files = manifest.get("files") or {}
        total = sum(int(file.get("size", 0)) for file in files.values() if isinstance(file, Mapping))
        found.append(Checkpoint(step=place[0], claim=place[1], manifest=manifest, size_bytes=total))
    return tuple(sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.claim)))


def _last_time(events: tuple[Record, ...]) -> datetime | None:
    return parse_time(events[-1].get("time")) if events else None
