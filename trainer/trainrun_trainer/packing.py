"""Documents to rows of exactly `row_tokens` tokens: no token lost, none doubled, every boundary kept.

A row on disk is int32: source number, row number, then the tokens. Beside the rows lie, per row, its
segments: (document, offset in the row, offset in the document). Rows of examples (examples.py) have, too, the spans of
tokens that are learned; rows of text have none, because all of it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

ID_WORDS = 2
"""Source number and row number before the tokens of a row."""
TRAIN, HELD_OUT = "train", "held_out"
"""The two sides of the split."""
PADDING = -1
"""Stands for the document where a segment has none."""

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]


class Packer:
    """Writes one split of one source, as documents arrive."""

    def __init__(self, folder: Path, split: str, source: int, row_tokens: int) -> None:
        self.source, self.row_tokens = source, row_tokens
        self.num_rows = self.num_tokens = self.num_documents = 0
        self._files: dict[str, BinaryIO] = {
            part: open(folder / f"{split}.{part}", "wb") for part in ("rows", "segments", "row_ptr")
        }
        self._row = np.zeros(ID_WORDS + row_tokens, np.int32)
        self._segments: list[tuple[int, int, int]] = []
        self._num_segments = self._filled = 0
        self._files["row_ptr"].write(np.int64(0).tobytes())

    def add(self, document: int, tokens: Ints) -> None:
        """Append a document's tokens, end-of-text included."""
        self.num_documents += 1
        self.num_tokens += len(tokens)
        done = 0
        while done < len(tokens):
            take = min(self.row_tokens - self._filled, len(tokens) - done)
            self._segments.append((document, self._filled, done))
            first = ID_WORDS + self._filled
            self._row[first : first + take] = tokens[done : done + take]
            done += take
            self._filled += take
            if self._filled == self.row_tokens:
                self._flush()

    def close(self) -> dict[str, int]:
        """Finish; what does not fill a row is counted as `tail_tokens`."""
        for stream in self._files.values():
            stream.close()
        return {
            "rows": self.num_rows, "documents": self.num_documents, "tokens": self.num_tokens,
            "tail_tokens": self._filled,
        }  # fmt: skip

    def _flush(self) -> None:
        self._row[:ID_WORDS] = self.source, self.num_rows
        self._num_segments += len(self._segments)
        self._files["rows"].write(self._row.tobytes())
        self._files["segments"].write(np.array(self._segments, np.int64).tobytes())
        self._files["row_ptr"].write(np.int64(self._num_segments).tobytes())
        self._segments.clear()
        self._filled = 0
        self.num_rows += 1


class PackedRows:
    """Memory-mapped rows of one split of one source."""

    def __init__(self, folder: Path, split: str, num_rows: int, row_tokens: int) -> None:
        self.num_rows, self.row_tokens = num_rows, row_tokens
        self._rows: Ints = np.zeros((0, ID_WORDS + row_tokens), np.int32)
        self._ptr: Longs = np.zeros(1, np.int64)
        self._segments: Longs = np.zeros((0, 3), np.int64)
        self._learned: tuple[Longs, Longs] | None = None
        if num_rows:
            shape = (num_rows, ID_WORDS + row_tokens)
            self._rows = np.memmap(folder / f"{split}.rows", np.int32, "r", shape=shape)
            self._ptr = np.fromfile(folder / f"{split}.row_ptr", np.int64)
            self._segments = np.fromfile(folder / f"{split}.segments", np.int64).reshape(-1, 3)
            if (folder / f"{split}.learned").exists():
                spans = np.fromfile(folder / f"{split}.learned", np.int64).reshape(-1, 2)
                self._learned = spans, np.fromfile(folder / f"{split}.learned_ptr", np.int64)

    def stored_id(self, row: int) -> tuple[int, int]:
        """(source, row) as stored in the row itself."""
        source, number = self._rows[row, :ID_WORDS].tolist()
        return source, number

    def tokens(self, row: int) -> Ints:
        """The row's tokens."""
        return self._rows[row, ID_WORDS:]

    def segments(self, row: int) -> Longs:
        """(document, offset in row, offset in document) of each piece of a document in the row."""
        return self._segments[self._ptr[row] : self._ptr[row + 1]]

    def learned(self, row: int) -> Longs | None:
        """Spans [n, 2] of the row's tokens that are learned; None: all that something comes before in their segment."""
        if self._learned is None:
            return None
        spans, ptr = self._learned
        return spans[ptr[row] : ptr[row + 1]]

    def num_targets(self, row: int) -> int:
        """Tokens of the row that are predicted: what is learned, or all but the first of each segment."""
        learned = self.learned(row)
        if learned is not None:
            return int((learned[:, 1] - learned[:, 0]).sum())
        return self.row_tokens - int(self._ptr[row + 1] - self._ptr[row])
