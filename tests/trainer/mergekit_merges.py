"""Run by mergekit's own Python: merges described in a JSON file, by mergekit.

The elements that DARE drops are drawn by a generator of mergekit's; to compare the arithmetic, it is given ours, found
by the bytes of the difference to which they belong.
"""

import json
import sys
from pathlib import Path

import torch
from mergekit import sparsify
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file


def drop_as_told(base, models, survivors):
    """Replace mergekit's random mask."""
    told = {}
    before = load_file(base)
    for number, model in enumerate(models):
        kept = load_file(f"{survivors}/{number}.safetensors")
        for name, tensor in load_file(model).items():
            told[(tensor - before[name]).numpy().tobytes()] = kept[name]

    def masked(tensor, density, rescale_norm=None):
        assert rescale_norm is None
        return tensor * told[tensor.numpy().tobytes()]

    sparsify.bernoulli = masked


def main(file: Path) -> None:
    torch.set_num_threads(1)
    asked = json.loads(file.read_text())
    drop_as_told(**asked["dare"])
    for out, config in asked["merges"].items():
        run_merge(
            MergeConfiguration.model_validate(config), out, options=MergeOptions(quiet=True, copy_tokenizer=False)
        )


main(Path(sys.argv[1]))
