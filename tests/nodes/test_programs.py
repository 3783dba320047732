"""What people put into a manifest: names that do not exist, and programs that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nodes.trainee import pod_template
from tests.nodes.user import NodeUser, remove_run

pytestmark = pytest.mark.timeout(900)

STEPS_OF_PROGRAM = 60
FIRST_STEPS = 15
"""After its first checkpoint, and before its second."""


def test_an_image_that_does_not_exist(user: NodeUser) -> None:
    """The run fails, and the sentence names the image."""
    image = "localhost/trainrun/trainer:missing"
    user.create_run("imageless", {"spec": {"image": image}})
    status = user.wait_status("imageless", phase="Failed")
    assert image in str(status["conditions"])


def test_a_secret_that_does_not_exist(user: NodeUser) -> None:
    """It may still be applied, so a minute is waited; then the run fails, and the sentence names it."""
    container = {"envFrom": [{"secretRef": {"name": "no-such-secret"}}]}
    user.create_run("secretless", {"spec": {"workers": {"template": pod_template(user.cluster.shared, container)}}})
    status = user.wait_status("secretless", phase="Failed")
    assert user.attempts("secretless") == [(0, "ContainerUncreatable")]
    assert 'secret "no-such-secret" not found' in str(status["conditions"])


@pytest.mark.parametrize("command", [["no-such-program"], ["no-such-script.py"]], ids=["program", "script"])
def test_a_command_that_does_not_exist(user: NodeUser, command: list[str]) -> None:
    """It will not exist the next time either: the run fails at once, and the sentence names it."""
    user.create_program("commandless", command)
    status = user.wait_status("commandless", phase="Failed")
    assert user.attempts("commandless") == [(0, "CommandNotFound")]
    assert command[0] in str(status["conditions"])


def test_a_users_own_image_with_plain_torchrun(user: NodeUser) -> None:
    """Nothing of ours is in it: it saves and loads by itself, and the restart elsewhere comes from us."""
    user.create_program("own-calm", ["train.py", "/shared/own-calm"])
    user.wait_succeeded("own-calm")
    assert user.attempts("own-calm") == [(0, "Done")]
    remove_run(user, "own-calm")
    user.create_program("own-lost", ["train.py", "/shared/own-lost"])
    volume = user.cluster.shared
    user.wait(lambda: len(losses(volume / "own-lost")) >= FIRST_STEPS, "own-lost", "its first steps")
    with user.node_vanished(user.node_of(user.pods("own-lost")[1])):
        user.wait_succeeded("own-lost")
    assert user.attempts("own-lost") == [(0, "NodeLost"), (1, "Done")]
    calm = losses(volume / "own-calm")
    assert list(calm) == list(range(1, STEPS_OF_PROGRAM + 1))
    assert losses(volume / "own-lost") == calm


def losses(folder: Path) -> dict[int, str]:
    """Exact loss of each step, as the program wrote it; a step that ran twice has had one loss."""
    file, found = folder / "losses", dict[int, str]()
    for line in file.read_text().splitlines() if file.exists() else []:
        step, _, loss = line.partition(" ")
        assert found.setdefault(int(step), loss) == loss
    return found
