"""What `trainrun run` and its sisters refuse: one sentence on stderr, an exit code, no traceback, no process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from trainrun_operator.local.disk import write_json

from tests.local.conftest import marked
from tests.local.story import NAME, TRAINRUN, train, write_manifest


def no_change(manifest: dict) -> None:
    """The good manifest."""


def set_replicas(manifest: dict) -> None:
    manifest["spec"]["workers"]["replicas"] = 0


def set_s3(manifest: dict) -> None:
    manifest["spec"]["checkpoint"]["path"] = "s3://bucket/tiny"


@pytest.mark.parametrize(
    ("change", "arguments", "code", "words"),
    [
        (set_replicas, [], 20, "spec.workers.replicas"),
        (set_s3, [], 20, "spec.checkpoint.path=s3://bucket/tiny is for clusters: local mode"),
        (no_change, ["--fault", "melt-node@step=3"], 2, "melt-node@step=3 is not known; use lose-node@step=N"),
        (no_change, ["--fault", "lose-node@step=99"], 2, "never happens: the run has steps 1 to 40"),
    ],
    ids=["bad-manifest", "s3", "unknown-fault", "fault-beyond-the-end"],
)  # fmt: skip
def test_refused_before_anything_is_started(
    tmp_path: Path, workdir: Path, change: Callable[[dict], None], arguments: list[str], code: int, words: str
) -> None:
    """Nothing is written and nothing runs."""
    got, out, err = train(write_manifest(tmp_path, change), workdir, *arguments)
    assert (got, out) == (code, "")
    assert words in err and "Traceback" not in err
    assert not workdir.exists()
    assert marked(workdir) == []


def test_missing_manifest_is_a_sentence(tmp_path: Path, workdir: Path) -> None:
    """The path as it was given is in it."""
    code, _, err = train(tmp_path / "nowhere.yaml", workdir)
    assert code == 20 and "nowhere.yaml cannot be read" in err


def test_edit_of_what_is_immutable_is_refused(tmp_path: Path, workdir: Path) -> None:
    """A run that has started cannot get another tokenizer."""
    stored = json.loads(write_manifest(tmp_path).read_text())
    stored["metadata"] |= {"namespace": "default", "uid": "u", "resourceVersion": "7", "generation": 1}
    folder = workdir / NAME / ".local" / "objects"
    folder.mkdir(parents=True)
    write_json(folder / f"TrainingRun.default.{NAME}.json", stored)

    def retokenize(manifest: dict) -> None:
        manifest["spec"]["config"]["data"]["tokenizer"] = {"vocab_size": 600}

    code, _, err = train(write_manifest(tmp_path, retokenize), workdir)
    assert code == 20 and "spec.config.data" in err


@pytest.mark.parametrize("command", ["status", "logs", "explain", "report"])
def test_commands_without_a_run_say_so(workdir: Path, command: str) -> None:
    """A folder without runs, and a name that does not exist."""
    for name in ([], ["nobody"]):
        done = subprocess.run([*TRAINRUN, command, *name, "--workdir", str(workdir)], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{workdir} holds no run") and "Traceback" not in done.stderr


def test_validate_says_one_sentence_per_problem(tmp_path: Path) -> None:
    """Good files are named on stdout, bad ones explained on stderr, exit code 20."""
    good, bad = write_manifest(tmp_path / "good"), write_manifest(tmp_path / "bad", set_replicas)
    done = subprocess.run([*TRAINRUN, "validate", str(good), str(bad)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (20, f"{good}: valid\n")
    assert done.stderr.startswith(f"{bad}: spec.workers.replicas")
    done = subprocess.run([*TRAINRUN, "validate", "nowhere.yaml"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("nowhere.yaml")) == (20, 1)


def test_help_is_cheap() -> None:
    """Neither torch nor the Kubernetes client is imported before a command needs it."""
    program = (
        "import sys; from trainrun_operator.cli.app import app; import trainrun_operator.cli.run; "
        "print([m for m in ('torch', 'kubernetes', 'kopf', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([TRAINRUN[0], "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
