"""What people see: the real kubectl prints what docs/operating.md shows, and its selectors find what they say."""

from __future__ import annotations

import json

import pytest

from tests.api.manifests import good, merged
from tests.controlplane.control_plane import ROOT
from tests.controlplane.kubectl import Kubectl
from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for

PAGE = (ROOT / "docs" / "operating.md").read_text()
COLUMNS = ["NAME", "PHASE", "ATTEMPT", "STEP", "LOSS", "ETTR", "AGE"]
WIDE = [*COLUMNS, "REPLICAS", "RESTARTS", "REASON"]
SCREEN = 60
"""Lines of status that a person sees without scrolling."""


@pytest.fixture
def kubectl(stage: Stage) -> Kubectl:
    """kubectl in the test's namespace."""
    return Kubectl(stage.plane.kubeconfig(), stage.namespace)


def table(text: str) -> list[dict[str, str]]:
    """A printed table as rows; cells are found under their heads, so that empty ones are told."""
    head, *lines = text.splitlines()
    starts = {name: head.index(name) for name in head.split()}
    ends = [*list(starts.values())[1:], None]
    return [
        {name: line[start:end].strip() for (name, start), end in zip(starts.items(), ends, strict=True)}
        for line in lines
    ]


def run_status(described: str) -> list[str]:
    """The status part of `kubectl describe`."""
    lines = described.splitlines()
    return lines[lines.index("Status:") + 1 : lines.index("Events:")]


def test_a_list_tells_phase_attempt_and_step(stage: Stage, kubectl: Kubectl) -> None:
    """One line for each run, with the columns of the page; wide has workers, spent restarts and the reason."""
    with stage.operator():
        for name in ("a", "b"):
            stage.create_run(name)
            stage.wait_reason(name, "Running")
        rows = {row["NAME"]: row for row in table(kubectl("get", "trun"))}
        assert [list(row) for row in rows.values()] == [COLUMNS, COLUMNS]
        assert {name: (row["PHASE"], row["ATTEMPT"]) for name, row in rows.items()} == {
            "a": ("Running", "0"),
            "b": ("Running", "0"),
        }
        assert all(row["STEP"].isdigit() for row in rows.values())
        wide = table(kubectl("get", "trun", "-o", "wide"))
        assert [list(row) for row in wide] == [WIDE, WIDE]
        assert {(row["REPLICAS"], row["RESTARTS"], row["REASON"]) for row in wide} == {("2", "0", "Running")}
    assert all(" ".join(head) in {" ".join(line.split()) for line in PAGE.splitlines()} for head in (COLUMNS, WIDE))


def test_a_description_of_a_fresh_run_fits_on_a_screen(stage: Stage, kubectl: Kubectl) -> None:
    """With the sentence, and the Events below it."""
    with stage.operator():
        stage.create_run("a")
        stage.wait_reason("a", "Running")
        wait_for(lambda: len(stage.events("a")) >= 2, "its events")
        described = kubectl("describe", "trun", "a")
    status, events = run_status(described), described.split("\nEvents:\n")[1]
    assert len(status) <= SCREEN, described
    assert "Attempt 0 trains." in "\n".join(status)
    assert not [line for line in status if line.endswith(":  ")], "an empty value says nothing"
    for reason, sentence in (
        ("AttemptStarted", "Attempt 0 starts on 2 workers, the first of this run."),
        ("Running", "Attempt 0 trains."),
    ):
        assert any(reason in line and line.endswith(sentence) for line in events.splitlines()), events


def test_a_script_can_wait_for_the_result(stage: Stage, kubectl: Kubectl) -> None:
    """`kubectl wait` returns when the run has succeeded."""
    with stage.operator():
        stage.create_run("a")
        stage.trainers.finish(stage.wait_running("a", 0))
        said = kubectl("wait", "--for=condition=Completed", "--timeout=90s", "trun/a")
        assert said.strip().endswith("condition met")
        assert "The run reached its target at step 200." in kubectl("describe", "trun", "a")


def test_the_selectors_find_what_belongs_to_the_run(stage: Stage, kubectl: Kubectl) -> None:
    """Exactly that, while another run is beside it; the words are those of the page."""

    def names(kind: str, selector: str) -> list[str]:
        general = selector.replace("a-a0", "NAME-aN").replace("run=a", "run=NAME").replace("attempt=0", "attempt=N")
        assert f"-l {general} " in PAGE or f"-l {general}\n" in PAGE
        return sorted(kubectl("get", kind, "-l", selector, "-o", "name").split())

    with stage.operator():
        for name in ("a", "b"):
            stage.create_run(name)
            stage.wait_running(name, 0)
        pods = ["pod/a-a0-worker-0", "pod/a-a0-worker-1"]
        assert names("pytorchjobs", "trainrun.dev/run=a") == ["pytorchjob.kubeflow.org/a-a0"]
        assert names("pods", "trainrun.dev/run=a") == pods
        assert names("pods", "trainrun.dev/run=a,trainrun.dev/attempt=0") == pods
        assert names("pods", "trainrun.dev/run=a,training.kubeflow.org/replica-index=0") == pods[:1]
        services = names("services", "training.kubeflow.org/job-name=a-a0")
        assert services == ["service/a-a0-worker-0", "service/a-a0-worker-1"]
        everything = names("pods", "app.kubernetes.io/managed-by=trainrun")
        assert everything == [*pods, "pod/b-a0-worker-0", "pod/b-a0-worker-1"]
        told = kubectl("events", "--for", "trun/a")
        assert "AttemptStarted" in told
        assert "TrainingRun/b" not in told


def test_a_refused_manifest_gets_our_sentence(stage: Stage, kubectl: Kubectl) -> None:
    """From `kubectl apply`, and from `kubectl scale` of a run that exists."""
    sentence = "spec.config.global_batch_rows={} is not a multiple of micro_batch_rows=2 x {} data-parallel ranks"
    patch = {"metadata": {"name": "bad", "namespace": stage.namespace}, "spec": {"config": {"global_batch_rows": 7}}}
    answer = kubectl.ask("apply", "-f", "-", text=json.dumps(merged(good(), patch)))
    assert answer.code == 1
    assert sentence.format(7, 2) in answer.err
    assert "use a multiple of 4" in answer.err
    assert kubectl.ask("get", "trun", "bad").code == 1
    stage.create_run("a")
    answer = kubectl.ask("scale", "trun", "a", "--replicas=3")
    assert (answer.code, sentence.format(8, 3) in answer.err) == (1, True)
