"""Many runs at once."""

from __future__ import annotations

import pytest

from tests.controlplane.stage import Stage


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
