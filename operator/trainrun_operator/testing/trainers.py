"""Modelled trainers: groups of pods that start, step, save, stop, hang and end together, and answer for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainrun_api.contract import CAUSE_OF_EXIT, SCHEMA, Env, Label, Progress, TerminationMessage
from trainrun_api.stages import TRAIN

from trainrun_operator.cluster import Key, Object, ProgressAnswer
from trainrun_operator.core.observed import REFUSED
from trainrun_operator.errors import Conflict, NotFound
from trainrun_operator.job_controller import JOB_NAME_LABEL, REPLICA_INDEX_LABEL
from trainrun_operator.objects import ObjectStore, timestamp
from trainrun_operator.testing.bucket import Bucket, Claim, ClaimRefusedError
from trainrun_operator.testing.clock import FakeClock
from trainrun_operator.testing.manifests import env_of, key_of, phase_of

COLLECTIVE_TIMEOUT_SECONDS = 120.0
"""Members of a broken group notice at last."""

TOOL_UNITS = 5
"""Steps of a stage that does not train."""

SEAT_SECONDS = 4.0
"""After that a pod that waits warm takes a lost member's seat; and as long again until all have loaded."""


@dataclass
class Pace:
    """How fast the modelled trainer is, in seconds."""

    start: float = 5.0
    step: float = 1.0
    save_every_steps: int = 10
    save: float = 2.0


class Member(NamedTuple):
    """A pod of a group."""

    name: str
    uid: str


@dataclass
class Group:
    """The trainer of one job: its pods start, step and end together."""

    job_uid: str
    run: Key
    run_uid: str
    attempt: int
    pods: dict[int, Member]
    total_steps: int
    is_training: bool
    bucket: Bucket
    starts_at: float
    claim: Claim | None = None
    step: int = 0
    step_at: float | None = None
    durable: tuple[int, float] | None = None
    is_hung: bool = False
    breaks_at: float | None = None
    stops_at: float | None = None
    exit_code: int = 10
    """With which it ends after a stop."""
    deadline: float | None = None
    inplace_restarts: int = 0
    program_error_at: int | None = None
    """Step after which the program raises, always the same error."""
    is_over: bool = False


