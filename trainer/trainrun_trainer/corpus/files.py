"""The files of a source, in the order of their names: below a folder, or below an s3:// prefix.

A file in a bucket is brought here whole, in parallel ranges, read and removed: one at a time for each process.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from trainrun_api.data_config import DataConfig, DataSource

from trainrun_trainer.errors import DataError, TextsChanged

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".html", ".htm", ".tar", ".tar.gz", ".arrow")
CACHE = "cache-"
"""Hugging Face's own left-overs beside a dataset's files."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    source: str
    label: str
    """Path below the source's."""
    address: str
    """Where it lies: a path, or s3://bucket/key."""
    size: int
    version: str
    """Changes when the file does: time of change, or the store's ETag."""

    @property
    def is_in_bucket(self) -> bool:
        """Else it is a file of this machine."""
        return self.address.startswith("s3://")

    def facts(self) -> dict[str, Any]:
        """For jobs and marks."""
        return asdict(self)


def suffix_of(name: str) -> str | None:
    """The suffix that says how a file is read; None if it is not read."""
    found = [suffix for suffix in SUFFIXES if name.lower().endswith(suffix)]
    return max(found, key=len) if found and not PurePosixPath(name).name.startswith(CACHE) else None


def all_files(config: DataConfig) -> list[SourceFile]:
    """Files of all sources, in order. Raises DataError."""
    return [file for name in sorted(config.sources) for file in list_files(name, config.sources[name])]


def list_files(name: str, source: DataSource) -> list[SourceFile]:
    """Files of a source, sorted. Raises DataError if there is none, or if the place cannot be read."""
    where = f"data.sources.{name}.path={source.path}"
    try:
        files = _in_bucket(name, source.path) if source.path.startswith("s3://") else _in_folder(name, source.path)
    except FileNotFoundError as error:
        raise DataError(f"{where}: no such folder; give a folder or file of {', '.join(SUFFIXES)}") from error
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    if not files:
        raise DataError(f"{where}: no file in it ends in {', '.join(SUFFIXES)}")
    if not any(file.size for file in files):
        raise DataError(f"{where}: every file in it is empty; add text")
    return files


@contextmanager
def local_copy(file: SourceFile, scratch: Path) -> Generator[Path, None, None]:
    """The file on this machine, for as long as it is read. Raises OSError, and TextsChanged for another object."""
    if not file.is_in_bucket:
        yield Path(file.address)
        return
    from trainrun_trainer.s3_client import etag, fetch_object, make_client  # boto3 takes a second; only its users wait

    (bucket, key), client = _place(file.address), make_client()
    try:
        with suppress(FileNotFoundError):
            fetch_object(client, bucket, key, scratch)
        if etag(client, bucket, key) != file.version:
            raise _changed(file)
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def unchanged(file: SourceFile) -> Generator[None, None, None]:
    """What is read meanwhile is the file that was listed. Raises TextsChanged, also in place of what half a file does.

    An object of a bucket is compared when its copy is made.
    """
    try:
        yield
    finally:
        if not file.is_in_bucket and _facts(Path(file.address)) != (file.size, file.version):
            raise _changed(file)


def _changed(file: SourceFile) -> TextsChanged:
    return TextsChanged(
        f"data.sources.{file.source}: {file.address} changed while it was read; let nothing write there until the text "
        "is prepared"
    )


def _facts(path: Path) -> tuple[int, str] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, str(stat.st_mtime_ns)


def _in_folder(name: str, path: str) -> list[SourceFile]:
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(path)
    paths = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    found = []
    for one in paths:
        if suffix_of(one.name) is not None:
            label = one.name if one == root else str(one.relative_to(root))
            facts = _facts(one)
            if facts is not None:
                found.append(SourceFile(name, label, str(one), *facts))
    return found


def _in_bucket(name: str, path: str) -> list[SourceFile]:
    from trainrun_trainer.s3_client import list_objects, make_client  # as above

    bucket, prefix = _place(path)
    folder = "" if not prefix or suffix_of(prefix) else prefix.rstrip("/") + "/"
    found = []
    for one in list_objects(make_client(), bucket, folder or prefix):
        key = str(one["Key"])
        if suffix_of(key) is not None:
            label = key.removeprefix(folder) if folder else PurePosixPath(key).name
            address = f"s3://{bucket}/{key}"
            found.append(SourceFile(name, label, address, int(one["Size"]), str(one["ETag"])))
    return found


def _place(address: str) -> tuple[str, str]:
    parsed = urlparse(address)
    return parsed.netloc, parsed.path.lstrip("/")
