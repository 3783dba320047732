"""What every `Cluster` promises the operator. FakeCluster, LocalCluster and KubeCluster run the same class.

A subclass gives a `subject` fixture; nothing here knows which one it talks to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from trainrun_api.contract import Label
from trainrun_operator.cluster import Cluster, Key, Object, WatchEvent
from trainrun_operator.core.pytorchjob import render
from trainrun_operator.errors import AlreadyExists, Conflict, NotFound


@dataclass
class Subject:
    """A cluster under test, with what only its surroundings can do."""

    cluster: Cluster
    add_run: Callable[[str], Key]
    """Create a TrainingRun with a small valid spec."""
    settle: Callable[[], None]
    """Let controllers and watches do what is due."""
    has_nodes: bool = True
    """Whether list_nodes shows at least one."""


class ClusterContract:
    """The promises."""

    @pytest.fixture
    def subject(self) -> Subject:
        """The cluster under test."""
        raise NotImplementedError

    def run(self, subject: Subject, name: str = "a") -> tuple[Key, Object]:
        """A run that was just created."""
        key = subject.add_run(name)
        subject.settle()
        run = subject.cluster.get_run(key)
        assert run is not None
        return key, run

    def job(self, subject: Subject, run: Object, attempt: int = 0) -> Object:
        """The job of an attempt, created."""
        job = subject.cluster.create_job(render(run, attempt, (), 1))
        subject.settle()
        return job

    def test_reads_of_what_is_not_there(self, subject: Subject) -> None:
        """None and empty lists, never errors."""
        nobody = Key("default", "nobody")
        assert subject.cluster.get_run(nobody) is None
        assert subject.cluster.get_job(nobody) is None
        assert subject.cluster.list_jobs(nobody) == []
        assert subject.cluster.list_pods(nobody) == []
        assert subject.cluster.departed_pods(nobody) == []

    def test_a_created_run_has_what_the_operator_relies_on(self, subject: Subject) -> None:
        """Identity, versions and time."""
        _, run = self.run(subject)
        assert {"uid", "resourceVersion", "creationTimestamp", "generation"} <= set(run["metadata"])
        assert [r["metadata"]["name"] for r in subject.cluster.list_runs()] == ["a"]

    def test_a_run_is_known_as_the_watch_has_shown_it(self, subject: Subject) -> None:
        """Enough to report about it: identity, version and status; and by the path to which it saves."""
        key, run = self.run(subject)
        written = subject.cluster.replace_run_status({**run, "status": {"phase": "One"}})
        subject.cluster.note_run(written)
        known = subject.cluster.known_run(key)
        assert known is not None
        assert known["status"] == {"phase": "One"}
        assert known["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"]
        again = subject.cluster.replace_run_status({**known, "status": {"phase": "Two"}})
        assert again["spec"] == run["spec"]
        path = run["spec"]["checkpoint"]["path"].rstrip("/")
        assert [r["metadata"]["name"] for r in subject.cluster.runs_at(path)] == ["a"]
        assert subject.cluster.runs_at("/elsewhere") == []
        assert subject.cluster.known_run(Key(key.namespace, "nobody")) is None

    def test_status_is_replaced_under_its_version(self, subject: Subject) -> None:
        """The second writer with the same version gets a conflict, and the first one's status stays."""
        key, run = self.run(subject)
        first = subject.cluster.replace_run_status({**run, "status": {"phase": "One"}})
        with pytest.raises(Conflict):
            subject.cluster.replace_run_status({**run, "status": {"phase": "Two"}})
        stored = subject.cluster.get_run(key)
        assert stored is not None
        assert stored["status"]["phase"] == "One"
        assert first["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]

    def test_a_status_write_changes_nothing_else(self, subject: Subject) -> None:
        """Spec and generation are the user's."""
        key, run = self.run(subject)
        subject.cluster.replace_run_status({**run, "spec": {}, "status": {"phase": "One"}})
        stored = subject.cluster.get_run(key)
        assert stored is not None
        assert stored["spec"] == run["spec"]
        assert stored["metadata"]["generation"] == run["metadata"]["generation"]

    def test_a_deleted_run_is_gone_only_under_its_uid(self, subject: Subject) -> None:
        """A run re-created under the name is another run."""
        key, run = self.run(subject)
        with pytest.raises(NotFound):
            subject.cluster.delete_run(key, uid="another")
        subject.cluster.delete_run(key, uid=run["metadata"]["uid"])
        subject.settle()
        assert subject.cluster.get_run(key) is None
        with pytest.raises(NotFound):
            subject.cluster.replace_run_status({**run, "status": {}})

    def test_a_job_is_created_once(self, subject: Subject) -> None:
        """The second creation is told so, and the first job stays."""
        key, run = self.run(subject)
        job = self.job(subject, run)
        with pytest.raises(AlreadyExists):
            subject.cluster.create_job(render(run, 0, (), 1))
        found = subject.cluster.get_job(Key(key.namespace, job["metadata"]["name"]))
        assert found is not None
        assert found["metadata"]["uid"] == job["metadata"]["uid"]

    def test_jobs_are_listed_by_run(self, subject: Subject) -> None:
        """Whoever owns them."""
        key, run = self.run(subject)
        self.job(subject, run)
        assert [j["metadata"]["name"] for j in subject.cluster.list_jobs(key)] == ["a-a0"]
        assert subject.cluster.list_jobs(Key(key.namespace, "b")) == []

    def test_a_deleted_job_is_gone_only_under_its_uid(self, subject: Subject) -> None:
        """With it go its pods, sooner or later."""
        key, run = self.run(subject)
        job = self.job(subject, run)
        name = Key(key.namespace, job["metadata"]["name"])
        with pytest.raises(NotFound):
            subject.cluster.delete_job(name, uid="another")
        subject.cluster.delete_job(name, uid=job["metadata"]["uid"])
        subject.settle()
        assert subject.cluster.get_job(name) is None
        with pytest.raises(NotFound):
            subject.cluster.delete_job(name, uid=job["metadata"]["uid"])

    def test_a_job_gets_pods_that_carry_the_runs_labels(self, subject: Subject) -> None:
        """Rendered labels reach the pods; indices are training-operator's."""
        key, run = self.run(subject)
        job = self.job(subject, run)
        (pod,) = subject.cluster.list_pods(key)
        labels = pod["metadata"]["labels"]
        assert (labels[Label.RUN], labels[Label.ATTEMPT]) == ("a", "0")
        assert labels["training.kubeflow.org/replica-index"] == "0"
        assert pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]

    def test_evidence_outlives_a_pod(self, subject: Subject) -> None:
        """The last sight of a removed pod stays readable; grace 0 removes at once."""
        key, run = self.run(subject)
        self.job(subject, run)
        (pod,) = subject.cluster.list_pods(key)
        name = Key(key.namespace, pod["metadata"]["name"])
        with pytest.raises(NotFound):
            subject.cluster.delete_pod(name, uid="another", grace_seconds=0)
        subject.cluster.delete_pod(name, uid=pod["metadata"]["uid"], grace_seconds=0)
        subject.settle()
        assert pod["metadata"]["uid"] in [p["metadata"]["uid"] for p in subject.cluster.departed_pods(key)]
        assert pod["metadata"]["uid"] not in [p["metadata"]["uid"] for p in subject.cluster.list_pods(key)]

    def test_pods_of_one_attempt_are_deleted_together(self, subject: Subject) -> None:
        """By the run's uid and the attempt: a namesake's pods, and those of another attempt, stay as they are."""
        key, run = self.run(subject)
        self.job(subject, run)
        (pod,) = subject.cluster.list_pods(key)
        uid = run["metadata"]["uid"]
        for another, attempt in (("another", 0), (uid, 1)):
            subject.cluster.delete_pods(key, run_uid=another, attempt=attempt, grace_seconds=1)
        subject.settle()
        (untouched,) = subject.cluster.list_pods(key)
        assert "deletionTimestamp" not in untouched["metadata"]
        subject.cluster.delete_pods(key, run_uid=uid, attempt=0, grace_seconds=1)
        subject.settle()
        old = [p["metadata"] for p in subject.cluster.list_pods(key) if p["metadata"]["uid"] == pod["metadata"]["uid"]]
        assert [m["deletionGracePeriodSeconds"] for m in old] in ([], [1])

    def test_a_pod_is_taken_from_its_job(self, subject: Subject) -> None:
        """It still is a pod of the run; a second time changes nothing, and another uid is not touched."""
        key, run = self.run(subject)
        self.job(subject, run)
        (pod,) = subject.cluster.list_pods(key)
        name, uid = Key(key.namespace, pod["metadata"]["name"]), pod["metadata"]["uid"]
        with pytest.raises(NotFound):
            subject.cluster.detach_pod(name, uid="another")
        for _ in range(2):
            subject.cluster.detach_pod(name, uid=uid)
        subject.settle()
        (found,) = [p for p in subject.cluster.list_pods(key) if p["metadata"]["uid"] == uid]
        assert "training.kubeflow.org/job-name" not in found["metadata"]["labels"]

    def test_watchers_hear_of_changes(self, subject: Subject) -> None:
        """A creation, with the object as it was stored."""
        _, run = self.run(subject)
        heard: list[WatchEvent] = []
        subject.cluster.subscribe(heard.append)
        job = self.job(subject, run)
        kinds = [(e.type, e.object["metadata"]["uid"]) for e in heard if e.kind == "PyTorchJob"]
        assert ("ADDED", job["metadata"]["uid"]) in kinds

    def test_events_may_be_recorded_again_and_again(self, subject: Subject) -> None:
        """Repeated ones are the cluster's concern."""
        _, run = self.run(subject)
        for _ in range(3):
            subject.cluster.record_event(run, type="Normal", reason="Running", message="Attempt 0 trains.")

    def test_fleet_facts_are_replaced_under_their_version(self, subject: Subject) -> None:
        """Created when absent, then preconditioned."""
        assert subject.cluster.read_fleet() is None
        first = subject.cluster.replace_fleet({"metadata": {"name": "fleet"}, "data": {"a": "1"}})
        subject.cluster.replace_fleet({**first, "data": {"a": "2"}})
        with pytest.raises(Conflict):
            subject.cluster.replace_fleet({**first, "data": {"a": "3"}})
        stored = subject.cluster.read_fleet()
        assert stored is not None
        assert stored["data"] == {"a": "2"}

    def test_an_agent_that_cannot_be_asked_is_blindness_not_an_error(self, subject: Subject) -> None:
        """Never raises."""
        pod: dict[str, Any] = {
            "metadata": {"name": "nobody", "namespace": "default", "uid": "x", "labels": {}},
            "spec": {},
            "status": {},
        }
        answer = subject.cluster.fetch_progress(pod, timeout_seconds=0.2)
        assert answer.record is None
        assert answer.blind_because

    def test_nodes_are_listed_with_their_names(self, subject: Subject) -> None:
        """At least one, where the subject has any."""
        names = [n["metadata"]["name"] for n in subject.cluster.list_nodes()]
        assert bool(names) == subject.has_nodes

    def test_a_job_without_trouble_has_no_warning(self, subject: Subject) -> None:
        """Words are asked for only where pods are missing."""
        _, run = self.run(subject)
        assert subject.cluster.job_warnings(self.job(subject, run)) == []

    def test_pods_may_be_listed_anew(self, subject: Subject) -> None:
        """What the API server has now, whatever the watches have shown."""
        key, run = self.run(subject)
        self.job(subject, run)
        subject.cluster.refresh_pods(key)
        assert len(subject.cluster.list_pods(key)) == 1
