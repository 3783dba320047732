"""All reads of a pass: objects through `Cluster`, answers from `Senses` -> one frozen `Observed`. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trainrun_api.stages import result_stage_as_written
from trainrun_api.v1alpha1 import TrainingRunSpec, TrainingRunStatus
from trainrun_api.validate import validate

from trainrun_operator.clock import Clock
from trainrun_operator.cluster import Cluster, Key, Object, checkpoint_path
from trainrun_operator.core import capacity
from trainrun_operator.core.observed import JobFacts, Observed, Parent, PodFacts, Rival, RunFacts
from trainrun_operator.core.pytorchjob import KUEUE_PREFIX
from trainrun_operator.core.situation import open_attempt
from trainrun_operator.core.times import from_text
from trainrun_operator.facts import job_facts, newest_warning, pod_facts
from trainrun_operator.node_index import NodeIndex
from trainrun_operator.rate_limit import RateLimit
from trainrun_operator.senses import Senses

WARNINGS_KEPT = 2000
"""Answers about jobs whose pods are missing, by uid. The API server searches all Events of the namespace for one."""
SEARCHES_PER_SECOND, SEARCHES_AT_ONCE = 2.0, 4
"""For such answers, of all runs together: with 80 runs whose pods are awaited, searches took the API server half a
second each. A run that may not ask goes on with what it knows, and looks again after 10 s."""
SPECS_KEPT = 2000
"""Parsed specs by uid and generation; a spec never changes under them."""


@dataclass(frozen=True)
class Gathered:
    """The snapshot, and the object that the status will be written to."""

    observed: Observed
    run: Object


class Gatherer:
    """Reads; keeps nothing but what it has parsed."""

    def __init__(self, cluster: Cluster, clock: Clock, senses: Senses) -> None:
        self._cluster = cluster
        self._clock = clock
        self._senses = senses
        self._nodes = NodeIndex()
        self._specs: dict[tuple[str, int], tuple[TrainingRunSpec | None, str | None]] = {}
        self._warnings: dict[str, tuple[datetime, str]] = {}
        self._searches = RateLimit(SEARCHES_PER_SECOND, SEARCHES_AT_ONCE)

    def gather(self, key: Key) -> Gathered | None:
        """Everything about one run; None if it is gone. The run and the open attempt's job are read live."""
        run = self._cluster.get_run(key)
        if run is None:
            return None
        facts = self._run_facts(run)
        jobs = self._jobs(key, facts)
        pods = self._pods(key, facts, jobs)
        if _lacks_words(facts, jobs, pods):
            self._cluster.refresh_pods(key)
            pods = self._pods(key, facts, jobs)
        now = self._clock.now()
        return self._gathered(key, run, facts, self._with_warning(key, facts, jobs, pods, now), pods, now)

    def glance(self, key: Key) -> Gathered | None:
        """The same from what the watches have shown, run and job included; None if that is not enough.

        It is good for a pass that only reports; whatever starts or ends something gathers.
        """
        run = self._cluster.known_run(key)
        if run is None or _spec_version(run) not in self._specs:
            return None
        facts = self._run_facts(run)
        listed = (job_facts(job, facts.uid) for job in self._cluster.list_jobs(key))
        jobs = tuple(job for job in listed if job is not None)
        pods = self._pods(key, facts, jobs)
        now = self._clock.now()
        if _lacks_words(facts, jobs, pods):
            return None
        return self._gathered(key, run, facts, self._with_warning(key, facts, jobs, pods, now), pods, now)

    def _gathered(
        self,
        key: Key,
        run: Object,
        facts: RunFacts,
        jobs: tuple[JobFacts, ...],
        pods: tuple[PodFacts, ...],
        now: datetime,
    ) -> Gathered:
        last = facts.status.attempts[-1] if facts.status.attempts else None
        used = {p.node for p in pods if p.node} | set(last.nodes if last else ())
        nodes = self._nodes.facts(
            self._cluster.list_nodes(),
            used,
            facts.status.nodes.excluded,
            reachable_since=self._senses.reachable_since(now),
        )
        observed = Observed(
            run=facts,
            now=now,
            jobs=jobs,
            pods=pods,
            nodes=nodes,
            progress=self._senses.progress(key, last.number if last else -1),
            rival=self._rival(run, facts),
            parent=self._parent(key, facts),
            refusal=self._senses.refusal(key),
        )
        return Gathered(observed, run)

    def _run_facts(self, run: Object) -> RunFacts:
        metadata = run["metadata"]
        spec, error = self._spec(run)
        return RunFacts(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 1),
            created_at=_created_at(run),
            is_deleted="deletionTimestamp" in metadata,
            spec=spec,
            spec_error=error,
            status=TrainingRunStatus.model_validate(run.get("status") or {}),
            has_queue=any(name.startswith(KUEUE_PREFIX) for name in metadata.get("labels") or {}),
        )

    def _spec(self, run: Object) -> tuple[TrainingRunSpec | None, str | None]:
        """The typed spec, or the sentences that say why there is none."""
        at = _spec_version(run)
        if at not in self._specs:
            if len(self._specs) >= SPECS_KEPT:
                self._specs.clear()
            self._specs[at] = _parse_spec(run)
        return self._specs[at]

    def _jobs(self, key: Key, run: RunFacts) -> tuple[JobFacts, ...]:
        """Listed jobs, with the open attempt's replaced by a live read: its absence ends the attempt."""
        listed = {job["metadata"]["name"]: job for job in self._cluster.list_jobs(key)}
        attempt = open_attempt(run.status)
        if attempt is not None:
            listed.pop(attempt.job, None)
            live = self._cluster.get_job(Key(key.namespace, attempt.job))
            if live is not None:
                listed[attempt.job] = live
        facts = (job_facts(job, run.uid) for job in listed.values())
        return tuple(f for f in facts if f is not None)

    def _with_warning(
        self, key: Key, run: RunFacts, jobs: tuple[JobFacts, ...], pods: tuple[PodFacts, ...], now: datetime
    ) -> tuple[JobFacts, ...]:
        """The open attempt's job with the reason why pods are missing; asked for only when they should be there."""
        awaited = _awaited(run, jobs, pods, now)
        return tuple(replace(job, warning=self._warning(key, job, now)) if job is awaited else job for job in jobs)

    def _warning(self, key: Key, job: JobFacts, now: datetime) -> str:
        """Asked for as often as the rules would look again, however often its pods bring a pass."""
        asked_at, text = self._warnings.get(job.uid, (None, ""))
        if asked_at is not None and now - asked_at < timedelta(seconds=capacity.LOOK_AGAIN_SECONDS):
            return text
        if self._searches.may_take(self._clock.monotonic()):
            text = newest_warning(self._cluster.job_warnings(_reference(key, job)))
            if len(self._warnings) >= WARNINGS_KEPT:
                self._warnings.clear()
            self._warnings[job.uid] = (now, text)
        return text

    def _pods(self, key: Key, run: RunFacts, jobs: tuple[JobFacts, ...]) -> tuple[PodFacts, ...]:
        """Living pods and the last sight of departed ones; the living win."""
        ours = {job.uid for job in jobs if job.is_owned} | {a.job_uid for a in run.status.attempts if a.job_uid}
        found: dict[str, PodFacts] = {}
        for is_departed, pods in ((True, self._cluster.departed_pods(key)), (False, self._cluster.list_pods(key))):
            for pod in pods:
                facts = pod_facts(pod, run.uid, ours, is_departed=is_departed)
                if facts is not None:
                    found[facts.uid] = facts
        return tuple(found.values())

    def _rival(self, run: Object, facts: RunFacts) -> Rival | None:
        """The oldest other live run that uses our checkpoint path, if it is older than we are."""
        if facts.status.result is not None or facts.spec is None:
            return None
        path, mine = facts.spec.checkpoint.path.rstrip("/"), (facts.created_at, facts.uid)
        older = [
            (_created_at(other), other["metadata"]["uid"], other)
            for other in self._cluster.runs_at(path)
            if other["metadata"]["uid"] != facts.uid and _is_live_at(other, run["metadata"]["namespace"], path)
        ]
        first = min(older, key=lambda entry: entry[:2], default=None)
        if first is None or first[:2] > mine:
            return None
        return Rival(first[2]["metadata"]["namespace"], first[2]["metadata"]["name"])

    def _parent(self, key: Key, facts: RunFacts) -> Parent | None:
        """The run that this one starts from; asked for until its result is on record."""
        if facts.spec is None or facts.spec.resume.run is None or facts.status.parent is not None:
            return None
        found = self._cluster.known_run(Key(key.namespace, facts.spec.resume.run))
        path = checkpoint_path(found) if found is not None else None
        if found is None or path is None:
            return None
        metadata, status = found["metadata"], found.get("status") or {}
        stage = result_stage_as_written(found["spec"])
        return Parent(metadata["name"], metadata["uid"], path, status.get("result"), stage)