class Trainers:
    """The groups of all jobs, and their agents."""

    def __init__(self, clock: FakeClock, store: ObjectStore, pace: Pace | None) -> None:
        self.clock = clock
        self.store = store
        self.pace = pace or Pace()
        self.buckets: dict[str, Bucket] = {}
        self.groups: dict[str, Group] = {}
        self.dead: dict[str, float] = {}
        """Dead nodes and when they died."""
        self.mute: set[str] = set()
        """Nodes whose agents cannot be reached."""
        self.program: Callable[[Group], None] = lambda group: None
        """Called when a group starts: a test may give it a program error."""
        self.resumed: list[tuple[str, int, int]] = []
        """(run, attempt, step) of each start of a group."""

    def answer(self, pod: Object) -> ProgressAnswer:
        """What the pod's agent says."""
        node = pod["spec"].get("nodeName")
        current = self.store.get("Pod", key_of(pod))
        if node in self.dead or node in self.mute:
            return ProgressAnswer(None, "timeout")
        if current is None or phase_of(current) != "Running":
            return ProgressAnswer(None, REFUSED)
        return ProgressAnswer(json.loads(self._record(pod, self._group_of(pod)).to_json()))

    def _record(self, pod: Object, group: Group | None) -> Progress:
        labels = pod["metadata"]["labels"]
        attempt = int(labels[Label.ATTEMPT])
        if group is None or group.claim is None:
            return Progress(run=labels[Label.RUN], attempt=attempt, phase="starting", heard=self._heard(pod, group))
        now = self.clock.monotonic()
        durable = group.durable
        return Progress(
            run=labels[Label.RUN],
            attempt=attempt,
            generation=group.claim.generation,
            inplace_restarts=group.inplace_restarts,
            phase="training",
            step=group.step,
            total_steps=group.total_steps,
            loss=round(5.0 / (1 + group.step), 6),
            step_age_seconds=None if group.step_at is None else now - group.step_at,
            slowest_step_seconds=self.pace.step,
            durable_checkpoint=None if durable is None else {"step": durable[0], "age_seconds": now - durable[1]},
            workers=[{"pod_index": index, "rank": rank} for rank, index in enumerate(sorted(group.pods))],
            heard=self._heard(pod, group),
        )

    def _heard(self, pod: Object, group: Group | None) -> dict[str, float]:
        if group is None:
            return {}
        ages = {}
        for peer in self._pods_of_job(pod["metadata"]["labels"][JOB_NAME_LABEL], group.run.namespace):
            died = self.dead.get(peer["spec"].get("nodeName") or "")
            ages[peer["metadata"]["labels"][REPLICA_INDEX_LABEL]] = (
                0.5 if died is None else self.clock.monotonic() - died
            )
        return ages

    def _pods_of_job(self, job: str, namespace: str) -> list[Object]:
        """Those that run, or ran until their node died."""
        pods = self.store.list("Pod", {JOB_NAME_LABEL: job}, namespace=namespace)
        return [p for p in pods if phase_of(p) == "Running" and "deletionTimestamp" not in p["metadata"]]

    def _form_group(self, job: Object) -> None:
        uid, labels = job["metadata"]["uid"], job["metadata"]["labels"]
        key = Key(job["metadata"]["namespace"], labels[Label.RUN])
        name = job["metadata"]["name"]
        pods = self._pods_of_job(name, key.namespace)
        seats = int(job["spec"]["elasticPolicy"]["maxReplicas"])
        running = dict(sorted(_members(pods).items())[:seats])
        known = self.groups.get(uid)
        if len(running) < seats or 0 not in running:
            return
        if known is not None and set(known.pods.values()) & set(running.values()):
            return  # a replaced pod finds its old peers: the group does not form again
        env = env_of(pods[0])
        is_training = env.get(Env.STAGE_KIND, TRAIN) == TRAIN
        total = int(json.loads(env[Env.CONFIG])["total_steps"]) if is_training else TOOL_UNITS
        store = env[Env.CHECKPOINT_PATH] + (f"/stages/{env[Env.STAGE]}" if Env.STAGE_KIND in env else "")
        bucket = self.buckets.setdefault(store, Bucket())
        group = Group(
            uid,
            key,
            env[Env.RUN_UID],
            int(labels[Label.ATTEMPT]),
            running,
            total,
            is_training,
            bucket,
            self.clock.monotonic() + self.pace.start,
        )
        if env.get(Env.DEADLINE):
            group.deadline = self.clock.monotonic() + float(env[Env.DEADLINE])
        self.groups[uid] = group

    def _run_group(self, group: Group) -> None:
        """What one trainer does now: break, start, stop, or step."""
        now = self.clock.monotonic()
        if group.breaks_at is not None:
            if now >= group.breaks_at - COLLECTIVE_TIMEOUT_SECONDS + SEAT_SECONDS and self._fill_seats(group):
                return
            if now >= group.breaks_at:
                self._end_group(group, 1, message="a peer is gone")
        elif group.claim is None:
            if now >= group.starts_at:
                self._start(group)
        elif group.stops_at is not None:
            if now >= group.stops_at:
                self._save(group)
                self._end_group(group, group.exit_code)
        else:
            self._step(group)

    def _start(self, group: Group) -> None:
        try:
            group.claim = group.bucket.claim(group.run_uid, group.attempt, group.inplace_restarts)
        except ClaimRefusedError:
            self._end_group(group, 1, message="superseded")
            return
        group.step = group.claim.parent[0] if group.claim.parent else 0
        group.starts_at = self.clock.monotonic()
        self.resumed.append((group.run.name, group.attempt, group.step))
        self.program(group)
        if group.claim.parent is None:
            self._save(group)

    def _step(self, group: Group) -> None:
        """As many steps as fit since the last one."""
        now = self.clock.monotonic()
        if group.is_hung:
            return
        if group.deadline is not None and now >= group.deadline:
            group.exit_code = 11
            group.stops_at = now + self.pace.save
        last = group.step_at if group.step_at is not None else group.starts_at
        while last + self.pace.step <= now and group.step < group.total_steps:
            last += self.pace.step
            group.step += 1
            group.step_at = last
            if group.step % self.pace.save_every_steps == 0:
                self._save(group)
            if group.program_error_at is not None and group.step >= group.program_error_at:
                self._end_group(group, 1, fingerprint="ValueError@train.py:step", message="boom")
                return
        if group.step >= group.total_steps:
            self._save(group)
            self._end_group(group, 0)

    def _save(self, group: Group) -> None:
        assert group.claim is not None
        if group.bucket.commit(group.claim, group.step, self.clock.monotonic()):
            group.durable = (group.step, self.clock.monotonic())

    def _is_torn(self, group: Group) -> bool:
        """A member is gone, or its node is."""
        for member in group.pods.values():
            pod = self._pod(group, member)
            if pod is None or pod["spec"].get("nodeName") in self.dead or phase_of(pod) != "Running":
                return True
        return False

    def _fill_seats(self, group: Group) -> bool:
        """Pods that wait warm take the seats of members whose nodes died, all of them or none; never worker 0's."""
        lost = [index for index, member in group.pods.items() if self._is_lost(group, member)]
        if not lost or 0 in lost:
            return False
        first = self._pod(group, group.pods[0])
        assert first is not None
        pods = self._pods_of_job(first["metadata"]["labels"][JOB_NAME_LABEL], group.run.namespace)
        living = _members([p for p in pods if p["spec"].get("nodeName") not in self.dead])
        warm = [index for index in sorted(living) if index not in group.pods or index in lost]
        seated = [index for index in group.pods if index in living and index not in lost]
        if len(warm) < len(lost) or len(seated) + len(lost) < len(group.pods):
            return False
        group.pods = {index: living[index] for index in [*seated, *warm[: len(lost)]]}
        group.inplace_restarts += 1
        group.claim, group.breaks_at, group.step_at = None, None, None
        group.starts_at = self.clock.monotonic() + SEAT_SECONDS
        return True

    def _is_lost(self, group: Group, member: Member) -> bool:
        pod = self._pod(group, member)
        return pod is None or pod["spec"].get("nodeName") in self.dead

    def _break(self, group: Group | None) -> None:
        """Survivors sit in a collective until its time-out."""
        if group is not None and group.breaks_at is None and not group.is_over:
            group.breaks_at = self.clock.monotonic() + COLLECTIVE_TIMEOUT_SECONDS

    def _end_group(self, group: Group, exit_code: int, **words: Any) -> None:
        group.is_over = True
        for member in group.pods.values():
            pod = self._pod(group, member)
            if pod is None or pod["spec"].get("nodeName") in self.dead or phase_of(pod) != "Running":
                continue
            self._end_pod(
                pod,
                exit_code,
                "Completed" if exit_code == 0 else "Error",
                self._message(group, pod, exit_code, **words),
            )

    def _message(self, group: Group | None, pod: Object, exit_code: int, **words: Any) -> TerminationMessage:
        step = group.step if group is not None else None
        durable = group.durable if group is not None else None
        checkpoint = (
            None if durable is None else {"step": durable[0], "age_seconds": self.clock.monotonic() - durable[1]}
        )
        fields: dict[str, Any] = {
            "schema": SCHEMA,
            "attempt": int(pod["metadata"]["labels"][Label.ATTEMPT]),
            "pod_index": int(pod["metadata"]["labels"][REPLICA_INDEX_LABEL]),
            "exit_code": exit_code,
            "cause": CAUSE_OF_EXIT.get(exit_code, "ProgramError"),
            "step": step,
            "target_step": group.total_steps if group is not None else None,
            "final_checkpoint": checkpoint if exit_code == 0 and (group is None or group.is_training) else None,
            "durable_checkpoint": checkpoint,
        }
        return TerminationMessage(**(fields | words))

    def _end_pod(self, pod: Object, code: int, reason: str, message: TerminationMessage | None) -> None:
        """The kubelet's last word on a container."""
        current = self.store.get("Pod", key_of(pod))
        if current is None or current["metadata"]["uid"] != pod["metadata"]["uid"]:
            return
        terminated = {
            "exitCode": code,
            "reason": reason,
            "finishedAt": timestamp(self.clock.now()),
            "message": message.to_bounded_json() if message is not None else "",
        }
        status = dict(current.get("status") or {})
        status["phase"] = "Succeeded" if code == 0 else "Failed"
        status["containerStatuses"] = [{"name": "pytorch", "state": {"terminated": terminated}}]
        try:
            self.store.replace_status({**current, "status": status})
        except (Conflict, NotFound):
            return

    def _group_of(self, pod: Object) -> Group | None:
        uid = pod["metadata"]["ownerReferences"][0]["uid"]
        group = self.groups.get(uid)
        if group is None or Member(pod["metadata"]["name"], pod["metadata"]["uid"]) not in group.pods.values():
            return None
        return group

    def _pod(self, group: Group, member: Member) -> Object | None:
        pod = self.store.get("Pod", Key(group.run.namespace, member.name))
        return pod if pod is not None and pod["metadata"]["uid"] == member.uid else None


def _members(pods: list[Object]) -> dict[int, Member]:
    return {
        int(p["metadata"]["labels"][REPLICA_INDEX_LABEL]): Member(p["metadata"]["name"], p["metadata"]["uid"])
        for p in pods
    }
