"""Text sources: folders of .txt files (one document each) and .jsonl files (one document a line)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainrun_api.train_config import DataSource

from trainrun_trainer.errors import DataError

SUFFIXES = (".txt", ".jsonl")


@dataclass(frozen=True)
class Document:
    """One text and where it came from."""

    text: str
    file: str
    line: int | None
    """1-based line of a .jsonl file."""


def read_documents(name: str, source: DataSource) -> Iterator[Document]:
    """Documents of a source in the order of file names; blank ones are left out.

    Raises DataError, naming file and line, for anything that cannot be read.
    """
    root = Path(source.path)
    where = f"data.sources.{name}.path={source.path}"
    if not root.exists():
        raise DataError(f"{where}: no such folder; give a folder of .txt or .jsonl files")
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    if not files:
        raise DataError(f"{where}: no .txt or .jsonl file in it")
    for file in files:
        label = file.name if root.is_file() else str(file.relative_to(root))
        yield from (
            _read_lines(file, label, where, source.text_field)
            if file.suffix == ".jsonl"
            else _read_whole(file, label, where)
        )


def _read_whole(file: Path, label: str, where: str) -> Iterator[Document]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(
            f"{where}: file {label}, line {line} is not UTF-8 ({error.reason}); convert the file"
        ) from error
    except OSError as error:
        raise DataError(f"{where}: file {label} cannot be read ({error.strerror})") from error
    if text.strip():
        yield Document(text, label, None)


def _read_lines(file: Path, label: str, where: str, field: str) -> Iterator[Document]:
    try:
        stream = open(file, "rb")
    except OSError as error:
        raise DataError(f"{where}: file {label} cannot be read ({error.strerror})") from error
    with stream:
        for number, raw in enumerate(stream, start=1):
            if raw.strip():
                text = _text_of(raw, field, f"{where}: file {label}, line {number}")
                if text.strip():
                    yield Document(text, label, number)


def _text_of(raw: bytes, field: str, where: str) -> str:
    try:
        record = json.loads(raw)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}); expected an object with a string field {field!r}") from error
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, str):
        raise DataError(f"{where} has no string field {field!r}; set data.sources.<name>.text_field to the right one")
    return value
