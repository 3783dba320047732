"""What a worker is told, and how it says that it was told something wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trainrun_api.contract import Env
from trainrun_trainer.environment import read_environment
from trainrun_trainer.errors import ConfigError

from tests.trainer.runs import tiny_config


@pytest.mark.parametrize(
    ("config", "checkpoint", "says"),
    [
        ({"total_steps": 0}, {}, r"^config\.total_steps: .*, got 0$"),
        ({}, {"keepLast": 1}, r"^checkpoint\.keepLast: .*, got 1$"),
    ],
    ids=["config", "checkpoint"],
)
def test_a_wrong_field_is_named_where_it_stands(config: dict[str, int], checkpoint: dict[str, int], says: str) -> None:
    """With the value got."""
    env = {
        Env.CONFIG: json.dumps(tiny_config(Path("/text")) | config),
        Env.CHECKPOINT: json.dumps(checkpoint),
        Env.CHECKPOINT_PATH: "/checkpoints/a",
    }
    with pytest.raises(ConfigError, match=says):
        read_environment(env)
