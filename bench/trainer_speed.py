"""Trainer speed: our loop against Hugging Face's Trainer on equal rows, in one run, interleaved.

Each side trains the same Llama on the same packed rows (isolated documents, fused AdamW, clipping, cosine) in a
process of its own; the figure is tokens per second of CPU time, steps after the first few, checkpoints outside the
window. The two processes of a pair take turns step by step (turns.py); the ratio is the median of the pairs' ratios.

    python bench/trainer_speed.py [--quick] [--pairs N] [--sizes 7M 50M] [--precisions fp32 bf16]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from side_by_side import OURS, ROOT, fetch_text, median, of, ratio, write
from speed_models import SIZES, workload
from turns import in_turns

SIDES = {"trainrun": ROOT / "bench" / "speed_trainrun.py", "hf-trainer": ROOT / "bench" / "speed_hf.py"}
TARGETS = {"7M": 1.03, "50M": 0.98}
"""0.98 everywhere is the floor, 1.05 the aim."""
STEPS, STEP_ROWS = {"7M": 20, "50M": 10}, {"7M": 8, "50M": 4}
QUICK_STEPS = {"7M": 10, "50M": 6}


def pair(configs: Mapping[str, dict[str, Any]], programs: Mapping[str, Path], store: str) -> dict[str, dict[str, Any]]:
    """One pair of fresh processes: tokens a CPU second and mean loss of each side."""
    found = in_turns({side: [OURS, programs[side], json.dumps(configs[side]), store] for side in configs})
    return {
        side: {"tokens_per_cpu_second": of["tokens"] / of["cpu_seconds"], "loss": of["loss"]}
        for side, of in found.items()
    }


def compare(size: str, precision: str, pairs: int, steps: int, store: str) -> dict[str, Any]:
    """Pairs of one size and precision."""
    config = workload(size, precision, steps, STEP_ROWS[size])
    made = [pair(dict.fromkeys(SIDES, config), SIDES, store) for _ in range(pairs)]
    found = {side: [one[side] for one in made] for side in SIDES}
    name = "tokens_per_cpu_second"
    speeds = {side: median(found, side, name) for side in SIDES}
    ours = ratio(of(found, "trainrun", name), of(found, "hf-trainer", name))
    print(
        f"{size:<4} {precision}  {speeds['trainrun']:>7.0f} {speeds['hf-trainer']:>7.0f}  {ours}  >= {TARGETS[size]}",
        flush=True,
    )
    return {
        "size": size, "precision": precision, name: speeds, "ratio": ours.facts(), "target": TARGETS[size],
        "last_loss": {side: found[side][-1]["loss"] for side in SIDES},
    }  # fmt: skip


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 pairs of fewer steps")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    options = parser.parse_args()
    pairs, steps = options.pairs or (3 if options.quick else 7), QUICK_STEPS if options.quick else STEPS
    fetch_text()
    print("size precision  tokens per CPU-second: trainrun, HF Trainer; ratio; target")
    with tempfile.TemporaryDirectory(prefix="trainrun-speed-") as store:
        results = [
            compare(size, precision, pairs, steps[size], store)
            for size in options.sizes
            for precision in options.precisions
        ]
    write("trainer_speed", results)


if __name__ == "__main__":
    main()
