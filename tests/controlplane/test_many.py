"""Many runs at once, and a right that is missing."""

from __future__ import annotations

import pytest

from tests.controlplane.stage import Stage
from tests.controlplane.waiting import wait_for


@pytest.mark.parametrize("count", [50, 200])
def test_many_runs_at_once_settle(stage: Stage, count: int) -> None:
    """A node vanishes under a third of them; none is lost or doubled."""
    names = [f"r{number:03}" for number in range(count)]
    with stage.operator():
        for name in names:
            stage.create_run(name, {"spec": {"workers": {"replicas": 1}}})
        homes = {name: stage.wait_running(name, 0)[0]["spec"]["nodeName"] for name in names}
        lost = homes[names[0]]
        stage.nodes.lose(lost)
        stage.nodes.remove(lost)
        for name in names:
            hit = homes[name] == lost
            stage.trainers.finish(stage.wait_running(name, 1 if hit else 0))
            stage.wait_status(name, phase="Succeeded")
            assert stage.attempts(name) == ([(0, "NodeLost"), (1, "Done")] if hit else [(0, "Done")])


def test_a_missing_right_is_said_by_name(stage: Stage) -> None:
    """In the log, with the verb; not as a traceback."""
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}/roles/trainrun"
    rules = stage.api.get(role)["rules"]
    fewer = [rule for rule in rules if rule["resources"] != ["trainingruns/status"]]
    stage.api.merge(role, {"rules": fewer})
    with stage.operator() as operator:
        stage.create_run("a")

        def told() -> list[str]:
            return [str(line["message"]) for line in operator.lines() if line.get("type") == "error"]

        wait_for(told, "the log to tell")
        assert "cannot update resource" in told()[0]
        assert "trainingruns/status" in told()[0]
        stage.api.merge(role, {"rules": rules})
        stage.wait_running("a", 0)
