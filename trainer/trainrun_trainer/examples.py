"""Examples of prompt and response to rows: each whole in one row, best fit decreasing, with what is learned of it.

Best fit decreasing (Johnson 1973): longest first, each into the fullest row that still takes it. What stays empty is
filled with end-of-text tokens as a segment of its own, without a document and without anything to learn.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainrun_trainer.packing import ID_WORDS, PADDING, Ints, Longs


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which examples share a row; every one is in exactly one row, and no row holds more than `capacity`."""
    rows: list[list[int]] = []
    room: dict[int, list[int]] = {}
    sizes: list[int] = []
    for example in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[example]
        assert 0 < length <= capacity, "too long examples are refused or dropped before"
        place = bisect_left(sizes, length)
        if place == len(sizes):
            row, left = len(rows), capacity
            rows.append([])
        else:
            left = sizes[place]
            row = room[left].pop()
            if not room[left]:
                del room[left], sizes[place]
        rows[row].append(example)
        if left > length:
            if left - length not in room:
                insort(sizes, left - length)
                room[left - length] = []
            room[left - length].append(row)
    return rows


def write_example_rows(
    folder: Path, split: str, source: int, row_tokens: int, examples: Sequence[tuple[int, Ints, Longs]], padding: int
) -> dict[str, int]:
    """Pack (document, tokens, learned spans [n, 2]) into rows on disk; counts as the text packer's."""
    rows = best_fit_decreasing([len(tokens) for _, tokens, _ in examples], row_tokens)
    row_ptr, learned_ptr = [0], [0]
    with (
        open(folder / f"{split}.rows", "wb") as row_file,
        open(folder / f"{split}.segments", "wb") as segment_file,
        open(folder / f"{split}.learned", "wb") as learned_file,
    ):
        for number, members in enumerate(rows):
            row = np.full(ID_WORDS + row_tokens, padding, np.int32)
            row[:ID_WORDS] = source, number
            segments: list[tuple[int, int, int]] = []
            spans: list[npt.NDArray[np.int64]] = []
            filled = 0
            for document, tokens, learned in (examples[i] for i in members):
                segments.append((document, filled, 0))
                spans.append(learned + filled)
                row[ID_WORDS + filled : ID_WORDS + filled + len(tokens)] = tokens
                filled += len(tokens)
            if filled < row_tokens:
                segments.append((PADDING, filled, 0))
            row_file.write(row.tobytes())
            segment_file.write(np.array(segments, np.int64).tobytes())
            learned_file.write(np.concatenate(spans).tobytes())
            row_ptr.append(row_ptr[-1] + len(segments))
            learned_ptr.append(learned_ptr[-1] + sum(map(len, spans)))
    np.array(row_ptr, np.int64).tofile(folder / f"{split}.row_ptr")
    np.array(learned_ptr, np.int64).tofile(folder / f"{split}.learned_ptr")
    total = sum(len(tokens) for _, tokens, _ in examples)
    return {
        "rows": len(rows), "documents": len(examples), "tokens": total, "tail_tokens": 0,
        "padding_tokens": len(rows) * row_tokens - total,
        "learned_tokens": sum(int((learned[:, 1] - learned[:, 0]).sum()) for _, _, learned in examples),
    }  # fmt: skip
