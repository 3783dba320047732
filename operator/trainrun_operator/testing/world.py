"""A world of nodes, a scheduler, kubelets and trainers for FakeCluster, moved by hand.

It models what the operator can see: pods get nodes, start, answer for progress, save on SIGTERM, write termination
messages, hang, or vanish with their node. Faults are methods. Time comes from the FakeClock; `tick` does all that
is due. Nothing in it looks at what the operator thinks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from trainrun_api.contract import CAUSE_OF_EXIT, SCHEMA, Env, Label, Progress, TerminationMessage

from trainrun_operator.cluster import Key, Object, ProgressAnswer, WatchEvent
from trainrun_operator.core.times import from_text
from trainrun_operator.errors import Conflict, NotFound
from trainrun_operator.job_controller import JOB_NAME_LABEL, REPLICA_INDEX_LABEL, JobController
from trainrun_operator.objects import timestamp
from trainrun_operator.testing.bucket import Bucket, Claim, ClaimRefusedError
from trainrun_operator.testing.clock import FakeClock
from trainrun_operator.testing.cluster import FakeCluster

NOT_READY_AFTER_SECONDS = 40.0
"""Kubernetes' node-monitor-grace-period."""

COLLECTIVE_TIMEOUT_SECONDS = 120.0
"""Members of a broken group notice at last."""


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


