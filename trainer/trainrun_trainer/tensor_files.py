"""How tensor files get into a store: in pieces, hashed as they pass."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash
from torch.distributed.checkpoint.filesystem import FileSystem

from trainrun_trainer.storage import Storage

PIECE_BYTES = 1 << 20
"""So that a full disk shows before all is copied."""


class TensorFiles(FileSystem):
    """DCP's file system, writing in pieces and hashing what passes; `written` has size and xxh3 per file."""

    def __init__(self, storage: Storage, folder: str) -> None:
        super().__init__()
        self.storage, self.label = storage, folder
        self.folder = storage.make_folder(folder)
        self.written: dict[str, dict[str, Any]] = {}

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase, None, None]:
        """Open one tensor file; when closed, the store takes it, and its facts are in `written`."""
        name = f"{self.label}/{Path(path).name}"
        with open(path, mode) as raw:
            stream = _HashingStream(raw, lambda op: self.storage.before(op, name))
            yield stream
        self.written[Path(path).name] = {"size": stream.size, "xxh3": stream.hash.hexdigest()}
        self.storage.take(name)


class _HashingStream(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, raw: Any, before: Callable[[str], None]) -> None:
        super().__init__()
        self.raw = raw
        self.before = before
        self.hash = xxhash.xxh3_128()
        self.size = 0

    def write(self, data: Any) -> int:
        """Write in pieces; a torn file is what a crash leaves."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            self.before("write")
            self.raw.write(piece)
            self.hash.update(piece)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        """Asked for by the writer as each tensor's offset."""
        return self.size

    def fileno(self) -> int:
        """Asked for by the writer just before fsync."""
        self.before("fsync")
        self.raw.flush()
        return int(self.raw.fileno())
