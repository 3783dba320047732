"""One side of `merge_speed.py`, run by a Python that has mergekit: merge_mergekit.py OUT CONFIG"""

import json
import sys

import torch
from measured import Measured
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions


def main(out: str, config: str) -> None:
    """Merge; one JSON line."""
    torch.set_num_threads(1)
    wanted = MergeConfiguration.model_validate_json(config)
    with Measured() as measured:
        run_merge(wanted, out, options=MergeOptions(quiet=True, copy_tokenizer=False))
    print(json.dumps(measured.facts))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