class World:
    """Everything but the operator."""

    def __init__(self, clock: FakeClock, cluster: FakeCluster, pace: Pace | None = None) -> None:
        self.clock = clock
        self.cluster = cluster
        self.store = cluster.store
        self.pace = pace or Pace()
        self.jobs = JobController(self.store, clock.now)
        self.buckets: dict[str, Bucket] = {}
        self.groups: dict[str, Group] = {}
        self.dead: dict[str, float] = {}
        """Dead nodes and when they died."""
        self.mute: set[str] = set()
        """Nodes whose agents cannot be reached."""
        self.interleave = False
        """Schedule pods by index across runs, so that gangs meet half way."""
        self.unpullable: str | None = None
        """An image pull error that every new pod meets."""
        self.program: Callable[[Group], None] = lambda group: None
        """Called when a group starts: a test may give it a program error."""
        self.resumed: list[tuple[str, int, int]] = []
        """(run, attempt, step) of each start of a group."""
        self._is_changed = True
        self._is_leaving = False
        cluster.answer = self.answer
        self.store.subscribe(self._note)

    # -- making things -------------------------------------------------------------------------

    def add_node(self, name: str) -> None:
        """A healthy node."""
        node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {},
        }
        self.store.create(node)
        self._set_ready(name, "True")

    def add_run(self, name: str, *, namespace: str = "default", **spec: Any) -> Key:
        """A TrainingRun with a small valid spec; `spec` is merged into it."""
        run: Object = {
            "apiVersion": "trainrun.dev/v1alpha1",
            "kind": "TrainingRun",
            "metadata": {"name": name, "namespace": namespace},
            "spec": small_spec(name) | spec,
        }
        self.store.create(run)
        return Key(namespace, name)

    def edit_run(self, key: Key, **spec: Any) -> None:
        """Change fields of a run's spec, as a user does."""
        run = self.store.get("TrainingRun", key)
        assert run is not None
        run["spec"] = run["spec"] | spec
        self.store.replace(run)

    def status(self, key: Key) -> dict[str, Any]:
        """The run's status now."""
        run = self.store.get("TrainingRun", key)
        assert run is not None
        status: dict[str, Any] = run.get("status") or {}
        return status

    # -- faults --------------------------------------------------------------------------------

    def kill_node(self, name: str) -> None:
        """The node vanishes without a word: pods on it answer nothing and write nothing."""
        self.dead.setdefault(name, self.clock.monotonic())
        self._is_changed = True

    def revive_node(self, name: str) -> None:
        """The node comes back; what ran on it has died meanwhile."""
        if self.dead.pop(name, None) is None:
            return
        self._set_ready(name, "True")
        for pod in self.store.list("Pod"):
            if pod["spec"].get("nodeName") == name and _phase(pod) == "Running":
                self._end_pod(pod, 137, "Error", None)

    def remove_node(self, name: str) -> None:
        """The Node object goes; the pod garbage collector follows."""
        self.dead.setdefault(name, self.clock.monotonic())
        self.store.remove("Node", Key("", name))

    def mark_node(self, name: str, value: str | None) -> None:
        """HyperPod's health label; None takes it away."""
        node = self.store.get("Node", Key("", name))
        if node is None:
            return
        node["metadata"]["labels"].pop("sagemaker.amazonaws.com/node-health-status", None)
        if value is not None:
            node["metadata"]["labels"]["sagemaker.amazonaws.com/node-health-status"] = value
        self.store.replace(node)

    def fail_pod(self, pod: Object, exit_code: int, *, reason: str = "Error", said: bool = True, **words: Any) -> None:
        """One pod ends; its group breaks."""
        group = self._group_of(pod)
        message = self._message(group, pod, exit_code, **words) if said and group is not None else None
        code = exit_code if exit_code in (0, 137, 139, 143, *CAUSE_OF_EXIT) else 1
        self._end_pod(pod, code, reason, message)
        if group is not None:
            self._break(group)

    def evict_pod(self, pod: Object, *, reason: str = "PreemptionByScheduler") -> None:
        """Mark the pod as a disruption's target and delete it with its own grace."""
        current = self.store.get("Pod", _key(pod))
        if current is None:
            return
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        current.setdefault("status", {}).setdefault("conditions", []).append(condition)
        self.store.replace_status(current)
        self.store.delete("Pod", _key(pod), uid=pod["metadata"]["uid"])

    def hang(self, job_uid: str) -> None:
        """The group stands still; its agents answer."""
        if job_uid in self.groups:
            self.groups[job_uid].is_hung = True

    def suspend_job(self, key: Key, *, is_suspended: bool) -> None:
        """What Kueue does to a job."""
        job = self.store.get("PyTorchJob", key)
        if job is None:
            return
        job["spec"].setdefault("runPolicy", {})["suspend"] = is_suspended
        self.store.replace(job)

    # -- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due now."""
        self._age_nodes()
        for _ in range(3):  # controllers answer each other's changes
            if not self._is_changed:
                break
            self._is_changed = False
            self.jobs.reconcile_all()
            self._schedule()
            self._run_pods()
            for group in self.groups.values():
                if not group.is_over and self._is_torn(group):
                    self._break(group)
        for group in self.groups.values():
            if not group.is_over:
                self._run_group(group)
        if self._is_leaving:
            self._reap()

    def is_busy(self) -> bool:
        """Whether the next second may bring something by itself."""
        is_aging = any(self.clock.monotonic() - died <= NOT_READY_AFTER_SECONDS for died in self.dead.values())
        return self._is_changed or self._is_leaving or is_aging or any(not g.is_over for g in self.groups.values())

    def _note(self, event: WatchEvent) -> None:
        self._is_changed = True
        if event.kind == "Pod" and "deletionTimestamp" in event.object["metadata"]:
            self._is_leaving = True

    def living_jobs(self, key: Key) -> list[Object]:
        """Jobs of a run that are not being deleted."""
        jobs = self.store.list("PyTorchJob", {Label.RUN: key.name}, namespace=key.namespace)
        return [j for j in jobs if "deletionTimestamp" not in j["metadata"]]

    def pods(self, key: Key) -> list[Object]:
        """Pods of a run, by name."""
        return self.store.list("Pod", {Label.RUN: key.name}, namespace=key.namespace)

    def answer(self, pod: Object) -> ProgressAnswer:
        """What the pod's agent says."""
        node = pod["spec"].get("nodeName")
        current = self.store.get("Pod", _key(pod))
        if node in self.dead or node in self.mute:
            return ProgressAnswer(None, "timeout")
        if current is None or _phase(current) != "Running":
            return ProgressAnswer(None, "refused")
        group = self._group_of(pod)
        if group is None:
            return ProgressAnswer(json.loads(self._record(pod, None).to_json()))
        return ProgressAnswer(json.loads(self._record(pod, group).to_json()))

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
            heard=self._heard(pod, group),
        )

    def _heard(self, pod: Object, group: Group | None) -> dict[str, float]:
        if group is None:
            return {}
        ages = {}
        for index, member in group.pods.items():
            peer = self._pod(group, member)
            node = peer["spec"].get("nodeName") if peer is not None else None
            died = self.dead.get(node or "")
            ages[str(index)] = 0.5 if died is None else self.clock.monotonic() - died
        return ages

    # -- nodes, scheduler, kubelet -----------------------------------------------------------------

    def _age_nodes(self) -> None:
        for name, died in self.dead.items():
            if self.clock.monotonic() - died >= NOT_READY_AFTER_SECONDS:
                self._set_ready(name, "Unknown")

    def _set_ready(self, name: str, value: str) -> None:
        node = self.store.get("Node", Key("", name))
        if node is None:
            return
        conditions = (node.get("status") or {}).get("conditions") or [{}]
        if conditions[0].get("status") == value:
            return
        now = timestamp(self.clock.now())
        beat = now if value == "True" else conditions[0].get("lastHeartbeatTime", now)
        condition = {"type": "Ready", "status": value, "lastTransitionTime": now, "lastHeartbeatTime": beat}
        self.store.replace_status({**node, "status": {"conditions": [condition]}})

    def _schedule(self) -> None:
        """One pod per node; each pod for itself, as the default scheduler does it."""
        pods = self.store.list("Pod")
        taken = {p["spec"].get("nodeName") for p in pods if _phase(p) in ("Pending", "Running")}
        free = [n for n in self.store.list("Node") if n["metadata"]["name"] not in taken and self._takes_pods(n)]
        for pod in sorted(pods, key=self._turn):
            if pod["spec"].get("nodeName") or _phase(pod) != "Pending" or "deletionTimestamp" in pod["metadata"]:
                continue
            node = next((n for n in free if _may_run_on(pod, n)), None)
            now = timestamp(self.clock.now())
            if node is None:
                condition = {"type": "PodScheduled", "status": "False", "message": "0 nodes are available."}
            else:
                free.remove(node)
                pod["spec"]["nodeName"] = node["metadata"]["name"]
                pod = self.store.replace(pod)
                condition = {"type": "PodScheduled", "status": "True"}
            old: dict[str, Any] = next(iter((pod.get("status") or {}).get("conditions") or []), {})
            if old.get("status") != condition["status"]:
                status = {"phase": "Pending", "conditions": [condition | {"lastTransitionTime": now}]}
                self.store.replace_status({**pod, "status": status})

    def _turn(self, pod: Object) -> tuple[str, str]:
        """Order in which the scheduler takes pods."""
        metadata = pod["metadata"]
        first = metadata["labels"][REPLICA_INDEX_LABEL] if self.interleave else metadata["creationTimestamp"]
        return first, metadata["name"]

    def _takes_pods(self, node: Object) -> bool:
        label = node["metadata"]["labels"].get("sagemaker.amazonaws.com/node-health-status", "Schedulable")
        ready = (node.get("status") or {}).get("conditions") or [{}]
        return label == "Schedulable" and ready[0].get("status") == "True" and not node["spec"].get("unschedulable")

    def _run_pods(self) -> None:
        """Kubelets of living nodes start containers; a full set of Running pods is a group."""
        for pod in self.store.list("Pod"):
            node = pod["spec"].get("nodeName")
            if node is None or node in self.dead or _phase(pod) != "Pending" or "deletionTimestamp" in pod["metadata"]:
                continue
            status = dict(pod["status"])
            if self.unpullable is not None:
                state = {"waiting": {"reason": "ErrImagePull", "message": self.unpullable}}
            else:
                state = {"running": {"startedAt": timestamp(self.clock.now())}}
                status["phase"] = "Running"
            status["containerStatuses"] = [{"name": "pytorch", "state": state}]
            self.store.replace_status({**pod, "status": status})
        for job in self.store.list("PyTorchJob"):
            self._form_group(job)

    def _form_group(self, job: Object) -> None:
        uid, labels = job["metadata"]["uid"], job["metadata"]["labels"]
        key = Key(job["metadata"]["namespace"], labels[Label.RUN])
        name = job["metadata"]["name"]
        pods = self.store.list("Pod", {JOB_NAME_LABEL: name}, namespace=key.namespace)
        replicas = int(job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"])
        running = {
            int(p["metadata"]["labels"][REPLICA_INDEX_LABEL]): Member(p["metadata"]["name"], p["metadata"]["uid"])
            for p in pods
            if _phase(p) == "Running" and "deletionTimestamp" not in p["metadata"]
        }
        known = self.groups.get(uid)
        if len(running) < replicas or (known is not None and not known.is_over and known.pods == running):
            return
        if known is not None and set(known.pods.values()) & set(running.values()):
            return  # a replaced pod finds its old peers: the group does not form again
        env = _env(pods[0])
        run = self.store.get("TrainingRun", key)
        total = int(((run or {}).get("spec") or {}).get("config", {}).get("total_steps", 100))
        bucket = self.buckets.setdefault(env[Env.CHECKPOINT_PATH], Bucket())
        group = Group(
            uid,
            key,
            env[Env.RUN_UID],
            int(labels[Label.ATTEMPT]),
            running,
            total,
            bucket,
            self.clock.monotonic() + self.pace.start,
        )
        if env.get(Env.DEADLINE):
            group.deadline = self.clock.monotonic() + float(env[Env.DEADLINE])
        self.groups[uid] = group

    def _reap(self) -> None:
        """Kubelets end pods that are being deleted: their group saves within the grace, or they are killed."""
        now = self.clock.now()
        leaving = [p for p in self.store.list("Pod") if "deletionTimestamp" in p["metadata"]]
        self._is_leaving = any(p["spec"].get("nodeName") not in self.dead for p in leaving)
        for pod in leaving:
            metadata = pod["metadata"]
            node = pod["spec"].get("nodeName")
            if self.store.get("Node", Key("", node or "")) is None:
                self.store.remove("Pod", _key(pod))  # pod garbage collector
                continue
            if node in self.dead:
                continue
            if _phase(pod) in ("Succeeded", "Failed"):
                self.store.remove("Pod", _key(pod))
                continue
            group = self._group_of(pod)
            if group is not None and group.claim is not None and not (group.is_hung or group.is_over):
                if group.stops_at is None and group.breaks_at is None:
                    group.stops_at = self.clock.monotonic() + self.pace.save
            ends_by = from_text(metadata["deletionTimestamp"])
            if ends_by is not None and now >= ends_by + timedelta(seconds=1):
                self._end_pod(pod, 137, "Error", None)
                self._break(group)

    # -- trainers ----------------------------------------------------------------------------------

    def _run_group(self, group: Group) -> None:
        """What one trainer does now: break, start, stop, or step."""
        now = self.clock.monotonic()
        if group.breaks_at is not None:
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
            if pod is None or pod["spec"].get("nodeName") in self.dead or _phase(pod) != "Running":
                return True
        return False

    def _break(self, group: Group | None) -> None:
        """Survivors sit in a collective until its time-out."""
        if group is not None and group.breaks_at is None and not group.is_over:
            group.breaks_at = self.clock.monotonic() + COLLECTIVE_TIMEOUT_SECONDS

    def _end_group(self, group: Group, exit_code: int, **words: Any) -> None:
        group.is_over = True
        for member in group.pods.values():
            pod = self._pod(group, member)
            if pod is None or pod["spec"].get("nodeName") in self.dead or _phase(pod) != "Running":
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
            "final_checkpoint": checkpoint if exit_code == 0 else None,
            "durable_checkpoint": checkpoint,
        }
        return TerminationMessage(**(fields | words))

    def _end_pod(self, pod: Object, code: int, reason: str, message: TerminationMessage | None) -> None:
        """The kubelet's last word on a container."""
        current = self.store.get("Pod", _key(pod))
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