def _spec_version(run: Object) -> tuple[str, int]:
    return run["metadata"]["uid"], run["metadata"].get("generation", 1)


def _lacks_words(run: RunFacts, jobs: tuple[JobFacts, ...], pods: tuple[PodFacts, ...]) -> bool:
    """Whether the open attempt's job, read live, is over and no pod is known to have ended: the watch lags behind."""
    attempt = open_attempt(run.status)
    if attempt is None:
        return False
    is_over = any(job.name == attempt.job and (job.has_failed or job.has_succeeded) for job in jobs)
    return is_over and not any(pod.attempt == attempt.number and pod.has_ended for pod in pods)


def _awaited(run: RunFacts, jobs: tuple[JobFacts, ...], pods: tuple[PodFacts, ...], now: datetime) -> JobFacts | None:
    """The open attempt's job if pods of it that should be there by now do not exist: an Event on it says why."""
    attempt = open_attempt(run.status)
    if attempt is None or not capacity.is_late(attempt, now):
        return None
    made = [p for p in pods if p.attempt == attempt.number and not p.is_departed]
    if len(made) >= (attempt.replicas or 1):
        return None
    return next((j for j in jobs if j.name == attempt.job and j.is_owned and not j.is_suspended), None)


def _reference(run: Key, job: JobFacts) -> Object:
    return {"metadata": {"namespace": run.namespace, "name": job.name, "uid": job.uid}}


def _is_live_at(other: Object, namespace: str, path: str) -> bool:
    """Whether a run of that path still writes to it; paths on volumes are apart in other namespaces."""
    if (other.get("status") or {}).get("result") is not None:
        return False
    return other["metadata"]["namespace"] == namespace or path.startswith("s3://")


def _parse_spec(run: Object) -> tuple[TrainingRunSpec | None, str | None]:
    bare: Object = {name: run[name] for name in ("apiVersion", "kind", "spec") if name in run}
    problems = validate(bare | {"metadata": {"name": run["metadata"]["name"]}})
    if problems:
        return None, "; ".join(problem.message for problem in problems[:3])
    return TrainingRunSpec.model_validate(run["spec"]), None


def _created_at(run: Object) -> datetime:
    created = from_text(run["metadata"]["creationTimestamp"])
    assert created is not None
    return created
