"""Many files over processes: the same data whatever the number of them, and whatever kills there were."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trainrun_api.data_config import DataConfig
from trainrun_trainer.corpus import stages
from trainrun_trainer.corpus.jobs import run_job
from trainrun_trainer.corpus.pool import run_jobs
from trainrun_trainer.corpus.stages import Corpus
from trainrun_trainer.corpus.texts import Texts
from trainrun_trainer.errors import DataError
from trainrun_trainer.packing import TRAIN
from trainrun_trainer.prepare import prepare
from trainrun_trainer.prepared import data_hash
from trainrun_trainer.rows import open_rows
from trainrun_trainer.storage import LocalDirectory
from trainrun_trainer.tokenizer import load_tokenizer

PINNED = "37eed34773becf45"
PINNED_4096 = "51f242ed025c6af9"
"""Of the first version, for the configuration below."""
PREPARE = """
import json, sys
from pathlib import Path
from trainrun_api.data_config import DataConfig
from trainrun_trainer.prepare import prepare
from trainrun_trainer.storage import LocalDirectory
prepare(DataConfig.model_validate(json.loads(sys.argv[1])), LocalDirectory(Path(sys.argv[2])))
"""


def raw(folder: Path, **changes: Any) -> dict[str, Any]:
    """One source, with everything on."""
    source = {"path": str(folder), "quality": {"min_words": 5}}
    fields = {"sources": {"a": source}, "tokenizer": {"vocab_size": 400}, "row_tokens": 32, "dedupe": {}}
    return {**fields, "held_out_share": 0.2, **changes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files of five pages each."""
    root = tmp_path_factory.mktemp("many")
    names = sorted(topics)[:60]
    for i in range(12):
        pages = "".join(json.dumps({"text": topics[name]}) + "\n" for name in names[5 * i : 5 * i + 5])
        (root / f"{i:02d}.jsonl").write_text(pages)
    return root


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Facts of an undisturbed preparation in one process."""
    return prepare(DataConfig.model_validate(raw(folder)), LocalDirectory(tmp_path_factory.mktemp("whole"))).facts


def test_a_configuration_keeps_its_hash() -> None:
    """Runs that exist find their data again: fields that came later count only where they are used."""
    old = {"sources": {"a": {"path": "text"}}, "tokenizer": {"vocab_size": 512}, "row_tokens": 64}
    assert data_hash(DataConfig.model_validate(old)) == PINNED
    assert data_hash(DataConfig.model_validate({**old, "processes": 3})) == PINNED
    explicit = data_hash(DataConfig.model_validate({**old, "row_tokens": 4096}))
    assert explicit == PINNED_4096
    del old["row_tokens"]
    assert data_hash(DataConfig.model_validate(old)) == explicit
    old["row_tokens"] = 64
    assert data_hash(DataConfig.model_validate({**old, "dedupe": {}})) != PINNED
    used = {**old, "sources": {"a": {"path": "text", "instruct": {}}}}
    assert data_hash(DataConfig.model_validate(used)) != PINNED
    assert data_hash(DataConfig.model_validate(old), Texts("content")) != PINNED


def test_processes_change_nothing(folder: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    """S1-03: three processes, files in any order; every byte is the same."""
    data = prepare(DataConfig.model_validate(raw(folder, processes=3)), LocalDirectory(tmp_path))
    assert data.facts["files"] == whole["files"]
    assert {**data.facts, "config": None} == {**whole, "config": None}
    assert not list((tmp_path / "data").glob("*.work"))


def test_the_log_says_how_fast_it_goes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """S1-03: where each file takes ten seconds, a line for each: files done and tokens a second since the beginning."""
    seconds = itertools.count(0, 10)
    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    data = prepare(DataConfig.model_validate(raw(folder, processes=1)), LocalDirectory(tmp_path))
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    told = [line for line in lines if line["event"] == "prepare" and line["stage"] == "tokenise"]
    assert [(line["files"], line["of"]) for line in told] == [(n, 12) for n in range(1, 13)]
    assert all(line["tokens_per_second"] > 0 for line in told)
    tokens = sum(
        data.split("a", split)[counted] for split in ("train", "held_out") for counted in ("tokens", "tail_tokens")
    )
    assert told[-1]["tokens_per_second"] == round(tokens / 120)


def test_facts_come_back_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    """Though the largest file is read first."""
    for i in range(4):
        line = json.dumps({"text": "a text of some words"}) + "\n"
        (tmp_path / f"{i}.jsonl").write_text(line * (i + 1))
    corpus = Corpus.of(DataConfig.model_validate(raw(tmp_path, dedupe=None)), tmp_path / "work")
    jobs = [corpus.job("clean", file) for file in corpus.files]
    assert [facts["read"] for facts in run_jobs(jobs, 2, lambda job, facts: None)] == [1, 2, 3, 4]


def test_an_error_in_a_process_is_the_same_sentence(folder: Path, tmp_path: Path) -> None:
    """And the other processes end."""
    (tmp_path / "a").mkdir()
    for i, file in enumerate(sorted(folder.iterdir())[:3]):
        (tmp_path / "a" / f"{i}.jsonl").write_bytes(file.read_bytes())
    (tmp_path / "a" / "9.jsonl").write_bytes(b'{"text": "good"}\n{"body": 1}\n')
    with pytest.raises(DataError, match=r"file 9\.jsonl, line 2 has no string field 'text'"):
        prepare(DataConfig.model_validate(raw(tmp_path / "a", processes=2)), LocalDirectory(tmp_path / "store"))


def test_a_killed_preparation_goes_on(folder: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    """S1-03: killed with its processes; what was done is not done again, and the data is the undisturbed one's."""
    asked = raw(folder, processes=2)
    command = [sys.executable, "-c", PREPARE, json.dumps(asked), str(tmp_path)]
    victim = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while len(marks := list(tmp_path.glob("data/*.work/a/*.clean.json"))) < 3 and victim.poll() is None:
        time.sleep(0.002)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert marks and not list(tmp_path.glob("data/*/manifest.json")), "killed in the middle"
    before = {mark: mark.stat().st_mtime_ns for mark in marks}
    corpus = Corpus.of(DataConfig.model_validate(asked), next(tmp_path.glob("data/*.work")))
    corpus.clean()
    assert {mark: mark.stat().st_mtime_ns for mark in marks} == before
    assert prepare(DataConfig.model_validate(asked), LocalDirectory(tmp_path)).facts["files"] == whole["files"]


