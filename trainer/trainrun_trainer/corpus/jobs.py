"""What is done to one file: clean it, tokenise it, look for held-out text in it. Each leaves a mark when it is done.

A mark holds what the work was made from and how large its files are; a job whose mark fits is not done again, so that
a killed preparation goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from trainrun_api.data_config import DataConfig, DataSource

from trainrun_trainer.corpus import dedupe, filters, instructions, ngrams
from trainrun_trainer.corpus.files import SourceFile, local_copy, suffix_of, unchanged
from trainrun_trainer.corpus.formats import Record, read_records
from trainrun_trainer.errors import DataError

Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One piece of work; JSON, so that another process can do it."""

    kind: str
    """clean, tokenise or overlap."""
    file: SourceFile
    config: DataConfig
    out: Path
    """Beginning of the names of this file's results."""
    made_from: str = ""
    """Hash of what else the result depends on: dropped documents, tokenizer, held-out text."""
    needs: str = ""
    """Folder of what else is read: the tokenizer, or the held-out text's n-grams."""

    def to_json(self) -> str:
        """One line."""
        rest = {"kind": self.kind, "out": str(self.out), "made_from": self.made_from, "needs": self.needs}
        return json.dumps({**rest, "file": self.file.facts(), "config": self.config.model_dump(mode="json")})

    @classmethod
    def from_json(cls, line: str) -> Job:
        """Back again."""
        raw = json.loads(line)
        raw |= {"file": SourceFile(**raw["file"]), "config": DataConfig.model_validate(raw["config"])}
        return cls(**{**raw, "out": Path(raw["out"])})

    @property
    def source(self) -> DataSource:
        """The file's source."""
        return self.config.sources[self.file.source]

    def part(self, name: str) -> Path:
        """One result."""
        return self.out.with_name(f"{self.out.name}.{name}")


def run_job(job: Job) -> Facts:
    """Do it, unless its mark says that it is done. Raises DataError."""
    mark = job.part(f"{job.kind}.json")
    inputs = [job.file.facts(), job.made_from]
    found = _read_mark(job, mark, inputs)
    if found is not None:
        return found
    mark.unlink(missing_ok=True)
    job.out.parent.mkdir(parents=True, exist_ok=True)
    from trainrun_trainer.corpus.tokenise import overlap, tokenise

    facts, parts = {"clean": clean, "tokenise": tokenise, "overlap": overlap}[job.kind](job)
    sizes = {name: job.part(name).stat().st_size for name in parts}
    temporary = mark.with_suffix(".tmp")
    temporary.write_text(json.dumps({"inputs": inputs, "sizes": sizes, "facts": facts}))
    os.replace(temporary, mark)
    return facts


def clean(job: Job) -> tuple[Facts, list[str]]:
    """Read, extract, filter: the documents that stay, as JSON lines, with their keys where copies are looked for."""
    near = job.config.dedupe is not None and job.config.dedupe.near
    read, removed = 0, dict[str, int]()
    keys, signatures = bytearray(), []
    with unchanged(job.file), open(job.part("docs"), "w", encoding="utf-8") as out:
        for record in _records(job):
            read += 1
            entry, text = _entry(record, job)
            reason = filters.why_removed(text, job.source)
            if reason is not None:
                removed[reason] = removed.get(reason, 0) + 1
                continue
            out.write(json.dumps({"file": record.label, "line": record.number, **entry}) + "\n")
            if job.config.dedupe is not None:
                keys += dedupe.exact_key(text)
            if near:
                signatures.append(ngrams.signature(ngrams.word_hashes(text)))
    parts = ["docs"]
    if job.config.dedupe is not None:
        np.save(job.part("keys.npy"), np.frombuffer(bytes(keys), dedupe.KEY))
        parts.append("keys.npy")
    if near:
        empty = np.zeros((0, ngrams.BANDS * ngrams.BAND_ROWS), np.uint32)
        np.save(job.part("signatures.npy"), np.stack(signatures) if signatures else empty)
        parts.append("signatures.npy")
    return {"read": read, "kept": read - sum(removed.values()), "removed": removed}, parts


def read_documents(docs: Path, dropped: Path) -> Iterator[dict[str, Any]]:
    """Documents that `clean` kept and that are no copies."""
    is_dropped = np.load(dropped) if dropped.exists() else None
    with open(docs, encoding="utf-8") as stream:
        for i, line in enumerate(stream):
            if is_dropped is None or not is_dropped[i]:
                yield json.loads(line)


def whole_text(entry: dict[str, Any]) -> str:
    """What a document says: its hash decides on which side of the split it falls."""
    if "text" in entry:
        return str(entry["text"])
    if "pieces" in entry:
        return "".join(text for text, _ in entry["pieces"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in entry["messages"])


def is_held_out(text: str, share: float) -> bool:
    """By the document's hash: equal texts fall on the same side, whatever the order of files."""
    return xxhash.xxh3_64_intdigest(text.encode()) < share * 2.0**64


def _records(job: Job) -> Iterator[Record]:
    where = f"data.sources.{job.file.source}.path={job.source.path}"
    form = job.source.instruct
    optional: list[str] = []
    if form is None:
        columns = [job.source.text_field]
    elif form.messages_field is not None:
        columns = [form.messages_field]
    else:
        columns, optional = [form.prompt_field, form.response_field], [form.context_field]
    scratch = job.part(f"input{suffix_of(job.file.label)}")
    try:
        with local_copy(job.file, scratch) as path:
            yield from read_records(path, job.file.label, where, columns, optional)
    except OSError as error:
        raise DataError(f"{where}: file {job.file.label} cannot be read ({error})") from error


def _entry(record: Record, job: Job) -> tuple[dict[str, Any], str]:
    """What is kept of a record, and its text. Raises DataError."""
    where = f"data.sources.{job.file.source}.path={job.source.path}: {record.place}"
    form = job.source.instruct
    if form is not None:
        if record.fields is None:
            raise DataError(f"{where} has no fields, which data.sources.{job.file.source}.instruct needs; give .jsonl")
        if form.messages_field is not None:
            entry: dict[str, Any] = {"messages": instructions.messages_of(record.fields, form, where)}
        else:
            entry = {"pieces": instructions.pieces_of_columns(record.fields, form, where)}
    else:
        text = record.text if record.fields is None else record.fields.get(job.source.text_field)
        if not isinstance(text, str):
            raise DataError(
                f"{where} has no string field {job.source.text_field!r}; "
                "set data.sources.<name>.text_field to the right one"
            )
        entry = {"text": text}
    return entry, whole_text(entry)


def _read_mark(job: Job, mark: Path, inputs: list[Any]) -> Facts | None:
    try:
        found = json.loads(mark.read_text())
    except (FileNotFoundError, ValueError):
        return None
    for name, size in found["sizes"].items():
        part = job.part(name)
        if not part.is_file() or part.stat().st_size != size:
            return None
    facts: Facts = found["facts"]
    return facts if found["inputs"] == inputs else None
