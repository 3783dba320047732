"""`python -m trainrun_trainer.merging --method slerp --t 0.5 BASE MODEL OUT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainrun_api.stage_config import MergeConfig

from trainrun_trainer.errors import TrainerError
from trainrun_trainer.merging.merge import run
from trainrun_trainer.settings import parse

SETTINGS = {"t": float, "density": float, "drop": float, "seed": int, "max_shard_bytes": int}


def main(arguments: Sequence[str] | None = None) -> None:
    """Merge and say what was made; exit code 1 and one sentence if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m trainrun_trainer.merging", description="Merge models by weight.")
    parser.add_argument("--method", required=True, help="linear, slerp, ties, dare or dare-ties")
    parser.add_argument("--weights", help="one number per model, with commas, the base's first (linear only)")
    for name, kind in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=MergeConfig.model_fields[name].description)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="Hugging Face folders, the base first")
    parser.add_argument("out", type=Path, help="folder to be made; plain transformers loads it")
    asked = parser.parse_args(arguments)
    raw = {name: getattr(asked, name) for name in ("method", *SETTINGS) if getattr(asked, name) is not None}
    if asked.weights is not None:
        raw["weights"] = asked.weights.split(",")
    try:
        made = run(parse(MergeConfig, raw, "--"), {"models": [str(m) for m in asked.models], "out": str(asked.out)})
    except (TrainerError, OSError) as error:
        sys.exit(str(error))
    print(f"{made['model']}: {made['tensors']} tensors of {len(asked.models)} models merged")


if __name__ == "__main__":
    main()
