"""Running `trainrun run` in a test: a tiny manifest on real text, the process, and what it left on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from trainrun_api.contract import ProgressFile

NAME = "tiny"
TRAINRUN = [sys.executable, "-c", "from trainrun_operator.cli import main; main()"]
LIMIT_SECONDS = 240.0
"""No wait of a test takes this long unless something is broken; two busy cores are slow."""

MANIFEST: dict[str, Any] = {
    "apiVersion": "trainrun.dev/v1alpha1",
    "kind": "TrainingRun",
    "metadata": {"name": NAME},
    "spec": {
        "image": "trainrun/trainer:0.1.0",
        "workers": {"replicas": 2, "devicesPerWorker": 1, "accelerator": "cpu"},
        "config": {
            "model": {
                "architecture": {
                    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "num_key_value_heads": 4,
                }
            },
            "data": {
                "sources": {"a": {"path": "text/a"}, "b": {"path": "text/b"}},
                "mix": {"a": 0.7, "b": 0.3},
                "tokenizer": {"vocab_size": 512},
                "row_tokens": 64,
            },
            "total_steps": 40,
            "global_batch_rows": 4,
            "micro_batch_rows": 1,
            "eval": {"every_steps": 20, "max_rows_per_source": 4},
        },
        "checkpoint": {"path": "/checkpoints/tiny", "interval": 10, "keepLast": 5},
        "health": {"startupTimeoutSeconds": 240, "stallTimeoutSeconds": 240},
        "terminationGracePeriodSeconds": 60,
    },
}  # fmt: skip


def write_manifest(folder: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> Path:
    """The manifest (JSON is YAML) with a change, and its text beside it: Python's own documentation."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (_, text) in enumerate(sorted(topics.items())):
        path = folder / "text" / "ab"[number % 2] / f"{number:03d}.txt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    manifest = json.loads(json.dumps(MANIFEST))
    change(manifest)
    (folder / "run.yaml").write_text(json.dumps(manifest))
    return folder / "run.yaml"


@dataclass(frozen=True)
class Story:
    """What a run left behind."""

    folder: Path

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def losses(self) -> list[tuple[int, str, str]]:
        """(step, exact loss, digest of the rows) of every step."""
        return [(m["step"], m["loss_hex"], m["rows_digest"]) for m in self.metrics()]

    def digests(self) -> dict[int, str]:
        """State digest of each committed checkpoint; of a step that was saved twice, the newer claim's."""
        manifests = [json.loads(p.read_text()) for p in self.folder.glob("checkpoints/step-*/manifest.json")]
        return {m["step"]: m["state_digest"] for m in sorted(manifests, key=lambda m: int(m["claim"]))}

    def events(self, **wanted: object) -> list[dict[str, Any]]:
        """Lines of events.jsonl that have these values."""
        path = self.folder / "events.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if wanted.items() <= line.items()]

    def status(self) -> dict[str, Any]:
        """status of status.json; empty before the first pass."""
        path = self.folder / "status.json"
        return json.loads(path.read_text()).get("status", {}) if path.exists() else {}

    def pods(self) -> dict[str, int]:
        """Pid of each pod that runs, by name."""
        records = [json.loads(p.read_text()) for p in self.folder.glob(".local/pods/*/record.json")]
        return {r["pod"]: r["process"]["pid"] for r in records}

    def asked_to_stop(self) -> list[Path]:
        """Stop requests that wait for workers, one per pod."""
        return sorted(self.folder.glob(f".local/pods/*/progress/{ProgressFile.STOP_REQUEST}"))


def start(file: Path, workdir: Path, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.Popen:
    """Start `trainrun run`; its output comes through `finish`."""
    command = [*prefix, *TRAINRUN, "run", str(file), "--workdir", str(workdir), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a started command."""
    with process:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, out, err


def train(file: Path, workdir: Path, *arguments: str) -> tuple[int, str, str]:
    """Run to the end."""
    return finish(start(file, workdir, *arguments))


def eventually(condition: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> Any:
    """Wait for a truthy answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Hold:
    """Holds the last rank after a step, by the faults' own protocol, so that a test can act at a known point."""

    def __init__(self, story: Story, step: int) -> None:
        self._folder = story.folder / ".local" / "faults"
        self._name = f"test-{step}"
        eventually(lambda: (story.folder / ".local" / "desired.json").exists())  # requests of the start are written
        request = {"id": self._name, "kind": "test", "step": step, "rank": -1}
        temporary = self._folder / f"{self._name}.new"
        temporary.write_text(json.dumps(request))
        os.replace(temporary, self._folder / f"{self._name}.json")

    def wait(self) -> None:
        """Until the worker is held."""
        eventually((self._folder / f"{self._name}.held").exists)

    def release(self) -> None:
        """Let it go on."""
        (self._folder / f"{self._name}.done").write_text("{}")
