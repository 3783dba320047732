"""Text to rows: nothing lost, nothing doubled, and every refusal in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainrun_api.data_config import DataConfig
from trainrun_trainer.corpus.jobs import is_held_out
from trainrun_trainer.errors import ConfigError, DataError
from trainrun_trainer.packing import HELD_OUT, TRAIN, PackedRows, Packer
from trainrun_trainer.prepare import prepare
from trainrun_trainer.prepared import DataManifest
from trainrun_trainer.rows import IGNORED, make_slot, open_rows
from trainrun_trainer.storage import LocalDirectory
from trainrun_trainer.tokenizer import load_tokenizer

CPU = torch.device("cpu")


def config(text: Path, **changes: Any) -> DataConfig:
    """Two sources of real text."""
    sources = {name: {"path": str(text / name)} for name in ("domain", "general")}
    raw = {"sources": sources, "tokenizer": {"vocab_size": 600}, "row_tokens": 64, "held_out_share": 0.2, **changes}
    return DataConfig.model_validate(raw)


@pytest.fixture(scope="module")
def prepared(text: Path, tmp_path_factory: pytest.TempPathFactory) -> DataManifest:
    """The real text, prepared once."""
    return prepare(config(text), LocalDirectory(tmp_path_factory.mktemp("store")))


def documents_of(data: DataManifest, source: str, split: str) -> dict[int, list[int]]:
    """Tokens of each document, put together again from its pieces in rows."""
    rows = open_rows(data, source, split)
    found: dict[int, list[int]] = {}
    for row in range(rows.num_rows):
        pieces = rows.segments(row).tolist()
        ends = [start for _, start, _ in pieces[1:]] + [rows.row_tokens]
        for (document, start, offset), end in zip(pieces, ends, strict=True):
            assert len(found.setdefault(document, [])) == offset
            found[document] += rows.tokens(row)[start:end].tolist()
    return found


def test_no_token_is_lost_or_doubled(text: Path, prepared: DataManifest) -> None:
    """Rows, put together again, are the tokenised documents in order, up to the counted tail."""
    tokenizer = load_tokenizer(prepared.folder / "tokenizer")
    names = [f"chapter{i:03d}.txt" for i in range(60)]
    for split in (TRAIN, HELD_OUT):
        texts = [(text / "domain" / n).read_text() for n in names]
        kept = [t for t in texts if is_held_out(t, 0.2) == (split == HELD_OUT)]
        expected = [id for t in kept for id in [*tokenizer(t)["input_ids"], tokenizer.eos_token_id]]
        packed = [id for tokens in documents_of(prepared, "domain", split).values() for id in tokens]
        counts = prepared.split("domain", split)
        assert packed == expected[: len(packed)]
        assert len(expected) - len(packed) == counts["tail_tokens"] < 64
        assert counts["tokens"] == len(expected) == counts["rows"] * 64 + counts["tail_tokens"]
        assert counts["documents"] == len(kept)


def test_held_out_documents_never_reach_training(prepared: DataManifest) -> None:
    """The split is by document, before packing, and both sides exist."""
    for source in ("domain", "general"):
        sides = [set(documents_of(prepared, source, split)) for split in (TRAIN, HELD_OUT)]
        assert all(sides)
        assert not sides[0] & sides[1]


def test_rows_carry_their_own_ids(prepared: DataManifest) -> None:
    """What proves which rows were read is stored in them."""
    for number, source in enumerate(("domain", "general")):
        rows = open_rows(prepared, source, TRAIN)
        assert [rows.stored_id(r) for r in range(rows.num_rows)] == [(number, r) for r in range(rows.num_rows)]


def test_preparing_twice_gives_equal_files_and_reuses_them(text: Path, tmp_path: Path) -> None:
    """A function of configuration and text; a damaged file is made again."""
    first = prepare(config(text), LocalDirectory(tmp_path / "a"))
    second = prepare(config(text), LocalDirectory(tmp_path / "b"))
    assert first.facts == second.facts
    rows = second.folder / "domain" / "train.rows"
    kept = rows.stat().st_mtime_ns
    assert prepare(config(text), LocalDirectory(tmp_path / "b")).facts == first.facts
    assert rows.stat().st_mtime_ns == kept
    rows.write_bytes(b"\0" + rows.read_bytes()[1:])
    assert prepare(config(text), LocalDirectory(tmp_path / "b")).facts == first.facts


def test_a_tokenizer_folder_is_loaded(text: Path, prepared: DataManifest, tmp_path: Path) -> None:
    """A second run may use the first one's tokenizer."""
    folder = str(prepared.folder / "tokenizer")
    again = prepare(config(text, tokenizer={"path": folder}), LocalDirectory(tmp_path))
    assert again.facts["sources"] == prepared.facts["sources"]
    with pytest.raises(ConfigError, match=r"tokenizer\.path=.*no such folder"):
        prepare(config(text, tokenizer={"path": str(tmp_path / "none")}), LocalDirectory(tmp_path))


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(2, 17))
def test_packing_keeps_every_document_whole(tmp_path_factory: Any, lengths: list[int], row_tokens: int) -> None:
    """For any lengths: pieces in order, positions restart with each piece, the last token of a piece has no target."""
    folder = tmp_path_factory.mktemp("packed")
    packer = Packer(folder, "train", 0, row_tokens)
    stream = np.arange(sum(lengths), dtype=np.int32)
    ends = np.cumsum(lengths)
    for document, end in enumerate(ends):
        packer.add(document, stream[end - lengths[document] : end])
    counts = packer.close()
    rows = PackedRows(folder, "train", counts["rows"], row_tokens)
    flat = [t for r in range(rows.num_rows) for t in rows.tokens(r).tolist()]
    assert flat == stream[: len(flat)].tolist()
    assert len(flat) + counts["tail_tokens"] == len(stream)
    starts = {0, *ends.tolist()}
    for r in range(rows.num_rows):
        slot = make_slot([(rows, r)], CPU)
        position, targets = slot.position_ids[0].tolist(), slot.targets[0].tolist()
        expected = 0
        for i in range(row_tokens):
            token = r * row_tokens + i
            expected = 0 if i == 0 or token in starts else expected + 1
            assert position[i] == expected
            is_last = i == row_tokens - 1 or token + 1 in starts
            assert targets[i] == (IGNORED if is_last else token + 1)
        assert rows.num_targets(r) == sum(t != IGNORED for t in targets)


