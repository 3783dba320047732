"""LoRA against full training: samples per second of CPU time, the shipped worker on both sides, in turns.

Both start from the same folder and train steps of 4 rows of 256 tokens; LoRA is rank 16 on queries and values, as it
is by default. Forward pass, backward pass, clipping, optimizer and bookkeeping are counted, checkpoints are not. Pairs
go through three seeds.

    python bench/lora_speed.py [--quick] [--pairs N] [--sizes 7M 50M]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from side_by_side import fetch_text, median, of, ratio, write
from speed_models import ROW_TOKENS, SIZES, VOCABULARY, workload
from trainer_speed import QUICK_STEPS, SIDES, STEPS, pair
from transformers import LlamaConfig, LlamaForCausalLM

TARGET = 1.3
STEP_ROWS = 4
SEEDS = 3
"""Of adapters and data order, one after the other."""


def compare(size: str, pairs: int, steps: int, folder: Path) -> dict[str, Any]:
    """Pairs of one size."""
    torch.manual_seed(0)
    base = folder / size
    config = LlamaConfig(**SIZES[size], vocab_size=VOCABULARY, max_position_embeddings=ROW_TOKENS)
    LlamaForCausalLM(config).save_pretrained(base)
    full = workload(size, "fp32", steps, STEP_ROWS) | {"model": {"path": str(base)}}
    configs = {"lora": full | {"lora": {"r": 16}}, "full": full}

    programs = dict.fromkeys(configs, SIDES["trainrun"])
    seeded = [{side: config | {"seed": number % SEEDS} for side, config in configs.items()} for number in range(pairs)]
    made = [pair(of_seed, programs, str(folder)) for of_seed in seeded]
    name = "samples_per_cpu_second"
    found = {side: [{name: one[side]["tokens_per_cpu_second"] / ROW_TOKENS} for one in made] for side in configs}
    speeds = {side: median(found, side, name) for side in configs}
    faster = ratio(of(found, "lora", name), of(found, "full", name))
    print(f"{size:<4}  {speeds['lora']:>6.2f} {speeds['full']:>6.2f}  {faster}  >= {TARGET}", flush=True)
    return {"size": size, name: speeds, "ratio": faster.facts(), "target": TARGET}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 pairs of fewer steps")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    options = parser.parse_args()
    pairs, steps = options.pairs or (3 if options.quick else 7), QUICK_STEPS if options.quick else STEPS
    fetch_text()
    print("size  samples per CPU-second: LoRA, full; ratio; target")
    with tempfile.TemporaryDirectory(prefix="trainrun-lora-") as folder:
        results = [compare(size, pairs, steps[size], Path(folder)) for size in options.sizes]
    write("lora_speed", results)


if __name__ == "__main__":
    main()
