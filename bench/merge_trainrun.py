"""One side of `merge_speed.py`: merge_trainrun.py OUT CONFIG MODEL ..."""

from __future__ import annotations

import json
import sys

import torch
from measured import Measured
from trainrun_trainer.merging.config import MergeConfig
from trainrun_trainer.merging.merge import run


def main(out: str, config: MergeConfig, models: list[str]) -> None:
    """Merge; one JSON line."""
    torch.set_num_threads(1)
    with Measured() as measured:
        run(config, {"models": models, "out": out})
    print(json.dumps(measured.facts))


if __name__ == "__main__":
    main(sys.argv[1], MergeConfig.model_validate_json(sys.argv[2]), sys.argv[3:])
