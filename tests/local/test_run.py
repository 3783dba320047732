"""`trainrun run` end to end: whatever breaks, the run ends Succeeded with the losses of an undisturbed one."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.local.conftest import marked
from tests.local.story import NAME, Hold, Story, eventually, finish, is_alive, start, train, write_manifest

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The undisturbed run that all others are compared with."""
    folder = tmp_path_factory.mktemp("calm")
    code, out, err = train(write_manifest(folder), folder / "runs")
    assert code == 0, out + err
    return Story(folder / "runs" / NAME)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The same manifest in a folder of this test's own."""
    return write_manifest(tmp_path)


@pytest.fixture
def story(workdir: Path) -> Story:
    """What the test's run leaves."""
    return Story(workdir / NAME)


def assert_equal(story: Story, calm: Story) -> None:
    """Every step once, with the same loss and rows; every common checkpoint with the same state."""
    assert story.losses() == calm.losses()
    common = story.digests().keys() & calm.digests().keys()
    assert len(common) >= 3
    assert {s: story.digests()[s] for s in common} == {s: calm.digests()[s] for s in common}


def test_an_undisturbed_run_leaves_everything_a_reader_needs(calm: Story) -> None:
    """One line per step, journal, status, logs, checkpoints, export, report; and no process."""
    assert [m["step"] for m in calm.metrics()] == list(range(1, 41))
    assert {"loss", "loss_hex", "attempt", "generation", "rows_digest", "grad_norm", "lr", "tokens"} <= calm.metrics()[
        0
    ].keys()
    assert calm.status()["result"] == "Succeeded"
    assert calm.events(type="decision")[0]["rule"] == "attempt_starts"
    assert sorted(p.name for p in (calm.folder / "logs").iterdir()) == [
        "operator.log", f"{NAME}-a0-worker-0.log", f"{NAME}-a0-worker-1.log",
    ]  # fmt: skip
    assert (calm.folder / "checkpoints" / "export" / "config.json").exists()
    assert "<html" in (calm.folder / "report.html").read_text()
    assert calm.pods() == {}


@pytest.mark.parametrize(
    ("faults", "causes"),
    [
        (["kill-worker@step=25"], ["Done"]),
        (["lose-node@step=25,rank=0"], ["NodeLost", "Done"]),
        (["hang-worker@step=20"], ["Stalled", "Done"]),
        (["kill-operator@step=25"], ["Done"]),
        (["corrupt-checkpoint@latest"], ["NodeLost", "Done"]),
        (
            ["kill-worker@step=4", "lose-node@step=13,rank=0", "kill-operator@step=20", "lose-node@step=29",
             "corrupt-checkpoint@latest"],
            # an operator that was killed a moment ago has heard no agent: it may have only the survivor's word
            ["NodeLost", "NodeLost or PeerLost", "Done"],
        ),
    ],
    ids=["kill-worker", "lose-node", "hang-worker", "kill-operator", "corrupt", "several"],
)  # fmt: skip
def test_a_faulted_run_succeeds_with_the_same_losses(
    file: Path, workdir: Path, story: Story, calm: Story, faults: list[str], causes: list[str]
) -> None:
    """Each fault fires once, attempts end for the reason that the fault was, and the model cannot tell."""
    if "hang-worker@step=20" in faults:  # the others shall not take a busy machine for a hang
        write_manifest(file.parent, lambda manifest: manifest["spec"]["health"].update(stallTimeoutSeconds=5))
    code, out, err = train(file, workdir, *(word for fault in faults for word in ("--fault", fault)))
    assert code == 0, out + err
    fired = [e["fault"] for e in story.events(type="fault")]
    implied = ["lose-node@step=20"] if faults == ["corrupt-checkpoint@latest"] else []
    assert sorted(fired) == sorted([*faults, *implied])
    ended_by = [a["cause"] for a in story.status()["attempts"]]
    assert len(ended_by) == len(causes)
    assert all(cause in allowed.split(" or ") for cause, allowed in zip(ended_by, causes, strict=True)), ended_by
    assert_equal(story, calm)
    assert story.events(reason="ReplayDiverged") == []
    assert marked(workdir) == []


