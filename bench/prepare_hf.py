"""One side of `prepare_speed.py`, run by a Python that has datasets and transformers and nothing of ours.

prepare_hf.py TEXT_FOLDER TOKENIZER_FOLDER ROW_TOKENS OUT
"""

import json
import sys
from itertools import chain
from pathlib import Path

from datasets import disable_progress_bars, load_dataset
from measured import Measured
from transformers import AutoTokenizer

Batch = dict[str, list]


def main(text: str, tokenizer_folder: str, row_tokens: int, out: str) -> None:
    """Load, tokenise, join and cut, save; one JSON line."""
    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokens = 0

    def tokenise(batch: Batch) -> Batch:
        nonlocal tokens
        found = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
        ids = [[*one, tokenizer.eos_token_id] for one in found["input_ids"]]
        tokens += sum(map(len, ids))
        return {"input_ids": ids}

    def cut(batch: Batch) -> Batch:
        joined = list(chain.from_iterable(batch["input_ids"]))
        whole = len(joined) // row_tokens * row_tokens
        return {"input_ids": [joined[i : i + row_tokens] for i in range(0, whole, row_tokens)]}

    with Measured() as measured:
        files = sorted(str(path) for path in Path(text).glob("*.jsonl"))
        documents = load_dataset("json", data_files=files, split="train", cache_dir=f"{out}/cache")
        rows = documents.map(tokenise, batched=True, remove_columns=documents.column_names).map(cut, batched=True)
        rows.save_to_disk(f"{out}/rows")
    print(json.dumps(measured.facts | {"tokens": tokens, "rows": len(rows)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
