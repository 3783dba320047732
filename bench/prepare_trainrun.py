"""One side of `prepare_speed.py`: the shipped `prepare`, all of it.

prepare_trainrun.py CONFIG STORE
"""

from __future__ import annotations

import json
import sys

import torch
from measured import Measured
from trainrun_api.data_config import DataConfig
from trainrun_trainer.prepare import prepare
from trainrun_trainer.stores import open_storage


def main(config: DataConfig, store: str) -> None:
    """Prepare; one JSON line."""
    torch.set_num_threads(1)
    with Measured() as measured:
        facts = prepare(config, open_storage(store)).facts["sources"]["text"]["train"]
    print(json.dumps(measured.facts | {"tokens": facts["tokens"], "rows": facts["rows"]}))


if __name__ == "__main__":
    main(DataConfig.model_validate_json(sys.argv[1]), sys.argv[2])
