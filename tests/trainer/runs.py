"""One run under test: its configuration, its store, and what it left behind."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainrun_api import lineage
from trainrun_api.contract import CheckpointLayout

from tests.trainer.ranks import Ended, Launch, launch, start

TINY = {
    "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def tiny_config(text: Path, **changes: Any) -> dict[str, Any]:
    """0.16 M parameters on two sources of real text; 12 slots, so that 1 to 4 ranks share them evenly."""
    return {
        "model": {"architecture": TINY},
        "data": {
            "sources": {"domain": {"path": str(text / "domain")}, "general": {"path": str(text / "general")}},
            "mix": {"domain": 0.8, "general": 0.2}, "tokenizer": {"vocab_size": 1024}, "row_tokens": 48,
            "held_out_share": 0.1,
        },
        "total_steps": 12, "global_batch_rows": 12, "micro_batch_rows": 1, "optimizer": {"lr": 0.002},
        "schedule": {"warmup_steps": 3}, "eval": {"every_steps": 6, "max_rows_per_source": 5}, **changes,
    }  # fmt: skip


@dataclass
class Site:
    """A checkpoint folder and the worker groups that run over it, one after the other."""

    text: Path
    root: Path
    changes: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=lambda: {"interval": 4, "keepLast": 10})
    resume: dict[str, Any] = field(default_factory=dict)
    uid: str = "uid-1"
    starts: int = 0

    @property
    def store(self) -> Path:
        """checkpoint.path."""
        return self.root / "store"

    @property
    def progress(self) -> Path:
        """TRAINRUN_PROGRESS_DIR."""
        return self.root / "progress"

    def request(self, world_size: int, hook: str | None = None, **hook_args: Any) -> Launch:
        """The next attempt of the run."""
        self.progress.mkdir(parents=True, exist_ok=True)
        env = {
            "TRAINRUN_RUN": "test", "TRAINRUN_RUN_UID": self.uid, "TRAINRUN_ATTEMPT": str(self.starts // 2),
            "TORCHELASTIC_RESTART_COUNT": str(self.starts % 2),
            "TRAINRUN_CONFIG": json.dumps(tiny_config(self.text, **self.changes)),
            "TRAINRUN_CHECKPOINT": json.dumps(self.checkpoint), "TRAINRUN_CHECKPOINT_PATH": str(self.store),
            "TRAINRUN_RESUME": json.dumps(self.resume), "TRAINRUN_PROGRESS_DIR": str(self.progress),
            "TRAINRUN_ACCELERATOR": "cpu",
        }  # fmt: skip
        self.starts += 1
        return Launch(world_size, env, hook and f"tests.trainer.hooks:{hook}", hook_args)

    @property
    def logs(self) -> Path:
        """Where the newest start's output lies."""
        return self.root / f"start{self.starts}"

    def run(self, world_size: int, hook: str | None = None, **hook_args: Any) -> list[Ended]:
        """Start a worker group and wait for its end."""
        request = self.request(world_size, hook, **hook_args)
        return launch(request, self.logs)

    def begin(self, world_size: int, hook: str | None = None, **hook_args: Any) -> list[Any]:
        """Start a worker group and return its processes."""
        request = self.request(world_size, hook, **hook_args)
        return start(request, self.logs)

    def finish(self, world_size: int) -> dict[str, Any]:
        """Run to the end; every rank must return 0. Returns rank 0's outcome."""
        return only_code(self.run(world_size), 0)

    def claims(self) -> list[dict[str, Any]]:
        """All claims, by number."""
        files = (self.store / CheckpointLayout.CLAIMS).glob("*.json")
        return sorted((json.loads(f.read_text()) for f in files), key=lambda claim: int(claim["k"]))

    def metrics(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """One line per step, and the replays that diverged."""
        lines = {
            claim["k"]: lineage.read_lines(path.read_text())
            for claim in self.claims()
            if (path := self.store / CheckpointLayout.metrics(claim["k"])).exists()
        }
        return lineage.merge_metrics(self.claims(), lines)

    def losses(self) -> dict[int, str]:
        """loss_hex by step."""
        return {line["step"]: line["loss_hex"] for line in self.metrics()[0] if line["loss_hex"]}

    def manifests(self) -> dict[str, dict[str, Any]]:
        """All committed checkpoints, by folder name."""
        return {p.parent.name: json.loads(p.read_text()) for p in sorted(self.store.glob("step-*/manifest.json"))}

    def digests(self) -> dict[int, str]:
        """state_digest by step, along the newest claim's chain."""
        spans = lineage.chain(self.claims())
        return {
            m["step"]: m["state_digest"]
            for m in self.manifests().values()
            if any(span[0] == m["claim"] and lineage.holds(span, m["step"]) for span in spans)
        }

    def resumed_from(self) -> int | None:
        """Parent step of the newest claim."""
        parent = self.claims()[-1]["parent"]
        return None if parent is None else int(parent["step"])


def only_code(ended: list[Ended], code: int) -> dict[str, Any]:
    """Every rank must have returned this code; returns rank 0's outcome."""
    assert [e.outcome and e.outcome["exit_code"] for e in ended] == [code] * len(ended), ended
    assert ended[0].outcome is not None
    return ended[0].outcome


def was_killed(ended: list[Ended], rank: int) -> None:
    """The rank must have died of SIGKILL and no rank may have returned."""
    assert ended[rank].exit_code == -9, ended
    assert not any(e.outcome for e in ended), ended


def wait_for(path: Path) -> None:
    """Wait until another process has made this file."""
    while not path.exists():
        time.sleep(0.01)