def test_the_held_out_share_is_met() -> None:
    """By hash: about the share, and equal texts on the same side."""
    texts = [f"document {i}" for i in range(2000)]
    share = sum(is_held_out(t, 0.1) for t in texts) / len(texts)
    assert 0.07 < share < 0.13
    assert not any(is_held_out(t, 0.0) for t in texts)


BAD = {
    "no folder": (lambda p: None, ["data.sources.a.path=", "no such folder"]),
    "no file": (lambda p: p.mkdir(), ["no file in it"]),
    "empty documents": (lambda p: write(p / "x.txt", b" \n"), ["data.sources.a", "empty"]),
    "not UTF-8": (lambda p: write(p / "x.txt", b"good\nbad \xff\n"), ["file x.txt, line 2", "UTF-8"]),
    "not JSON": (lambda p: write(p / "x.jsonl", b'{"text": "a"}\nnonsense\n'), ["file x.jsonl, line 2", "JSON"]),
    "no field": (lambda p: write(p / "x.jsonl", b'{"body": "a"}\n'), ["file x.jsonl, line 1", "'text'", "text_field"]),
    "not an object": (lambda p: write(p / "x.jsonl", b"\n[1]\n"), ["file x.jsonl, line 2", "'text'"]),
    "too little": (lambda p: write(p / "x.txt", b"few words"), ["data.sources.a", "row_tokens=64", "do not fill"]),
}


def write(path: Path, content: bytes) -> None:
    """Write a file and its folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_text_is_refused_by_file_and_line(case: str, tmp_path: Path) -> None:
    """Exit 21, one sentence that names where."""
    make, words = BAD[case]
    make(tmp_path / "a")
    bad = DataConfig.model_validate(
        {"sources": {"a": {"path": str(tmp_path / "a")}}, "tokenizer": {"vocab_size": 300}, "row_tokens": 64}
    )
    with pytest.raises(DataError) as refusal:
        prepare(bad, LocalDirectory(tmp_path / "store"))
    assert refusal.value.exit_code == 21
    assert all(word in str(refusal.value) for word in words), str(refusal.value)
    assert not (tmp_path / "store" / "data").exists() or not list((tmp_path / "store").rglob("manifest.json"))


def test_a_source_without_weight_needs_no_training_row(tmp_path: Path, text: Path) -> None:
    """Weight 0 leaves a source out of training."""
    write(tmp_path / "a" / "x.txt", b"few words")
    sources = {"a": {"path": str(tmp_path / "a")}, "domain": {"path": str(text / "domain")}}
    mixed = config(text, sources=sources, mix={"domain": 1.0})
    assert prepare(mixed, LocalDirectory(tmp_path / "store")).split("a", TRAIN)["rows"] == 0


def test_jsonl_lines_are_documents(tmp_path: Path) -> None:
    """Lines in order, blank ones left out, another field by name; the index says where each came from."""
    lines = [json.dumps({"body": f"line {i} " * 40}) for i in range(3)]
    write(tmp_path / "a" / "x.jsonl", "\n\n".join(lines).encode())
    data = DataConfig.model_validate(
        {
            "sources": {"a": {"path": str(tmp_path / "a"), "text_field": "body"}}, "tokenizer": {"vocab_size": 300},
            "row_tokens": 8, "held_out_share": 0,
        }
    )  # fmt: skip
    prepared = prepare(data, LocalDirectory(tmp_path / "store"))
    index = [json.loads(line) for line in (prepared.folder / "a" / "documents.jsonl").read_text().splitlines()]
    assert [(entry["file"], entry["line"]) for entry in index] == [("x.jsonl", 1), ("x.jsonl", 3), ("x.jsonl", 5)]
