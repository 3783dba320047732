"""Text to packed rows: `prepare` against Hugging Face `datasets.map`, equal text, equal tokenizer, one process each.

Theirs is the recipe of transformers' language modeling example: JSON lines, `map` that tokenises batches of 1,000
documents, `map` that joins the columns of a batch and cuts them into rows, with labels a copy of the tokens; and, lean,
the same with token ids alone. It runs in an environment of its own and loses the rest of each batch. Ours keeps
boundaries of documents, their sources and hashes, and loses nothing but the last row's rest. No side filters, splits or
looks for copies. What is counted begins after the imports; both give as many tokens. Memory is the growth over the
imports, at two sizes of text.

    python bench/prepare_speed.py [--quick] [--pairs N]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import OURS, ROOT, TEXT, alternate, fetch_text, median, of, peer, ratio, run_json, write
from speed_models import save_tokenizer

PEER = ("datasets==5.2.0", "transformers==5.23.0")
ROW_TOKENS, FILES = 1024, 4
TARGET = 2.0
SIDES = ("trainrun", "usual", "lean")
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
    names = ("cpu_seconds", "seconds", "peak_bytes", "rows")

    def measure(side: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            if side == "trainrun":
                return run_json([OURS, ROOT / "bench" / "prepare_trainrun.py", config, out])
            return run_json([python, ROOT / "bench" / "prepare_hf.py", side, *theirs, out])

    found = alternate(SIDES, pairs, measure)
    tokens = {one["tokens"] for side in SIDES for one in found[side]}
    assert len(tokens) == 1, f"the sides do not have as many tokens: {tokens}"
    ours = of(found, "trainrun", "cpu_seconds")
    ratios = {side: ratio(of(found, side, "cpu_seconds"), ours) for side in SIDES[1:]}
    shown = {side: str(found_ratio) for side, found_ratio in ratios.items()}
    return {
        "tokens": min(tokens), "sides": {side: {name: median(found, side, name) for name in names} for side in SIDES},
        "ratios": {side: found_ratio.facts() for side, found_ratio in ratios.items()}, "shown": shown,
    }  # fmt: skip


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
    print(f"CPU seconds, peak memory, and how many times as long as ours (target of `usual`: >= {TARGET})")
    with tempfile.TemporaryDirectory(prefix="trainrun-prepare-") as folder:
        save_tokenizer(Path(folder) / "tokenizer")
        for name, copies in sizes.items():
            results.append(compare(copies, pairs, python, Path(folder)))
            print(f"{name}, {results[-1]['tokens']} tokens")
            for side, one in results[-1]["sides"].items():
                gain = results[-1]["shown"].get(side, "")
                print(f"  {side:<9} {one['cpu_seconds']:6.2f} s {one['peak_bytes'] / 1e6:5.0f} MB  {gain}", flush=True)
    write("prepare_speed", {"target": TARGET, "peer": PEER, "sizes": results})


if __name__ == "__main__":
    main()
