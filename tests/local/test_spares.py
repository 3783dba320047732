"""`trainrun run` with a warm spare: a node is lost, the attempt goes on, and the model cannot tell."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from trainrun_trainer.agent import proctree

from tests.local.conftest import marked
from tests.local.story import NAME, Hold, Story, eventually, finish, start, train, write_manifest

pytestmark = pytest.mark.timeout(600)


def lose_node_of(story: Story, pod: str) -> str:
    """The pod's slot is gone with every process on it; its name."""
    record = next(
        r for p in story.folder.glob(".local/pods/*/record.json") if (r := json.loads(p.read_text()))["pod"] == pod
    )
    (story.folder / ".local" / "lost-nodes" / record["node"]).touch()  # first: nobody may report the deaths that follow
    leader = record["process"]["pid"]
    for pid in [leader, *proctree.descendants(leader)]:
        with suppress(ProcessLookupError):  # it may have died with its parent
            os.kill(pid, signal.SIGKILL)
    return str(record["node"])


def test_a_spare_takes_the_place_of_a_lost_worker(tmp_path: Path, workdir: Path) -> None:
    """One attempt, a replacement pod, the same losses and states bit for bit as a run that nothing happened to."""
    file = write_manifest(tmp_path, lambda manifest: manifest["spec"]["workers"].update(spares=1))
    code, out, err = train(file, tmp_path / "calm")
    assert code == 0, out + err
    calm, story = Story(tmp_path / "calm" / NAME), Story(workdir / NAME)
    assert calm.status()["attempts"][0]["spares"] == 1
    process = start(file, workdir)
    held, later = Hold(story, 15), Hold(story, 25)
    held.wait()
    eventually(lambda: f"{NAME}-a0-worker-2" in story.pods())
    node = lose_node_of(story, f"{NAME}-a0-worker-1")
    held.release()
    later.wait()
    eventually(lambda: story.status()["attempts"][0].get("replaced") == 1)
    eventually(lambda: f"{NAME}-a0-worker-1" in story.pods())
    later.release()
    code, out, err = finish(process)
    assert code == 0, out + err
    status = story.status()
    assert [(a["cause"], a["inplaceRestarts"]) for a in status["attempts"]] == [("Done", 1)]
    assert status["nodes"]["excluded"] == [node]
    # silent for 6 s on a node that is not Ready, or gone with the node, which is replaced after 6 s
    assert re.search(rf"goes on without pod {NAME}-a0-worker-1: .*, and node {node} is (not Ready|gone);", out)
    assert story.losses() == calm.losses()
    assert story.digests() == calm.digests()
    assert marked(workdir) == []
