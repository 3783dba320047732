"""A run of several stages under test: stages are started one by one, as attempts, over one root."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from trainrun_trainer import worker
from trainrun_trainer.stages.hashes import files_of
from trainrun_trainer.storage import Before

from tests.trainer.hooks import watched
from tests.trainer.ranks import Ended, Launch, launch, start
from tests.trainer.runs import only_code, tiny_config

Stages = dict[str, tuple[str, dict[str, Any]]]
SUBJECTS = ["data", "base", "tuned", "before", "merged", "plain", "after", "curve"]
ROWS = {"global_batch_rows": 4, "total_steps": 4, "schedule": {"warmup_steps": 1}, "eval": None}


def chain_of(text: Path) -> Stages:
    """From text to an evaluated merge; configurations as the operator hands them on."""
    base = tiny_config(text, **ROWS)
    tuned = json.loads(json.dumps(base))
    tuned |= {"model": {"path": "stage:base"}, "seed": 1}
    tuned["data"] |= {"mix": {"domain": 1.0, "general": 0.0}, "tokenizer": {"path": "stage:base"}}
    sets = {
        name: {"prepared": "stage:tuned/data", "source": name, "max_documents": 3} for name in ("domain", "general")
    }
    return {
        "data": ("prepare", base),
        "base": ("train", base),
        "tuned": ("train", tuned),
        "before": ("evaluate", {"perplexity": sets, "model": "stage:tuned", "baseline": "stage:base"}),
        "merged": ("merge", {"method": "slerp", "t": 0.5, "models": ["stage:base", "stage:tuned"]}),
        "plain": ("consolidate", {"checkpoint": "stage:tuned/checkpoints"}),
        "after": ("evaluate", {"perplexity": sets, "model": "stage:merged", "baseline": "stage:plain"}),
        "curve": ("evaluate", {"perplexity": sets, "checkpoints": "stage:tuned/checkpoints"}),
        "page": ("report", {"title": "From text to a merge", "stages": SUBJECTS}),
    }


@dataclass
class Chain:
    """The root, and the attempts over it."""

    root: Path
    scratch: Path
    uid: str = "uid-1"
    attempts: int = 0
    checkpoint: dict[str, Any] = field(default_factory=lambda: {"interval": 2, "keepLast": 10})

    def env(self, name: str, kind: str, config: Mapping[str, Any]) -> dict[str, str]:
        """Orders of the next attempt."""
        progress = self.scratch / f"progress{self.attempts}"
        progress.mkdir(parents=True, exist_ok=True)
        env = {
            "TRAINRUN_RUN": "test", "TRAINRUN_RUN_UID": self.uid, "TRAINRUN_ATTEMPT": str(self.attempts),
            "TORCHELASTIC_RESTART_COUNT": "0", "TRAINRUN_STAGE": name, "TRAINRUN_STAGE_KIND": kind,
            "TRAINRUN_CONFIG": json.dumps(config), "TRAINRUN_CHECKPOINT": json.dumps(self.checkpoint),
            "TRAINRUN_CHECKPOINT_PATH": str(self.root), "TRAINRUN_RESUME": "{}",
            "TRAINRUN_PROGRESS_DIR": str(progress), "TRAINRUN_ACCELERATOR": "cpu",
        }  # fmt: skip
        self.attempts += 1
        return env

    def begin(self, stages: Stages, name: str, hook: str | None = None, ranks: int = 1, **hook_args: Any) -> list[Any]:
        """Processes of the next attempt, of this stage."""
        request = Launch(ranks, self.env(name, *stages[name]), hook and f"tests.trainer.hooks:{hook}", hook_args)
        return start(request, self.logs)

    def run(self, stages: Stages, name: str, hook: str | None = None, ranks: int = 1, **hook_args: Any) -> list[Ended]:
        """The next attempt, of this stage."""
        request = Launch(ranks, self.env(name, *stages[name]), hook and f"tests.trainer.hooks:{hook}", hook_args)
        return launch(request, self.logs)

    @property
    def logs(self) -> Path:
        """Of the newest attempt."""
        return self.scratch / f"attempt{self.attempts}"

    def play(self, stages: Stages) -> dict[str, dict[str, Any]]:
        """Every stage to its end, in order; outcomes by name. `base` has two ranks."""
        return {name: only_code(self.run(stages, name, ranks=1 + (name == "base")), 0) for name in stages}

    def record(self, name: str) -> dict[str, Any]:
        """stage.json."""
        found: dict[str, Any] = json.loads((self.root / "stages" / name / "stage.json").read_text())
        return found

    def result(self, name: str) -> Path:
        """What stage:NAME means."""
        return self.root / str(self.record(name)["result"])

    def claims(self, stages: Stages) -> dict[str, int]:
        """How often each stage did something."""
        return {name: len(list((self.root / "stages" / name / "claims").glob("*.json"))) for name in stages}

    def files(self) -> dict[str, str]:
        """Everything in the root, with its hash."""
        return files_of(self.root)


def attempt(chain: Chain, kind: str, config: dict[str, Any], before: Before | None = None) -> dict[str, Any]:
    """The next attempt of stage `it`, in this process."""
    env = chain.env("it", kind, config)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        return worker.run(watched(before)) if before else worker.run()
