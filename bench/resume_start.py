"""Resume in the middle of a large data set: from the end of the imports to the first step, beside HF's Trainer.

1 M rows of 16 tokens (real text, repeated), 4 rows a step, a checkpoint at step 200,000, a model of 0.1 M parameters,
so that what is seen is the way to the next row and not the model. Both sides read the same prepared rows and load a
checkpoint that they wrote themselves, with its step counter set forward. HF's Trainer has its rows as a map-style
data set, whose skipped batches it only counts, and as a stream, whose skipped batches it reads. For comparison the
same with 10,000 rows at step 2,000.

    python bench/resume_start.py [--quick] [--pairs N]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import OURS, ROOT, TEXT, alternate, fetch_text, median, run_json, write
from trainrun_api.train_config import TrainConfig

SIDES: dict[str, list[str | Path]] = {
    "trainrun": [ROOT / "bench" / "resume_trainrun.py"],
    "hf-map": [ROOT / "bench" / "resume_hf.py", "map"],
    "hf-stream": [ROOT / "bench" / "resume_hf.py", "stream"],
}
TARGET_SECONDS = 1.0
ROW_TOKENS, STEP_ROWS = 16, 4
SIZES = {"10,000 rows, step 2,000": (10_000, 2_000), "1,000,000 rows, step 200,000": (1_000_000, 200_000)}
ROWS_OF_A_COPY = 73_000
"""About so many rows of 16 tokens does the domain text fill."""


def write_text(folder: Path, rows: int) -> None:
    """As many copies of the domain text as fill the rows; less than one is cut."""
    words = "\n\n".join(path.read_text() for path in sorted((TEXT / "domain").glob("*.txt")))
    folder.mkdir()
    share = min(1.0, 1.1 * rows / ROWS_OF_A_COPY)
    for copy in range(max(1, round(1.1 * rows / ROWS_OF_A_COPY))):
        (folder / f"{copy:03}.txt").write_text(words[: int(share * len(words))])


def config_of(text: Path, step: int) -> TrainConfig:
    """The run; one step beyond the checkpoint is its last."""
    return TrainConfig.model_validate({
        "model": {"architecture": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                                   "num_attention_heads": 2, "num_key_value_heads": 2}},
        "data": {"sources": {"domain": {"path": str(text)}}, "tokenizer": {"vocab_size": 2048},
                 "row_tokens": ROW_TOKENS, "held_out_share": 0},
        "total_steps": step + 1, "global_batch_rows": STEP_ROWS, "micro_batch_rows": STEP_ROWS,
    })  # fmt: skip


def compare(rows: int, step: int, pairs: int, folder: Path) -> dict[str, Any]:
    """Seconds of each side at one size."""
    write_text(folder / "text", rows)
    arguments = [config_of(folder / "text", step).model_dump_json(), str(folder / "store"), str(step)]
    made = {side: run_json([OURS, *command, "make", *arguments]) for side, command in SIDES.items()}
    assert made["trainrun"]["rows"] >= rows, f"only {made['trainrun']['rows']} rows"

    def measure(side: str) -> dict[str, Any]:
        found = run_json([OURS, *SIDES[side], "resume", *arguments])
        assert found["step"] == step + 1, f"{side} went on at step {found['step']}"
        return found

    found = alternate(list(SIDES), pairs, measure)
    names = ("cpu_seconds", "seconds")
    results: dict[str, Any] = {side: {name: median(found, side, name) for name in names} for side in SIDES}
    results["each"] = {side: [one["cpu_seconds"] for one in found[side]] for side in SIDES}
    return {"rows": made["trainrun"]["rows"], "step": step, "target_seconds": TARGET_SECONDS, **results}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small size only, once")
    parser.add_argument("--pairs", type=int)
    options = parser.parse_args()
    sizes = dict(list(SIZES.items())[:1]) if options.quick else SIZES
    fetch_text()
    results = []
    print("imports done -> first step done, CPU seconds (and by the clock)")
    for name, (rows, step) in sizes.items():
        with tempfile.TemporaryDirectory(prefix="trainrun-resume-") as folder:
            results.append(compare(rows, step, options.pairs or (1 if options.quick else 5), Path(folder)))
        cells = [f"{s} {results[-1][s]['cpu_seconds']:.2f} ({results[-1][s]['seconds']:.2f})" for s in SIDES]
        print(f"{name}: {'; '.join(cells)}; target for ours <= {TARGET_SECONDS}", flush=True)
    write("resume_start", results)


if __name__ == "__main__":
    main()
