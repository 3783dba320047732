"""Where checkpoints, claims, data and metrics live: a directory, or an object store (object_store.py).

Names are relative, with slashes. `put` is atomic and durable; `put_exclusive` is the only fencing
primitive. Nothing outside this module opens a file below `checkpoint.path` for writing. `before` is
called ahead of each primitive that changes the store, with its kind and name.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import xxhash
from trainrun_api.contract import CheckpointLayout

Before = Callable[[str, str], None]
TEMPORARY = ".tmp"


def unobserved(operation: str, name: str) -> None:
    """Do nothing: nobody watches the writes."""


class Storage(Protocol):
    """What the trainer asks of a store."""

    before: Before

    def put(self, name: str, data: bytes) -> None:
        """Write or replace a whole object, atomically and durably."""

    def put_exclusive(self, name: str, data: bytes) -> bool:
        """Create a whole object; False if the name is taken."""

    def append(self, name: str, data: bytes) -> None:
        """Add to the end of an object, all of it or (OSError) nothing; `settle` makes it durable."""

    def get(self, name: str) -> bytes:
        """Read an object; FileNotFoundError if there is none."""

    def list(self, folder: str) -> list[str]:
        """Names directly below a folder, sorted; empty if there is none."""

    def delete(self, name: str) -> None:
        """Remove an object or a whole folder; no error if it is gone."""

    def hash(self, name: str) -> dict[str, Any]:
        """Size and xxh3 of an object as the store has it. Raises OSError."""

    def address(self, name: str) -> str:
        """What people are told of a place."""

    def folder(self, name: str) -> Path:
        """A folder's place in the file system, for what is written there and settled."""

    def read_folder(self, name: str) -> Path:
        """A folder's place in the file system, with all that the store has of it: for memory maps and tensor files."""

    def settle(self, folder: str) -> None:
        """Make durable a file, or what was written below a folder through its path."""

    def make_folder(self, name: str) -> Path:
        """A folder's place in the file system, made for files that `take` is called for, each when it is whole."""

    def take(self, name: str) -> None:
        """A file below such a folder is written and closed."""


class LocalDirectory:
    """A store in a directory that all workers share."""

    def __init__(self, root: Path, before: Before = unobserved) -> None:
        self.root = root
        self.before = before

    def below(self, folder: str) -> LocalDirectory:
        """A folder of this store as a store of its own."""
        return LocalDirectory(self.root / folder, lambda operation, name: self.before(operation, f"{folder}/{name}"))

    def put(self, name: str, data: bytes) -> None:
        """Temporary name, fsync, rename, fsync of the folder."""
        target = self.root / name
        temporary = self._temporary(name, data)
        self.before("rename", name)
        os.replace(temporary, target)
        _sync(target.parent)

    def put_exclusive(self, name: str, data: bytes) -> bool:
        """A hard link of a complete file: exclusive, and never seen half written."""
        target = self.root / name
        temporary = self._temporary(name, data)
        self.before("link", name)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        _sync(target.parent)
        return True

    def append(self, name: str, data: bytes) -> None:
        """One write to the end of the file, which is seen by readers at once."""
        target = self.root / name
        _make_folder(target.parent)
        self.before("append", name)
        descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
        finally:
            os.close(descriptor)

    def get(self, name: str) -> bytes:
        """Read a whole file."""
        return (self.root / name).read_bytes()

    def list(self, folder: str) -> list[str]:
        """Names in a folder, without what is still being written."""
        try:
            names = os.listdir(self.root / folder)
        except FileNotFoundError:
            return []
        return sorted(n for n in names if not n.endswith(TEMPORARY))

    def delete(self, name: str) -> None:
        """Remove a file or a tree."""
        target = self.root / name
        self.before("delete", name)
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def hash(self, name: str) -> dict[str, Any]:
        """Of a file, read again."""
        return hash_file(self.root / name)

    def address(self, name: str) -> str:
        """Path below the root."""
        return str(self.root / name)

    def folder(self, name: str) -> Path:
        """Path below the root."""
        return self.root / name

    def read_folder(self, name: str) -> Path:
        """Path below the root."""
        return self.root / name

    def settle(self, folder: str) -> None:
        """Fsync of a file, or of every file and folder below `folder`, and of the names that lead to it."""
        self.before("fsync", folder)
        target = self.root / folder
        leading = [p for p in target.parents if p.is_relative_to(self.root)]
        for path in [*leading, target, *target.rglob("*")]:
            _sync(path)

    def make_folder(self, name: str) -> Path:
        """With a durable name."""
        _make_folder(self.root / name)
        return self.root / name

    def take(self, name: str) -> None:
        """It lies where it belongs."""

    def _temporary(self, name: str, data: bytes) -> Path:
        target = self.root / name
        _make_folder(target.parent)
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}{TEMPORARY}")  # process ids repeat over nodes
        self.before("write", name)
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            self.before("fsync", name)
            os.fsync(stream.fileno())
        return temporary


OpenStorage = Callable[[str], Storage]
"""`stores.open_storage`, or what stands in for it in tests."""


def shared_store(store: Storage) -> Storage:
    """Where the prepared data of a checkpoint store may lie beside itself: a stage's store shares its run's root."""
    if isinstance(store, LocalDirectory) and store.root.parent.parent.name == CheckpointLayout.STAGES:
        return LocalDirectory(store.root.parents[2], store.before)
    return store


def hash_file(path: Path) -> dict[str, Any]:
    """Size and xxh3 of a file, read once in pieces."""
    with open(path, "rb") as stream:
        return hash_stream(stream)


def hash_stream(stream: Any) -> dict[str, Any]:
    """Size and xxh3 of what can still be read."""
    digest = xxhash.xxh3_128()
    size = 0
    while piece := stream.read(8 << 20):
        digest.update(piece)
        size += len(piece)
    return {"size": size, "xxh3": digest.hexdigest()}


def _make_folder(folder: Path) -> None:
    """Create a folder and make its name durable: a manifest is lost with a folder that a power cut forgets."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _sync(made.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
