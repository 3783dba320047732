"""Instruction rows packed, against the same rows padded: useful tokens a second of CPU time, forward and backward pass.

1,000 pairs of instruction and response, cut from real text, with lengths of a log-normal distribution that is printed.
`prepare` packs them into rows of 512 tokens; a batch of ours is two rows. The padded sides take eight pairs a batch,
filled up to the longest of them with an attention mask as transformers' collators make it: in random order, or sorted
by length. All sides have the same model, loss and step function; useful is every token that is not padding. Batches
are dealt into rounds, and the sides take turns round by round in one process.

    python bench/sft_packing.py [--quick] [--pairs N]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import TEXT, alternate, fetch_text, median, of, ratio, write
from speed_models import SIZES, VOCABULARY, save_tokenizer
from trainrun_api.data_config import DataConfig
from trainrun_api.train_config import ModelConfig
from trainrun_trainer.loss import IGNORED, loss_sum
from trainrun_trainer.model import build_model
from trainrun_trainer.packing import PADDING, TRAIN, PackedRows
from trainrun_trainer.prepare import prepare
from trainrun_trainer.rows import make_slot, open_rows
from trainrun_trainer.step import slot_backward
from trainrun_trainer.stores import open_storage

ROW_TOKENS, PACKED_ROWS, PADDED_ROWS = 512, 2, 8
MEDIAN_WORDS, SIGMA, FEWEST_WORDS, MOST_WORDS = 55, 0.9, 6, 280
"""Of a pair; about 1.5 tokens a word, and some for the template. What still does not fit into a row is dropped."""
SHARES = {"least": 0.0, "median": 0.5, "p90": 0.9, "most": 1.0}
TARGETS = {"fill": 0.97, "padded": 2.2, "sorted": 1.05}
CPU = torch.device("cpu")
Batch = tuple[int, Callable[[], Any]]
"""Useful tokens of a batch, and its forward and backward pass."""


@dataclass(frozen=True)
class Pair:
    """One example: token ids, and for each whether it is learned."""

    tokens: np.ndarray[Any, np.dtype[np.int64]]
    is_learned: np.ndarray[Any, np.dtype[np.bool_]]


def write_pairs(folder: Path, number: int) -> None:
    """Pairs whose text is a stretch of the domain text, a third of it the instruction."""
    words = " ".join(path.read_text() for path in sorted((TEXT / "domain").glob("*.txt"))).split()
    draw = random.Random(0)
    folder.mkdir()
    with open(folder / "pairs.jsonl", "w") as out:
        for _ in range(number):
            length = round(MEDIAN_WORDS * draw.lognormvariate(0, SIGMA))
            length = min(max(length, FEWEST_WORDS), MOST_WORDS)
            start = draw.randrange(len(words) - length)
            cut = start + length // 3
            asked, answer = words[start:cut], words[cut : start + length]
            out.write(json.dumps({"instruction": " ".join(asked), "response": " ".join(answer)}) + "\n")


def pack(folder: Path, number: int) -> PackedRows:
    """The pairs through `prepare`."""
    write_pairs(folder / "pairs", number)
    save_tokenizer(folder / "tokenizer")
    config = DataConfig.model_validate({
        "sources": {"pairs": {"path": str(folder / "pairs"), "instruct": {"too_long": "drop"}}},
        "tokenizer": {"path": str(folder / "tokenizer")}, "row_tokens": ROW_TOKENS, "held_out_share": 0,
    })  # fmt: skip
    return open_rows(prepare(config, open_storage(str(folder / "store"))), "pairs", TRAIN)


def unpack(rows: PackedRows) -> list[Pair]:
    """The pairs as they lie in the rows, so that both sides have the same tokens and targets."""
    pairs = []
    for row in range(rows.num_rows):
        learned, spans = np.zeros(rows.row_tokens, np.bool_), rows.learned(row)
        assert spans is not None, "rows of examples say what is learned of them"
        for start, end in spans:
            learned[start:end] = True
        segments = rows.segments(row)
        ends = [*segments[1:, 1], rows.row_tokens]
        for (document, start, _), end in zip(segments, ends, strict=True):
            if document != PADDING:
                pairs.append(Pair(rows.tokens(row)[start:end].astype(np.int64), learned[start:end]))
    return pairs


def packed_batches(model: Any, rows: PackedRows) -> list[Batch]:
    """Batches of our rows."""
    batches: list[Batch] = []
    for first in range(0, rows.num_rows, PACKED_ROWS):
        members = range(first, min(first + PACKED_ROWS, rows.num_rows))
        slot = make_slot([(rows, row) for row in members], CPU)
        padding = sum(rows.row_tokens - s[1] for row in members for s in rows.segments(row) if s[0] == PADDING)
        useful = len(members) * rows.row_tokens - int(padding)
        batches.append((useful, lambda slot=slot: slot_backward(model, slot, 1, "fp32")))  # type: ignore[misc]
    return batches


def padded_batches(model: Any, pairs: Sequence[Pair]) -> list[Batch]:
    """Batches of pairs in the order given, each as long as its longest."""
    batches: list[Batch] = []
    for first in range(0, len(pairs), PADDED_ROWS):
        members = pairs[first : first + PADDED_ROWS]
        shape = len(members), max(len(pair.tokens) for pair in members)
        tokens, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        targets = np.full(shape, IGNORED, np.int64)
        for i, pair in enumerate(members):
            length = len(pair.tokens)
            tokens[i, :length], mask[i, :length] = pair.tokens, 1
            targets[i, : length - 1] = np.where(pair.is_learned[1:], pair.tokens[1:], IGNORED)
        inputs = [torch.from_numpy(array) for array in (tokens, mask, targets)]
        batches.append((int(mask.sum()), lambda inputs=inputs: padded_backward(model, *inputs)))  # type: ignore[misc]
    return batches


def padded_backward(model: Any, tokens: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor) -> None:
    """The padded counterpart of `slot_backward`."""
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    loss_sum(logits, targets).backward()  # type: ignore[no-untyped-call]


def speeds(model: Any, sides: dict[str, list[Batch]], rounds: int) -> dict[str, list[Any]]:
    """Useful tokens a CPU second of each side in each round; a round has its share of each side's batches."""
    for batches in sides.values():
        random.Random(1).shuffle(batches)
        batches[0][1]()  # the first pass allocates
    turns = dict.fromkeys(sides, 0)

    def measure(side: str) -> dict[str, Any]:
        batches = sides[side][turns[side] :: rounds]
        turns[side] += 1
        started = time.process_time()
        for _, run in batches:
            run()
            model.zero_grad()
        return {"speed": sum(useful for useful, _ in batches) / (time.process_time() - started)}

    return alternate(list(sides), rounds, measure)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 pairs, 3 rounds")
    parser.add_argument("--pairs", type=int, help="pairs of instruction and response")
    options = parser.parse_args()
    number, rounds = options.pairs or (200 if options.quick else 1000), 3 if options.quick else 7
    torch.set_num_threads(1)
    fetch_text()
    with tempfile.TemporaryDirectory(prefix="trainrun-packing-") as folder:
        rows = pack(Path(folder), number)
        pairs = unpack(rows)
    random.Random(2).shuffle(pairs)
    lengths = sorted(len(pair.tokens) for pair in pairs)
    fill = sum(lengths) / (rows.num_rows * ROW_TOKENS)
    model = build_model(ModelConfig.model_validate({"architecture": SIZES["7M"]}), VOCABULARY, 0, ROW_TOKENS, 0.0, 0)
    found = speeds(model, {
        "packed": packed_batches(model, rows),
        "padded": padded_batches(model, pairs),
        "sorted": padded_batches(model, sorted(pairs, key=lambda pair: len(pair.tokens))),
    }, rounds)  # fmt: skip
    spread = {name: lengths[int(share * (len(lengths) - 1))] for name, share in SHARES.items()}
    spread["mean"] = round(sum(lengths) / len(lengths))
    print(f"{len(pairs)} pairs, tokens {spread}; {rows.num_rows} rows of {ROW_TOKENS}")
    print(f"fill {fill:.3f}  >= {TARGETS['fill']}")
    results: dict[str, Any] = {"lengths": spread, "fill": fill, "rows": rows.num_rows}
    for side in ("padded", "sorted"):
        gain = ratio(of(found, "packed", "speed"), of(found, side, "speed"))
        middle = [median(found, one, "speed") for one in ("packed", side)]
        print(f"packed against {side:<7} {middle[0]:>6.0f} {middle[1]:>6.0f}  {gain}  >= {TARGETS[side]}")
        results[side] = {"useful_tokens_per_cpu_second": middle, "ratio": gain.facts(), "target": TARGETS[side]}
    write("sft_packing", results)


if __name__ == "__main__":
    main()
