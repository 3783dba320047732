"""Merging an adapter: peak memory of ours against peft's merge_and_unload on the same files, in processes of their own.

The figure is the growth of resident memory over what the imports left, as a multiple of the largest shard; time is
told beside it.

    python bench/merge_memory.py [--layers N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "bench" / "merge_memory.json"
SHARD_BYTES = 64_000_000
TARGET_SHARDS = 2.0
"""Design target for ours: at most twice the largest shard."""
IMPORTS = {
    "trainrun": "from trainrun_trainer.lora_merge import merge",
    "peft": "import peft, torch; from transformers import LlamaForCausalLM",
}
MERGES = {
    "trainrun": "merge(base, adapter, out)",
    "peft": (
        "model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32); "
        "peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()"
        f".save_pretrained(out, max_shard_size={SHARD_BYTES})"
    ),
}
PROGRAM = """
import json, re, sys, time
from pathlib import Path
{imports}
base, adapter, out = map(Path, sys.argv[1:])
def kilobytes(name):
    return int(re.search(rf"{{name}}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, started = kilobytes("VmRSS"), time.monotonic()
{merge}
print(json.dumps({{"bytes": 1024 * (kilobytes("VmHWM") - before), "seconds": time.monotonic() - started}}))
"""


def make(folder: Path, layers: int) -> tuple[Path, Path]:
    """A base model with several shards, and an adapter with random weights on all linear modules."""
    base, adapter = folder / "base", folder / "adapter"
    config = LlamaConfig(
        vocab_size=8192, hidden_size=1024, intermediate_size=2816, num_hidden_layers=layers, num_attention_heads=16
    )
    LlamaForCausalLM(config).save_pretrained(base, max_shard_size=SHARD_BYTES)
    settings = peft.LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
    peft.get_peft_model(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32), settings).save_pretrained(
        str(adapter)
    )
    return base, adapter


def measure(side: str, base: Path, adapter: Path, out: Path) -> dict[str, float]:
    """Merge in a fresh process."""
    program = PROGRAM.format(imports=IMPORTS[side], merge=MERGES[side])
    done = subprocess.run(
        [sys.executable, "-c", program, str(base), str(adapter), str(out)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    layers = parser.parse_args().layers
    with tempfile.TemporaryDirectory(prefix="trainrun-merge-") as folder:
        base, adapter = make(Path(folder), layers)
        shards = [path.stat().st_size for path in base.glob("*.safetensors")]
        found = {side: measure(side, base, adapter, Path(folder) / side) for side in MERGES}
    for side, result in found.items():
        result["shards"] = result["bytes"] / max(shards)
        print(f"{side:<9} {result['bytes'] / 1e6:7.0f} MB  {result['shards']:5.2f} shards  {result['seconds']:6.1f} s")
    ratio = found["trainrun"]["bytes"] / found["peft"]["bytes"]
    print(
        f"ratio {ratio:.2f}; target for ours: <= {TARGET_SHARDS} of {len(shards)} shards of {max(shards) / 1e6:.0f} MB"
    )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps(
            {"results": found, "ratio": ratio, "target_shards": TARGET_SHARDS, "model_bytes": sum(shards)}, indent=1
        )
    )
    print(f"written: {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
