"""Text to packed rows: `prepare` against Hugging Face `datasets.map`, equal text, equal tokenizer, one process each.

Theirs is the usual recipe for causal language models: JSON lines, `map` that tokenises batches of 1,000 documents,
`map` that joins a batch's tokens and cuts it into rows. It runs in an environment of its own, keeps token ids only (no
attention mask, no copy as labels), and loses the rest of each batch. Ours keeps boundaries of documents, their sources
and hashes, and loses nothing but the last row's rest. No side filters, splits or looks for copies. What is counted
begins after the imports; tokens are those that went into the tokenizer. Memory is the growth over the imports, at two
sizes of text.

    python bench/prepare_speed.py [--quick] [--pairs N]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import OURS, ROOT, TEXT, alternate, fetch_text, median, of, peer, ratio, run_json, write
from trainrun_api.data_config import TokenizerConfig
from trainrun_trainer.tokenizer import make_tokenizer

PEER = ("datasets==5.2.0", "transformers==5.23.0")
ROW_TOKENS, VOCABULARY, FILES = 1024, 4096, 4
TARGET = 2.0
SIZES = {"text once": 1, "four times": 4}


def write_text(folder: Path, copies: int) -> None:
    """Both texts of the examples as JSON lines, repeated, in a few files."""
    texts = [path.read_text() for path in sorted(TEXT.glob("*/*.txt"))]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.jsonl").write_text("".join(lines[number::FILES] * copies))


def compare(copies: int, pairs: int, python: Path, folder: Path) -> dict[str, Any]:
    """Both sides on so many copies of the text."""
    text, tokenizer = folder / f"text-{copies}", folder / "tokenizer"
    write_text(text, copies)
    config = json.dumps({
        "sources": {"text": {"path": str(text)}}, "tokenizer": {"path": str(tokenizer)}, "row_tokens": ROW_TOKENS,
        "held_out_share": 0, "processes": 1,
    })  # fmt: skip
    theirs = [str(value) for value in (text, tokenizer, ROW_TOKENS)]

    def measure(side: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            if side == "trainrun":
                return run_json([OURS, ROOT / "bench" / "prepare_trainrun.py", config, out])
            return run_json([python, ROOT / "bench" / "prepare_hf.py", *theirs, out])

    found = alternate(["trainrun", "datasets"], pairs, measure)
    tokens = {side: {one["tokens"] for one in found[side]} for side in found}
    assert tokens["trainrun"] == tokens["datasets"], f"the sides do not have the same tokens: {tokens}"
    faster = ratio(of(found, "datasets", "cpu_seconds"), of(found, "trainrun", "cpu_seconds"))
    sides = {
        side: {name: median(found, side, name) for name in ("cpu_seconds", "seconds", "peak_bytes", "rows")}
        for side in found
    }
    return {"tokens": min(tokens["trainrun"]), "sides": sides, "ratio": faster.facts(), "shown": str(faster)}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 pairs on the text once")
    parser.add_argument("--pairs", type=int)
    options = parser.parse_args()
    pairs, sizes = options.pairs or (3 if options.quick else 5), {"text once": 1} if options.quick else SIZES
    fetch_text()
    python = peer(*PEER)
    results = []
    print("text: tokens; CPU seconds and peak MB: prepare, datasets.map; ratio of CPU seconds; target")
    with tempfile.TemporaryDirectory(prefix="trainrun-prepare-") as folder:
        texts = (path.read_text() for path in sorted(TEXT.glob("*/*.txt")))
        make_tokenizer(TokenizerConfig(vocab_size=VOCABULARY), texts).save_pretrained(Path(folder) / "tokenizer")
        for name, copies in sizes.items():
            results.append(compare(copies, pairs, python, Path(folder)))
            sides = results[-1]["sides"].values()
            cells = "; ".join(f"{side['cpu_seconds']:.2f} s {side['peak_bytes'] / 1e6:.0f} MB" for side in sides)
            print(f"{name}: {results[-1]['tokens']}; {cells}; {results[-1]['shown']}  >= {TARGET}", flush=True)
    write("prepare_speed", {"target": TARGET, "peer": PEER, "sizes": results})


if __name__ == "__main__":
    main()
