"""One side of `prepare_speed.py`, run by a Python that has datasets and transformers and nothing of ours.

prepare_hf.py {usual|lean} TEXT_FOLDER TOKENIZER_FOLDER ROW_TOKENS OUT

usual: as in the language modeling example of transformers, every column of the tokenizer is joined and cut, and labels
are a copy of the tokens. lean: token ids alone.
"""

import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars, load_dataset
from measured import Measured
from transformers import AutoTokenizer

Batch = dict[str, list[Any]]


def main(recipe: str, text: str, tokenizer_folder: str, row_tokens: int, out: str) -> None:
    """Load, tokenise, join and cut, save; one JSON line."""
    disable_progress_bars()
    tokens = 0

    def tokenise(batch: Batch) -> Batch:
        nonlocal tokens
        texts = [text + tokenizer.eos_token for text in batch["text"]]
        found = tokenizer(
            texts, add_special_tokens=False, return_attention_mask=recipe == "usual", return_token_type_ids=False,
            verbose=False,
        )  # fmt: skip
        tokens += sum(map(len, found["input_ids"]))
        return dict(found)

    def cut(batch: Batch) -> Batch:
        joined = {name: list(chain.from_iterable(column)) for name, column in batch.items()}
        whole = len(joined["input_ids"]) // row_tokens * row_tokens
        rows = {name: [one[i : i + row_tokens] for i in range(0, whole, row_tokens)] for name, one in joined.items()}
        return rows | {"labels": rows["input_ids"].copy()} if recipe == "usual" else rows

    with Measured() as measured:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        files = sorted(str(path) for path in Path(text).glob("*.jsonl"))
        documents = load_dataset("json", data_files=files, split="train", cache_dir=f"{out}/cache")
        rows = documents.map(tokenise, batched=True, remove_columns=documents.column_names).map(cut, batched=True)
        rows.save_to_disk(f"{out}/rows")
    print(json.dumps(measured.facts | {"tokens": tokens, "rows": len(rows)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