def test_with_too_few_nodes_it_goes_on_with_fewer_workers(
    tmp_path: Path, workdir: Path, story: Story, calm: Story
) -> None:
    """One slot for two workers, of which one may be enough: the same rows in the same order, nearly the same loss."""
    file = write_manifest(tmp_path, lambda manifest: manifest["spec"]["workers"].update(minReplicas=1))
    code, out, err = train(file, workdir, "--nodes", "1")
    assert code == 0, out + err
    attempts = story.status()["attempts"]
    assert [(a["cause"], a["replicas"]) for a in attempts] == [("GangIncomplete", 2), ("Done", 1)]
    assert "got nodes for 1 of 2 workers; the run goes on with 1 (spec.workers.minReplicas=1)" in out
    mine, theirs = story.metrics(), calm.metrics()
    assert [(m["step"], m["rows_digest"]) for m in mine] == [(m["step"], m["rows_digest"]) for m in theirs]
    assert [m["loss"] for m in mine] == pytest.approx([m["loss"] for m in theirs], rel=0.01)


def test_ctrl_c_saves_and_the_same_command_goes_on(file: Path, workdir: Path, story: Story, calm: Story) -> None:
    """Exit 10, a checkpoint at the stop step, no process; then, edited, Succeeded and equal; then nothing to do."""
    process = start(file, workdir)
    held = Hold(story, 15)
    held.wait()
    process.send_signal(signal.SIGINT)
    eventually(lambda: len(story.asked_to_stop()) == 2)
    held.release()
    code, out, err = finish(process)
    assert code == 10, out + err
    assert "the same command goes on from there" in out
    assert marked(workdir) == []
    stopped_at = max(story.digests())
    assert stopped_at == 16
    edited = write_manifest(file.parent, lambda manifest: manifest["spec"]["checkpoint"].update(keepLast=6))
    code, out, err = train(edited, workdir)
    assert code == 0, out + err
    assert f"goes on from the checkpoint of step {stopped_at}" in out
    generations = [attempt["generation"] for attempt in story.status()["attempts"]]
    assert len(generations) == 2 and generations[0] < generations[1]
    assert_equal(story, calm)
    before = sorted(p.name for p in story.folder.rglob("*"))
    code, out, _ = train(file, workdir)
    assert code == 0 and "Succeeded" in out and "nothing is done" in out
    assert sorted(p.name for p in story.folder.rglob("*")) == before


def test_third_ctrl_c_kills_what_does_not_stop(file: Path, workdir: Path, story: Story) -> None:
    """A held worker cannot save: the second signal names what is waited for, the third ends it, exit 10."""
    process = start(file, workdir)
    held = Hold(story, 5)
    held.wait()
    assert process.stdout is not None
    waited_for = "still waiting for tiny-a0-worker-0, tiny-a0-worker-1"
    for number, words in ((signal.SIGINT, "stopping:"), (signal.SIGTERM, waited_for), (signal.SIGINT, "stopped")):
        process.send_signal(number)
        assert eventually(lambda: [line for line in (process.stdout.readline(),) if words in line])  # noqa: B023
    assert finish(process)[0] == 10
    assert marked(workdir) == []
    assert max(story.digests()) == 0


def test_killed_supervisor_is_succeeded_by_one_that_adopts(
    file: Path, workdir: Path, story: Story, calm: Story
) -> None:
    """Meanwhile a second start is refused; after kill -9 the pods train on, and the next start takes them over."""
    process = start(file, workdir)
    held = Hold(story, 15)
    held.wait()
    code, _, err = train(file, workdir)
    assert code == 3 and f"is in use by process {process.pid}" in err
    pods = story.pods()
    assert len(pods) == 2
    process.kill()
    finish(process)
    assert all(is_alive(pid) for pid in pods.values())
    successor = start(file, workdir)
    adopted = eventually(lambda: story.events(type="adopted"))
    held.release()
    code, out, err = finish(successor)
    assert code == 0, out + err
    assert "2 pods of an earlier start" in out
    assert sorted(pods) == sorted(adopted[0]["message"].removeprefix("goes on with ").split(", "))
    assert [a["cause"] for a in story.status()["attempts"]] == ["Done"]
    assert_equal(story, calm)


