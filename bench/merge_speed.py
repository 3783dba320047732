"""Merging models: CPU time and peak memory against mergekit, which runs in an environment of its own. Same folders.

Three Llamas in fp32, several files each: a base and two that differ from it at random. Each method merges them (slerp:
base and first) into a new folder, one process for each merge, one thread. What is counted begins after the imports and
ends with the last file; ours hashes its parents and its result, too. `tests/trainer/test_merging.py` compares results.

    python bench/merge_speed.py [--quick] [--pairs N] [--layers N]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from side_by_side import OURS, ROOT, alternate, median, of, peer, ratio, run_json, write
from transformers import LlamaConfig, LlamaForCausalLM

from tests.trainer.oracle import MERGEKIT

TARGET = 1.0
LARGEST_FILE = 100_000_000
WEIGHTS, DENSITY, T = [0.5, 0.7], 0.5, 0.3
OURS_BY_METHOD: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear", "weights": [1.0, *WEIGHTS]},
    "slerp": {"method": "slerp", "t": T},
    "ties": {"method": "ties", "weights": WEIGHTS, "density": DENSITY},
    "dare": {"method": "dare", "weights": WEIGHTS, "drop": 1 - DENSITY},
}


def make_models(folder: Path, layers: int) -> list[Path]:
    """The base and two others."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=8192, hidden_size=1024, intermediate_size=2816, num_hidden_layers=layers, num_attention_heads=16
    ))  # fmt: skip
    folders = [folder / name for name in ("base", "one", "two")]
    for place in folders:
        model.save_pretrained(place, max_shard_size=LARGEST_FILE)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.01)
    return folders


def of_mergekit(method: str, models: list[Path]) -> dict[str, Any]:
    """The same merge in mergekit's words."""
    base, one, two = map(str, models)
    if method == "linear":
        weights = zip(map(str, models), OURS_BY_METHOD["linear"]["weights"], strict=True)
        members = [{"model": model, "parameters": {"weight": weight}} for model, weight in weights]
        return {"merge_method": "linear", "models": members, "dtype": "float32"}
    if method == "slerp":
        members = [{"model": base}, {"model": one}]
        return {"merge_method": "slerp", "base_model": base, "models": members, "parameters": {"t": T},
                "dtype": "float32"}  # fmt: skip
    others = [{"model": m, "parameters": {"weight": w}} for m, w in zip((one, two), WEIGHTS, strict=True)]
    name = {"ties": "ties", "dare": "dare_linear"}[method]
    return {"merge_method": name, "base_model": base, "models": [{"model": base}, *others],
            "parameters": {"density": DENSITY}, "dtype": "float32"}  # fmt: skip


def compare(models: list[Path], pairs: int, python: Path) -> list[dict[str, Any]]:
    """Both sides with all methods."""
    out = models[0].parent / "out"
    ours, theirs = {}, {}
    for method, config in OURS_BY_METHOD.items():
        members = list(map(str, models[:2] if method == "slerp" else models))
        ours[method] = {"out": str(out / method), "config": config, "models": members}
        theirs[method] = {"out": str(out / method), "config": of_mergekit(method, models)}

    def measure(side: str) -> dict[str, Any]:
        shutil.rmtree(out, ignore_errors=True)
        if side == "trainrun":
            return run_json([OURS, ROOT / "bench" / "merge_trainrun.py", json.dumps(ours)])
        return run_json([python, ROOT / "bench" / "merge_mergekit.py", json.dumps(theirs)])

    found = alternate(["trainrun", "mergekit"], pairs, measure)
    return [_of_method(method, found) for method in OURS_BY_METHOD]


def _of_method(method: str, found: dict[str, list[Any]]) -> dict[str, Any]:
    figures = {side: [one[method] for one in found[side]] for side in found}
    share = ratio(of(figures, "trainrun", "cpu_seconds"), of(figures, "mergekit", "cpu_seconds"))
    names = ("cpu_seconds", "seconds", "peak_bytes")
    sides = {side: {name: median(figures, side, name) for name in names} for side in figures}
    cells = "; ".join(f"{one['cpu_seconds']:.2f} s {one['peak_bytes'] / 1e6:.0f} MB" for one in sides.values())
    print(f"{method:<6} {cells}; {share}  <= {TARGET}", flush=True)
    return {"method": method, "sides": sides, "ratio": share.facts(), "target": TARGET}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 pairs, 1 layer")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--layers", type=int)
    options = parser.parse_args()
    pairs, layers = options.pairs or (3 if options.quick else 5), options.layers or (1 if options.quick else 3)
    python = peer(MERGEKIT)
    with tempfile.TemporaryDirectory(prefix="trainrun-merges-") as folder:
        models = make_models(Path(folder), layers)
        files = [path.stat().st_size for path in models[0].glob("*.safetensors")]
        print(f"models of {sum(files) / 1e6:.0f} MB in {len(files)} files, the largest {max(files) / 1e6:.0f} MB")
        print("method: CPU seconds and peak memory of ours, of mergekit; ratio of CPU seconds; target")
        results = compare(models, pairs, python)
    write("merge_speed", {"model_bytes": sum(files), "largest_file": max(files), "peer": MERGEKIT, "methods": results})


if __name__ == "__main__":
    main()
