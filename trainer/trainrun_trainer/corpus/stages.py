"""The stages between files and rows, in their order, over all sources: clean, find copies, tokenise, look for overlap.

`Corpus` holds what is known of each file; every stage is jobs (jobs.py) and one look over their results.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from trainrun_api.data_config import DataConfig

from trainrun_trainer.corpus import dedupe
from trainrun_trainer.corpus.files import SourceFile, all_files
from trainrun_trainer.corpus.jobs import Facts, Job, is_held_out, read_documents, whole_text
from trainrun_trainer.corpus.pool import run_jobs
from trainrun_trainer.corpus.tokenise import HELD_NGRAMS
from trainrun_trainer.logs import log
from trainrun_trainer.units import NOBODY, Units

LOG_SECONDS = 10.0


@dataclass
class Corpus:
    """All files of a run's sources, in order, and the folder where their results lie."""

    config: DataConfig
    work: Path
    files: list[SourceFile]
    numbers: dict[SourceFile, int]
    """Names the results of each file."""
    units: Units = NOBODY
    dropped: dict[SourceFile, str] = field(default_factory=dict)
    """Hash of the documents that are copies, by file."""

    @classmethod
    def of(
        cls, config: DataConfig, work: Path, units: Units = NOBODY, found: Sequence[SourceFile] | None = None
    ) -> Corpus:
        """Look at all sources before any of them is read, unless that was done already. Raises DataError."""
        files = all_files(config) if found is None else list(found)
        return cls(config, work, files, {file: number for number, file in enumerate(files)}, units)

    def job(self, kind: str, file: SourceFile, made_from: str = "", needs: Path | None = None) -> Job:
        """A job on one file."""
        out = self.work / file.source / f"{self.numbers[file]:06d}"
        return Job(kind, file, self.config, out, made_from, "" if needs is None else str(needs))

    def part(self, file: SourceFile, name: str) -> Path:
        """One result of a file's jobs."""
        return self.job("", file).part(name)

    def of_source(self, name: str) -> list[SourceFile]:
        """A source's files."""
        return [file for file in self.files if file.source == name]

    # -- stages ----------------------------------------------------------------------------------

    def clean(self) -> dict[str, Facts]:
        """Read, extract, filter every file; counts by source."""
        facts = self._run([self.job("clean", file) for file in self.files])
        counts: dict[str, Facts] = {name: {"read": 0, "removed": {}} for name in self.config.sources}
        for file, found in zip(self.files, facts, strict=True):
            mine = counts[file.source]
            mine["read"] += found["read"]
            _add(mine["removed"], found["removed"])
        return counts

    def drop_copies(self) -> dict[str, dict[str, int]]:
        """Find copies over all sources; how many of each kind leave, by source."""
        removed: dict[str, dict[str, int]] = {name: {} for name in self.config.sources}
        if self.config.dedupe is None:
            return removed
        keys = [np.load(self.part(file, "keys.npy")) for file in self.files]
        exact = dedupe.exact_copies(np.concatenate(keys))
        near = np.zeros_like(exact)
        if self.config.dedupe.near:
            parts = [self.part(file, "signatures.npy") for file in self.files]
            near = dedupe.near_copies(parts, self.config.dedupe.min_similarity) & ~exact
        start = 0
        for file, mine in zip(self.files, keys, strict=True):
            here = slice(start, start + len(mine))
            start += len(mine)
            flags = exact[here] | near[here]
            np.save(self.part(file, "dropped.npy"), flags)
            self.dropped[file] = xxhash.xxh3_64_hexdigest(flags.tobytes())
            found = {"exact_copy": int(exact[here].sum()), "near_copy": int(near[here].sum())}
            _add(removed[file.source], {name: count for name, count in found.items() if count})
        return removed

    def training_texts(self) -> Iterator[str]:
        """What a tokenizer is trained on."""
        for file in self.files:
            for entry in read_documents(self.part(file, "docs"), self.part(file, "dropped.npy")):
                text = whole_text(entry)
                if not is_held_out(text, self.config.held_out_share):
                    yield text

    def tokenise(self, tokenizer: Path, tokenizer_hash: str) -> dict[str, dict[str, int]]:
        """Token ids of every file; rows that were too long, by source."""
        jobs = [
            self.job("tokenise", file, f"{tokenizer_hash}:{self.dropped.get(file, '')}", tokenizer)
            for file in self.files
        ]
        removed: dict[str, dict[str, int]] = {name: {} for name in self.config.sources}
        for file, found in zip(self.files, self._run(jobs), strict=True):
            if found["too_long"]:
                _add(removed[file.source], {"too_long": found["too_long"]})
        return removed

    def overlap(self) -> dict[str, Facts]:
        """How much held-out text is in training text, by source of the held-out text."""
        words = self.config.contamination_words
        if not words or not self.config.held_out_share:
            return {}
        held = [np.load(self.part(file, "held.npy")) for file in self.files]
        known = np.unique(np.concatenate(held))
        if not len(known):
            return {}
        np.save(self.work / HELD_NGRAMS, known)
        made_from = xxhash.xxh3_64_hexdigest(known.tobytes())
        self._run([self.job("overlap", file, made_from, self.work) for file in self.files])
        seen = np.zeros(len(known), np.bool_)
        for file in self.files:
            seen |= np.load(self.part(file, "seen.npy"))
        report: dict[str, Facts] = {}
        for file, hashes in zip(self.files, held, strict=True):
            lengths = np.load(self.part(file, "held-lengths.npy"))
            is_seen = seen[np.searchsorted(known, hashes)]
            owners = np.repeat(np.arange(len(lengths)), lengths)
            mine = report.setdefault(file.source, {"documents": 0, "overlapping": 0, "runs": 0, "shared_runs": 0})
            found = {"documents": len(lengths), "overlapping": len(np.unique(owners[is_seen])), "runs": len(hashes)}
            _add(mine, {**found, "shared_runs": int(is_seen.sum())})
        return report

    def _run(self, jobs: Sequence[Job]) -> list[Facts]:
        pace = _Pace(jobs[0].kind, len(jobs))
        self.units.expect(len(jobs))

        def done(job: Job, facts: Facts) -> None:
            pace.done(job, facts)
            self.units.done()

        return run_jobs(jobs, self.config.processes, done)


class _Pace:
    """Says how far a stage is, at most every ten seconds and at its end, once it has taken that long."""

    def __init__(self, kind: str, files: int) -> None:
        self.kind, self.files = kind, files
        self.done_files = self.size = self.tokens = 0
        self._started = self._said = time.monotonic()

    def done(self, job: Job, facts: Facts) -> None:
        """One more file."""
        self.done_files += 1
        self.size += job.file.size
        self.tokens += int(facts.get("tokens", 0))
        now = time.monotonic()
        if now - self._said >= LOG_SECONDS or (self.done_files == self.files and self.kind == "tokenise"):
            self._said = now
            seconds = max(now - self._started, 1e-9)
            rates: dict[str, Any] = {"megabytes_per_second": round(self.size / 1e6 / seconds, 2)}
            if self.tokens:
                rates["tokens_per_second"] = round(self.tokens / seconds)
            log("prepare", stage=self.kind, files=self.done_files, of=self.files, **rates)


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