def small_spec(name: str) -> dict[str, Any]:
    """The smallest spec that validates: two CPU workers, 100 steps."""
    return {
        "image": "example/trainer:1",
        "workers": {"replicas": 2, "accelerator": "cpu"},
        "checkpoint": {"path": f"/checkpoints/{name}", "interval": 10},
        "config": {
            "model": {"architecture": {}},
            "data": {"sources": {"main": {"path": "text"}}, "tokenizer": {"vocab_size": 512}, "row_tokens": 64},
            "total_steps": 100,
            "global_batch_rows": 24,
        },
    }


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def _key(obj: Object) -> Key:
    return Key(obj["metadata"]["namespace"], obj["metadata"]["name"])


def _env(pod: Object) -> dict[str, str]:
    container = next(c for c in pod["spec"]["containers"] if c["name"] == "pytorch")
    return {e["name"]: e.get("value", "") for e in container.get("env") or []}


def _may_run_on(pod: Object, node: Object) -> bool:
    """Required node affinity: terms are alternatives, expressions of a term must all hold."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or []
    labels = node["metadata"]["labels"] | {"metadata.name": node["metadata"]["name"]}
    return not terms or any(_matches(term, labels) for term in terms)


def _matches(term: dict[str, Any], labels: dict[str, str]) -> bool:
    for expression in [*term.get("matchExpressions", []), *term.get("matchFields", [])]:
        value, wanted = labels.get(expression["key"]), expression.get("values", [])
        holds = {
            "In": value in wanted,
            "NotIn": value not in wanted,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[expression["operator"]]
        if not holds:
            return False
    return True
