"""One pod's progress from its ranks' files, and the run's from all pods. Ages are computed when asked."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from trainrun_api.contract import SCHEMA, Progress

_KNOWN = {f.name for f in fields(Progress)}


class StepClock:
    """When each local rank's step was seen to change, for programs that report a step but no instant."""

    def __init__(self) -> None:
        self._seen: Dict[int, Tuple[Any, float]] = {}

    def instant(self, record: Mapping[str, Any], now: float) -> Optional[float]:
        """Monotonic instant of the record's last step: its own word, or when we first saw that step."""
        if record.get("step_monotonic") is not None:
            return float(record["step_monotonic"])
        if record.get("step") is None:
            return None
        local_rank = int(record["local_rank"])
        if self._seen.get(local_rank, (None, 0.0))[0] != record["step"]:
            self._seen[local_rank] = (record["step"], now)
        return self._seen[local_rank][1]


def pod_progress(
    identity: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    launcher: Mapping[str, Any],
    samples: Mapping[int, Mapping[str, Any]],
    clock: StepClock,
    now: float,
) -> Dict[str, Any]:
    """contract.Progress of this pod; `samples` are the device facts by local rank, `now` is monotonic."""
    leading = min(records, key=_rank) if records else {}
    answer = {name: value for name, value in leading.items() if name in _KNOWN}
    answer.update({name: identity[name] for name in ("run", "attempt", "stage")})
    answer["schema"] = leading.get("schema", SCHEMA)
    answer["step_age_seconds"] = _age(clock.instant(leading, now) if leading else None, now)
    answer["durable_checkpoint"] = _durable(leading.get("durable_checkpoint"), now)
    answer["inplace_restarts"] = launcher.get("inplace_restarts", leading.get("inplace_restarts", 0))
    generation = launcher.get("generation", leading.get("generation", 0))
    if generation != leading.get("generation", generation):
        answer["phase"] = "starting"  # the file is still the dead generation's
    answer["generation"] = generation
    answer["workers"] = [
        {
            "pod_index": identity["pod_index"],
            **{name: r[name] for name in ("rank", "local_rank", "pid", "phase", "step") if r.get(name) is not None},
            **samples.get(int(r["local_rank"]), {}),
        }
        for r in records
    ]
    answer["heard"] = {}
    return Progress(**answer).__dict__.copy()


def run_progress(own: Dict[str, Any], peers: Mapping[int, Tuple[Mapping[str, Any], float]]) -> Dict[str, Any]:
    """The whole run as worker 0 sees it: `peers` holds, by pod index, the last answer and its age in seconds.

    The newest generation speaks; of it those who have made a step, and of these the lowest rank. A pod that was cut off
    leaves its last answer for ever: whoever took over from it has its rank, and it may have been asked last while it
    started, though all ranks have made steps since.
    """
    leading: Dict[str, Any] = own
    best = _precedence(own)
    for _, (answer, age) in sorted(peers.items()):
        if answer.get("workers") and _precedence(answer) < best:
            best = _precedence(answer)
            leading = _aged(answer, age)
    merged = {**leading, "run": own["run"], "attempt": own["attempt"], "stage": own["stage"]}
    merged["workers"] = list(own["workers"])
    for _, (answer, _age_seconds) in sorted(peers.items()):
        merged["workers"].extend(answer.get("workers") or [])
    merged["inplace_restarts"] = max([own["inplace_restarts"], *(_count(a) for a, _ in peers.values())])
    merged["heard"] = {str(index): round(age, 3) for index, (_, age) in sorted(peers.items())}
    return merged


def _count(answer: Mapping[str, Any]) -> int:
    return int(answer.get("inplace_restarts") or 0)


def _rank(record: Mapping[str, Any]) -> int:
    return int(record.get("rank", record["local_rank"]))


def _precedence(answer: Mapping[str, Any]) -> Tuple[int, bool, float]:
    """Lower speaks first."""
    return -int(answer.get("generation") or 0), answer.get("step_age_seconds") is None, _pod_rank(answer)


def _pod_rank(answer: Mapping[str, Any]) -> float:
    """Lowest rank among a pod's workers: rank 0 knows the loss."""
    ranks: List[int] = [int(w["rank"]) for w in answer.get("workers") or [] if w.get("rank") is not None]
    return min(ranks) if ranks else float("inf")


def _aged(answer: Mapping[str, Any], age: float) -> Dict[str, Any]:
    """An answer as it stands `age` seconds later; only fields that we know."""
    later = {name: value for name, value in answer.items() if name in _KNOWN}
    if later.get("step_age_seconds") is not None:
        later["step_age_seconds"] = round(later["step_age_seconds"] + age, 3)
    durable = later.get("durable_checkpoint")
    if durable and durable.get("age_seconds") is not None:
        later["durable_checkpoint"] = {**durable, "age_seconds": round(durable["age_seconds"] + age, 3)}
    return later


def _age(instant: Optional[float], now: float) -> Optional[float]:
    return None if instant is None else round(max(0.0, now - instant), 3)


def _durable(raw: Optional[Mapping[str, Any]], now: float) -> Optional[Dict[str, Any]]:
    if not raw:
        return None
    durable = {name: value for name, value in raw.items() if name != "committed_monotonic"}
    if raw.get("committed_monotonic") is not None:
        durable["age_seconds"] = _age(float(raw["committed_monotonic"]), now)
    return durable