def test_a_file_that_changed_is_read_again(folder: Path, tmp_path: Path) -> None:
    """So is one whose result is torn."""
    (tmp_path / "a").mkdir()
    text = tmp_path / "a" / "x.jsonl"
    text.write_bytes((folder / "00.jsonl").read_bytes())
    corpus = Corpus.of(DataConfig.model_validate(raw(tmp_path / "a")), tmp_path / "work")
    assert corpus.clean()["a"]["read"] == 5
    docs = corpus.part(corpus.files[0], "docs")
    whole_docs = docs.read_bytes()
    docs.write_bytes(whole_docs[:100])
    assert run_job(corpus.job("clean", corpus.files[0]))["read"] == 5
    assert docs.read_bytes() == whole_docs
    text.write_bytes((folder / "00.jsonl").read_bytes() + (folder / "01.jsonl").read_bytes())
    again = Corpus.of(DataConfig.model_validate(raw(tmp_path / "a")), tmp_path / "work")
    assert again.clean()["a"]["read"] == 10


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=st.lists(st.lists(st.text(min_size=1, max_size=80), max_size=6), min_size=1, max_size=5))
def test_no_token_is_lost_or_doubled_over_files(tmp_path_factory: Any, files: list[list[str]]) -> None:
    """S1-04: any texts in any files: rows of exactly L are the documents' tokens in order, up to the counted tail."""
    root = tmp_path_factory.mktemp("any")
    (root / "a").mkdir()
    texts = [["a few words so that a row is full " * 4, *file] for file in files]
    for i, file in enumerate(texts):
        (root / "a" / f"{i}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in file))
    fields = {"sources": {"a": {"path": str(root / "a")}}, "tokenizer": {"vocab_size": 300}, "row_tokens": 16}
    data = prepare(DataConfig.model_validate({**fields, "held_out_share": 0}), LocalDirectory(root / "store"))
    tokenizer = load_tokenizer(data.folder / "tokenizer")
    kept = [text for file in texts for text in file if text.strip()]
    expected = [i for text in kept for i in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    rows, counts = open_rows(data, "a", TRAIN), data.split("a", TRAIN)
    packed = [token for row in range(rows.num_rows) for token in rows.tokens(row).tolist()]
    assert packed == expected[: len(packed)] and len(packed) == 16 * rows.num_rows
    assert len(expected) - len(packed) == counts["tail_tokens"] < 16


def test_the_processes_import_no_torch() -> None:
    """They stay small (46 MiB seen), and start in a moment."""
    heavy = "{'torch', 'transformers', 'pyarrow', 'boto3'}"
    ask = f"import sys, trainrun_trainer.corpus.pool; print({heavy} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout == "set()\n"
