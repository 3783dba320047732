"""Reads the files that tasks name: the same formats as training text, with the tasks file's field in every sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from trainrun_trainer.corpus.files import SUFFIXES, suffix_of
from trainrun_trainer.corpus.formats import Record, read_records
from trainrun_trainer.errors import DataError


def records(path: str, field: str, columns: Sequence[str], optional: Sequence[str], most: int) -> list[Record]:
    """The first records of a file or folder. Raises DataError, beginning with `field`, if there is none."""
    where = f"{field}.path={path}"
    found = list(islice(_all(Path(path), where, list(columns), list(optional)), most))
    if not found:
        raise DataError(f"{where}: there is nothing in it; give a file or folder of {', '.join(SUFFIXES)}")
    return found


def text_of(record: Record, name: str, field: str) -> str:
    """The text of a record, or its column `name`."""
    text = record.text if record.fields is None else record.fields.get(name)
    if not isinstance(text, str):
        raise DataError(f"{field}: {record.place} has no string field {name!r}; name the right one in the tasks file")
    return text


def fields_of(record: Record, field: str) -> Mapping[str, Any]:
    """Columns of a record that must have some."""
    if record.fields is None:
        raise DataError(f"{field}: {record.place} has no fields; give .jsonl or .parquet")
    return record.fields


def _all(root: Path, where: str, columns: list[str], optional: list[str]) -> Iterator[Record]:
    if not root.exists():
        raise DataError(f"{where}: no such file or folder")
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    for file in files:
        if suffix_of(file.name) is not None:
            label = file.name if file == root else str(file.relative_to(root))
            yield from read_records(file, label, where, columns, optional)
