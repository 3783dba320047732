"""lm-evaluation-harness as a program in an environment of its own, kept off the network."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from trainrun_api.stage_config import LmEval

from trainrun_trainer.errors import ConfigError

WORDS_SHOWN = 500
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def run_suites(task: LmEval, model: Path, out: Path, device: str) -> dict[str, float]:
    """{'task metric': value} of one model; the program's own files stay below `out`. Raises ConfigError."""
    command = [
        task.python, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32",
        "--tasks", ",".join(task.tasks), "--include_path", task.include_path, "--output_path", str(out),
        "--device", device, "--batch_size", "1",
        *([] if task.limit is None else ["--limit", str(task.limit)]),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **OFFLINE},
            timeout=task.timeout_seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"lm_eval of {model} did not end within lm_eval.timeout_seconds={task.timeout_seconds}; raise it, or lower "
            "lm_eval.limit"
        ) from error
    except OSError as error:
        raise ConfigError(f"lm_eval.python={task.python} cannot be run: {error}") from error
    written = sorted(out.rglob("results_*.json"))
    if done.returncode or not written:
        raise ConfigError(f"lm_eval of {model} ended with {done.returncode}: {done.stderr.strip()[-WORDS_SHOWN:]}")
    return _numbers(json.loads(written[-1].read_text()))


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    """Metrics are named `metric,filter`; their errors and names are left out."""
    return {
        f"{task} {metric.split(',')[0]}": float(value)
        for task, metrics in sorted(found["results"].items())
        for metric, value in metrics.items()
        if isinstance(value, int | float) and "," in metric and "_stderr" not in metric
    }
