"""The command as a person types it, and files to ask about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from trainrun_operator.cli.app import app
from typer.testing import CliRunner

EXAMPLES = Path(__file__).parents[3] / "examples"
HYPERPOD = EXAMPLES / "02-hyperpod" / "run.yaml"
STORY = EXAMPLES / "11-cpt" / "run.yaml"


def said(*arguments: str, code: int = 0) -> str:
    """What the command prints, with this exit code."""
    result = CliRunner().invoke(app, ["plan", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def written(folder: Path, config: Mapping[str, Any], stages: list[dict[str, Any]] | None = None) -> str:
    """Example 02 in this folder, with these sections of its configuration (None: without it) and these stages."""
    run = yaml.safe_load(HYPERPOD.read_text())
    merged = run["spec"]["config"] | dict(config)
    run["spec"] |= {
        "config": {name: value for name, value in merged.items() if value is not None},
        "stages": stages or [],
    }
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(run))
    return str(file)