def test_everything_killed_is_a_new_attempt(file: Path, workdir: Path, story: Story, calm: Story) -> None:
    """kill -9 of supervisor, operator and pods: the next start sees dead pods and resumes from the checkpoint."""
    process = start(file, workdir)
    held = Hold(story, 25)
    held.wait()
    process.kill()
    for pid in marked(workdir):
        with suppress(ProcessLookupError):  # one has ended with another
            os.kill(pid, signal.SIGKILL)
    finish(process)
    held.release()
    code, out, err = train(file, workdir)
    assert code == 0, out + err
    assert len(story.status()["attempts"]) == 2
    assert_equal(story, calm)


def test_full_disk_during_a_save_is_told_and_survived(file: Path, workdir: Path, story: Story, calm: Story) -> None:
    """The checkpoints lie on a small disk of their own; while it is full a save fails and training goes on."""
    folder = story.folder / "checkpoints"
    folder.mkdir(parents=True)
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mount = f'mount -t tmpfs -o size=64m none "{folder}" && exec "$@"'
    process = start(file, workdir, prefix=[*unshare, "sh", "-c", mount, "sh"])
    before, after = Hold(story, 8), Hold(story, 15)
    before.wait()
    inside = Path(f"/proc/{next(iter(story.pods().values()))}/root") / folder.relative_to("/")
    filler = inside / "filler"
    with open(filler, "wb", buffering=0) as filling:
        for size in (1 << 20, 4096):  # whole pages: nothing is left
            with pytest.raises(OSError, match="No space left"):
                while filling.write(bytes(size)) == size:
                    pass
                filling.write(bytes(size))
    before.release()
    after.wait()
    eventually(lambda: story.events(reason="SaveFailed"))
    filler.unlink()
    after.release()
    code, out, err = finish(process)
    assert code == 0, out + err
    assert "SaveFailed" in out
    assert story.losses() == calm.losses()
    assert len(story.status()["attempts"]) == 1


def test_a_users_own_program_runs_under_torchrun(tmp_path: Path, workdir: Path, story: Story) -> None:
    """No config, no steps: two ranks meet, write, and their success is the run's."""
    program = "import os, pathlib; pathlib.Path('rank' + os.environ['RANK']).write_text(os.environ['WORLD_SIZE'])"
    (tmp_path / "own.py").write_text(program)

    def own(manifest: dict) -> None:
        del manifest["spec"]["config"]
        manifest["spec"] |= {"image": "own/image:1", "command": ["own.py"]}

    code, out, err = train(write_manifest(tmp_path, own), workdir)
    assert code == 0, out + err
    assert [(tmp_path / f"rank{r}").read_text() for r in (0, 1)] == ["2", "2"]
    assert story.status()["result"] == "Succeeded"


def test_a_failing_program_fails_the_run_with_its_words(tmp_path: Path, workdir: Path, story: Story) -> None:
    """maxRestarts 0: exit code 1, and the verdict is a sentence on the terminal."""
    (tmp_path / "own.py").write_text("raise SystemExit('the moon is in the wrong house')")

    def own(manifest: dict) -> None:
        del manifest["spec"]["config"]
        manifest["spec"] |= {"command": ["own.py"], "failurePolicy": {"maxRestarts": 0}}
        manifest["spec"]["workers"]["replicas"] = 1

    code, out, err = train(write_manifest(tmp_path, own), workdir)
    assert code == 1, out + err
    assert f"{NAME}: Failed." in out
    assert "the moon is in the wrong house" in (story.folder / "logs" / f"{NAME}-a0-worker-0.log").read_text()


def test_python_of_the_tests_is_the_python_of_the_pods(calm: Story) -> None:
    """Local mode uses this interpreter, whatever the image says."""
    assert shutil.which("python", path=str(Path(sys.executable).parent))
