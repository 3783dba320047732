"""One side of `merge_speed.py`, run by a Python that has mergekit: MERGES is {name: {out, config}}."""

import json
import sys
from functools import partial
from typing import Any

import torch
from measured import in_child
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions


def merge(asked: dict[str, Any]) -> None:
    """One of them."""
    options = MergeOptions(quiet=True, copy_tokenizer=False)
    run_merge(MergeConfiguration.model_validate(asked["config"]), asked["out"], options=options)


def main(merges: dict[str, dict[str, Any]]) -> None:
    """Each in a process of its own; one JSON line."""
    torch.set_num_threads(1)
    print(json.dumps({name: in_child(partial(merge, asked)) for name, asked in merges.items()}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
