"""One side of `merge_speed.py`: merge_trainrun.py MERGES, which is {name: {out, config, models}}."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import torch
from measured import in_child
from trainrun_api.stage_config import MergeConfig
from trainrun_trainer.merging.merge import run


def merge(asked: dict[str, Any]) -> None:
    """One of them."""
    run(MergeConfig.model_validate(asked["config"]), {"models": asked["models"], "out": asked["out"]})


def main(merges: dict[str, dict[str, Any]]) -> None:
    """Each in a process of its own; one JSON line."""
    torch.set_num_threads(1)
    print(json.dumps({name: in_child(partial(merge, asked)) for name, asked in merges.items()}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
