"""Files to records: what one document is in each format, and where in the file it stands.

Every reader streams: memory does not grow with the file, but for .txt and .html, which are one document each.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrun_trainer.corpus.files import suffix_of
from trainrun_trainer.errors import DataError

BATCH_ROWS = 1024


@dataclass(frozen=True)
class Record:
    """One document as it was read: its text, or the fields that hold it."""

    number: int | None
    """1-based line or row; None where the file is the document."""
    place: str
    """For sentences: "file x.jsonl, line 3"."""
    label: str
    """File, with the member of a tar: "x.tar!0001.txt"."""
    text: str | None = None
    fields: Mapping[str, Any] | None = None


def read_records(path: Path, label: str, where: str, columns: list[str], optional: list[str]) -> Iterator[Record]:
    """Records of a file; `columns` (and `optional` ones, where they exist) are what columnar formats read.

    Raises DataError, naming file and line, for anything that cannot be read.
    """
    suffix = suffix_of(label)
    try:
        if suffix == ".txt":
            yield Record(None, f"file {label}", label, _decode(path.read_bytes(), f"{where}: file {label}"))
        elif suffix in (".html", ".htm"):
            yield Record(None, f"file {label}", label, _main_text(path.read_bytes()))
        elif suffix == ".parquet":
            yield from _parquet(path, label, where, columns, optional)
        elif suffix == ".arrow":
            yield from _arrow(path, label, where, columns, optional)
        elif suffix in (".tar", ".tar.gz"):
            yield from _tar(path, label, where)
        else:
            yield from _lines(path, label, where, suffix)
    except OSError as error:
        raise DataError(f"{where}: file {label} cannot be read ({error.strerror or error})") from error


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{where}, line {line} is not UTF-8 ({error.reason}); convert the file") from error


def _main_text(raw: bytes) -> str:
    """Text without navigation and footers, by resiliparse's rules; the page's own encoding."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    page = bytes_to_str(raw, detect_encoding(raw) or "utf-8")
    text = str(extract_plain_text(page, main_content=True, alt_texts=False))
    return text.replace("\xa0", " ")


def _lines(path: Path, label: str, where: str, suffix: str | None) -> Iterator[Record]:
    with _open_lines(path, suffix) as stream:
        for number, raw in enumerate(stream, start=1):
            if raw.strip():
                place = f"file {label}, line {number}"
                yield Record(number, place, label, fields=_json_object(raw, f"{where}: {place}"))


@contextmanager
def _open_lines(path: Path, suffix: str | None) -> Generator[Iterable[bytes], None, None]:
    if suffix == ".jsonl.gz":
        with gzip.open(path, "rb") as stream:
            yield stream
    elif suffix == ".jsonl.zst":
        import pyarrow

        with io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd")) as stream:
            yield stream
    else:
        with open(path, "rb") as stream:
            yield stream


def _json_object(raw: bytes, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(raw)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 ({error.reason}); convert the file") from error
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}); expected one object a line") from error
    return record if isinstance(record, dict) else {}


def _parquet(path: Path, label: str, where: str, columns: list[str], optional: list[str]) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            wanted = _columns_of(file.schema_arrow.names, columns, optional, f"{where}: file {label}")
            batches = file.iter_batches(batch_size=BATCH_ROWS, columns=wanted)
            yield from _rows(batches, label)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{where}: file {label} is no parquet file ({error})") from error


def _arrow(path: Path, label: str, where: str, columns: list[str], optional: list[str]) -> Iterator[Record]:
    """What `save_to_disk` writes: an Arrow stream (or an Arrow file)."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as raw:
            try:
                reader: Any = pyarrow.ipc.open_stream(raw)
                batches = iter(reader)
            except pyarrow.ArrowInvalid:
                reader = pyarrow.ipc.open_file(raw)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            wanted = _columns_of(reader.schema.names, columns, optional, f"{where}: file {label}")
            yield from _rows((batch.select(wanted) for batch in batches), label)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{where}: file {label} is no Arrow file ({error})") from error


def _columns_of(found: list[str], columns: list[str], optional: list[str], where: str) -> list[str]:
    missing = [name for name in columns if name not in found]
    if missing:
        raise DataError(f"{where} has no column {missing[0]!r}; it has {', '.join(found)}")
    return columns + [name for name in optional if name in found]


def _rows(batches: Iterator[Any], label: str) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for fields in batch.to_pylist():
            number += 1
            yield Record(number, f"file {label}, row {number}", label, fields=fields)


def _tar(path: Path, label: str, where: str) -> Iterator[Record]:
    """WebDataset: members of one sample share their name up to the first dot; .txt, .json or .html is read.

    https://github.com/webdataset/webdataset describes the convention.
    """
    readable = False
    try:
        with tarfile.open(path, "r|*") as archive:
            for number, member in enumerate(archive, start=1):
                kind = member.name.rpartition(".")[2].lower()
                if not member.isfile() or kind not in ("txt", "json", "html", "htm"):
                    continue
                readable = True
                stream = archive.extractfile(member)
                assert stream is not None
                raw, place = stream.read(), f"file {label}, member {member.name}"
                inside = f"{label}!{member.name}"
                if kind == "json":
                    yield Record(number, place, inside, fields=_json_object(raw, f"{where}: {place}"))
                else:
                    text = _decode(raw, f"{where}: {place}") if kind == "txt" else _main_text(raw)
                    yield Record(number, place, inside, text)
    except tarfile.TarError as error:
        raise DataError(f"{where}: file {label} is no tar archive ({error})") from error
    if not readable:
        raise DataError(f"{where}: file {label} has no .txt, .json or .html member")
