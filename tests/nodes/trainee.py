"""The run of these tests: real text, a tiny model, two workers; and what it leaves on the shared volume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from trainrun_api.contract import CheckpointLayout
from trainrun_api.lineage import merge_metrics, read_lines
from trainrun_operator.cluster import Object

from tests.api.manifests import merged
from tests.nodes.node import DEVICE

TOTAL_STEPS = 200
"""After BETWEEN_CHECKPOINTS 5 s are left with the shortest steps: what a test does then comes before the end."""
INTERVAL = 20
"""Steps between two checkpoints."""
BETWEEN_CHECKPOINTS = INTERVAL + INTERVAL // 4
KEPT = TOTAL_STEPS // INTERVAL + 2
"""Checkpoints: all of a run, also that of step 0 and one that somebody asked for."""
LONG_STEPS = 100_000
"""Of a run that shall outlast whatever is done to the cluster; it is deleted in the end."""
STARVED_SECONDS = 60
"""No step for so long is no fault of a run when two clusters share two cores."""
MOUNT = "/shared"


def pod_template(volume: Path, container: dict[str, Any] | None = None) -> Object:
    """Of a worker: it requests the one device of a node, and sees the shared volume; `container` is laid over it."""
    usual = {
        "name": "pytorch",
        "imagePullPolicy": "Never",
        "resources": {"requests": {DEVICE: "1"}, "limits": {DEVICE: "1"}},
        "volumeMounts": [{"name": "shared", "mountPath": MOUNT}],
    }
    volumes = [{"name": "shared", "hostPath": {"path": str(volume), "type": "Directory"}}]
    return {"spec": {"volumes": volumes, "containers": [merged(usual, container or {})]}}


def manifest(name: str, namespace: str, image: str, volume: Path) -> Object:
    """As a user writes it."""
    config = {
        "model": {
            "architecture": {
                "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 4,
            },
        },
        "data": {
            "sources": {"a": {"path": f"{MOUNT}/text/a"}, "b": {"path": f"{MOUNT}/text/b"}},
            "mix": {"a": 0.7, "b": 0.3},
            "tokenizer": {"vocab_size": 512},
            "row_tokens": 64,
        },
        "total_steps": TOTAL_STEPS,
        "global_batch_rows": 8,
        "micro_batch_rows": 1,
        "eval": {"every_steps": INTERVAL, "max_rows_per_source": 4},
    }  # fmt: skip
    return {
        "apiVersion": "trainrun.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "image": image,
            "workers": {"replicas": 2, "devicesPerWorker": 1, "accelerator": "cpu", "template": pod_template(volume)},
            "config": config,
            "checkpoint": {"path": f"{MOUNT}/{name}", "interval": INTERVAL, "keepLast": KEPT},
            # steps of 30 ms have auto's shortest limit, and a starved machine stands still for longer than that
            "health": {"stallTimeoutSeconds": STARVED_SECONDS},
            "terminationGracePeriodSeconds": 60,
        },
    }


def write_text(volume: Path) -> None:
    """Python's own documentation, in two sources."""
    for number, (_, text) in enumerate(sorted(topics.items())):
        path = volume / "text" / "ab"[number % 2] / f"{number:03d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Traces:
    """What a run has written so far."""

    def __init__(self, volume: Path, name: str) -> None:
        self._store = volume / name

    def step(self) -> int:
        """The last step that counts."""
        return max((line["step"] for line in self.steps()), default=0)

    def steps(self) -> list[dict[str, Any]]:
        """One line per step, merged along the claims."""
        return [line for line in merge_metrics(self.claims(), self._lines())[0] if line.get("loss_hex") is not None]

    def diverged(self) -> list[dict[str, Any]]:
        """Steps that ran again with another loss."""
        return list(merge_metrics(self.claims(), self._lines())[1])

    def losses(self) -> list[tuple[int, str, str]]:
        """(step, exact loss, digest of the rows) of every step."""
        return [(line["step"], line["loss_hex"], line["rows_digest"]) for line in self.steps()]

    def digests(self) -> dict[int, str]:
        """State digest of each committed checkpoint; of a step that was saved twice, the newer claim's."""
        found = sorted(self.checkpoints(), key=lambda one: int(one["claim"]))
        return {one["step"]: one["state_digest"] for one in found}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Manifests of the committed checkpoints."""
        return list(_read_all(self._store, f"step-*/{CheckpointLayout.MANIFEST}"))

    def claims(self) -> list[dict[str, Any]]:
        """Every start of a worker group."""
        return list(_read_all(self._store, f"{CheckpointLayout.CLAIMS}/*.json"))

    def assert_no_step_repeated(self) -> None:
        """The second start went on from the last step that the first one did: it had saved there."""
        older, newer = self.claims()
        done = [line["step"] for line in self._lines()[older["k"]] if line.get("loss_hex") is not None]
        assert (newer["parent"]["step"], newer["parent"]["claim"]) == (done[-1], older["k"])

    def assert_same_bits(self, calm: Traces) -> None:
        """Losses and rows of every step, states of every checkpoint that both have; no replay differed."""
        assert self.losses() == calm.losses()
        assert self.diverged() == []
        ours, theirs = self.digests(), calm.digests()
        common = ours.keys() & theirs.keys()
        assert TOTAL_STEPS in common
        assert {step: ours[step] for step in common} == {step: theirs[step] for step in common}

    def _lines(self) -> dict[int, list[dict[str, Any]]]:
        folder = self._store / CheckpointLayout.METRICS
        return {int(path.stem[1:]): read_lines(path.read_text()) for path in folder.glob("c*.jsonl")}


def _read_all(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(pattern)):
        try:
            yield json.loads(path.read_text())
        except (ValueError, FileNotFoundError):  # being written, or pruned meanwhile
            continue
