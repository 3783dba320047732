"""Formats and places of text: real pages in each format give the same documents, refusals name file and line."""

from __future__ import annotations

import gzip
import io
import json
import pydoc
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from trainrun_api.data_config import DataConfig
from trainrun_trainer import s3_client
from trainrun_trainer.corpus.formats import read_records
from trainrun_trainer.errors import DataError
from trainrun_trainer.prepare import prepare
from trainrun_trainer.prepared import DataManifest
from trainrun_trainer.storage import LocalDirectory

from tests.trainer.buckets import BUCKET, FaultyNetwork, client, environment, s3_server

PAGES = [topics[name] for name in sorted(topics)[:12]]
Make = Callable[[Path], None]


def config(path: str | Path, **changes: Any) -> DataConfig:
    """One source."""
    source = {"path": str(path), **changes.pop("source", {})}
    raw = {"sources": {"a": source}, "tokenizer": {"vocab_size": 400}, "row_tokens": 32, "held_out_share": 0, **changes}
    return DataConfig.model_validate(raw)


def make(path: str | Path, store: Path, **changes: Any) -> DataManifest:
    """Prepare one source."""
    return prepare(config(path, **changes), LocalDirectory(store))


def index_of(data: DataManifest) -> list[dict[str, Any]]:
    """The documents that the manifest names."""
    return [json.loads(line) for line in (data.folder / "a" / "documents.jsonl").read_text().splitlines()]


def lines() -> bytes:
    """The pages as JSON lines."""
    return "".join(json.dumps({"text": page}) + "\n" for page in PAGES).encode()


def write_tar(folder: Path) -> None:
    """WebDataset: a text and an image for each sample."""
    with tarfile.open(folder / "shard-000000.tar", "w") as archive:
        for i, page in enumerate(PAGES):
            for kind, body in (("jpg", b"\xff\xd8"), ("txt", page.encode())):
                member = tarfile.TarInfo(f"{i:06d}.{kind}")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))


def write_json_tar(folder: Path) -> None:
    """WebDataset with .json members."""
    with tarfile.open(folder / "shard-000000.tar", "w") as archive:
        for i, page in enumerate(PAGES):
            body = json.dumps({"text": page}).encode()
            member = tarfile.TarInfo(f"{i:06d}.json")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))


def write_zst(folder: Path) -> None:
    with pyarrow.output_stream(str(folder / "pages.jsonl.zst"), compression="zstd") as stream:
        stream.write(lines())


def write_saved_dataset(folder: Path) -> None:
    """The files that datasets' save_to_disk writes; what it left in its cache is not read."""
    schema = pyarrow.schema([("id", pyarrow.int64()), ("text", pyarrow.string())])
    for number, pages in enumerate((PAGES[:5], PAGES[5:])):
        rows = pyarrow.record_batch([list(range(len(pages))), pages], schema=schema)
        path = folder / f"data-{number:05d}-of-00002.arrow"
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(rows)
    (folder / "cache-0123456789abcdef.arrow").write_bytes(b"left over")
    (folder / "state.json").write_text("{}")
    (folder / "dataset_info.json").write_text("{}")


def write_parquet(folder: Path) -> None:
    parquet.write_table(pyarrow.table({"n": range(12), "text": PAGES}), folder / "p.parquet", row_group_size=5)


FORMATS: dict[str, Make] = {
    "jsonl": lambda folder: (folder / "pages.jsonl").write_bytes(lines()) and None,
    "jsonl.gz": lambda folder: (folder / "pages.jsonl.gz").write_bytes(gzip.compress(lines())) and None,
    "jsonl.zst": write_zst,
    "parquet": write_parquet,
    "webdataset, txt": write_tar,
    "webdataset, json": write_json_tar,
    "save_to_disk": write_saved_dataset,
}


@pytest.fixture(scope="module")
def as_text(tmp_path_factory: pytest.TempPathFactory) -> DataManifest:
    """The pages as .txt files."""
    folder = tmp_path_factory.mktemp("text")
    for i, page in enumerate(PAGES):
        (folder / f"{i:02d}.txt").write_text(page)
    return make(folder, tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path, as_text: DataManifest) -> None:
    """S2-03, S2-33: content, rows and their tokens are those of the same pages as .txt."""
    (tmp_path / "a").mkdir()
    FORMATS[name](tmp_path / "a")
    data = make(tmp_path / "a", tmp_path / "store")
    assert data.facts["sources"]["a"] == as_text.facts["sources"]["a"]
    assert (data.folder / "a/train.rows").read_bytes() == (as_text.folder / "a/train.rows").read_bytes()
    assert [entry["tokens"] for entry in index_of(data)] == [entry["tokens"] for entry in index_of(as_text)]


def test_the_text_of_a_page_leaves_its_navigation(tmp_path: Path) -> None:
    """S4-03: main text of real HTML; a menu and a footer around it are gone, a page in Latin-1 is read as such."""
    body = pydoc.html.document(json, "json")
    menu = "<nav><ul><li><a href='/'>Start of the site</a></li><li><a href='/more'>More of it</a></li></ul></nav>"
    page = f"<html><head></head><body>{menu}<main>{body}</main><footer>All rights</footer></body></html>"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "json.html").write_text(page)
    (tmp_path / "a" / "latin.htm").write_bytes(
        "<html><head><meta charset=iso-8859-1></head><body><p>Käse und Brot, jeden Tag.</p></body></html>".encode(
            "latin-1"
        )
    )
    texts = [
        record.text or ""
        for name in ("json.html", "latin.htm")
        for record in read_records(tmp_path / "a" / name, name, "here", [], [])
    ]
    assert "JavaScript Object Notation" in texts[0] and "href" not in texts[0]
    assert "Start of the site" not in texts[0] and "All rights" not in texts[0]
    assert "Käse und Brot" in texts[1]
    assert [entry["file"] for entry in index_of(make(tmp_path / "a", tmp_path / "store"))] == ["json.html", "latin.htm"]


BAD: dict[str, tuple[Make, list[str]]] = {
    "wrong column": (write_parquet, ["file p.parquet has no column 'body'", "n, text"]),
    "wrong column, arrow": (write_saved_dataset, ["data-00000-of-00002.arrow has no column 'body'", "id, text"]),
    "wrong field in a tar": (write_json_tar, ["shard-000000.tar, member 000000.json", "'body'", "text_field"]),
    "no parquet": (lambda f: (f / "x.parquet").write_bytes(b"PAR1 not") and None, ["x.parquet is no parquet file"]),
    "no tar": (lambda f: (f / "x.tar").write_bytes(b"not a tar" * 100) and None, ["x.tar is no tar archive"]),
    "empty files": (lambda f: (f / "x.txt").touch(), ["every file in it is empty"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_sentence(case: str, tmp_path: Path) -> None:
    """Before any device time; the source is named as the user wrote it."""
    write, words = BAD[case]
    (tmp_path / "a").mkdir()
    write(tmp_path / "a")
    with pytest.raises(DataError) as refused:
        make(tmp_path / "a", tmp_path / "store", source={"text_field": "body"})
    message = str(refused.value)
    assert message.startswith(f"data.sources.a.path={tmp_path / 'a'}") and "\n" not in message
    assert all(word in message for word in words), message


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for the module."""
    with s3_server() as url:
        yield url


@pytest.mark.parametrize("fault", [None, "503", "torn", "silent", "slow"])
def test_text_in_a_bucket(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_text: DataManifest, fault: str | None
) -> None:
    """S4-11, S4-21: the same rows over a bad network (slow down, torn, silent, slow), and nothing is left behind."""
    (tmp_path / "a").mkdir()
    write_parquet(tmp_path / "a")
    prefix = f"text-{fault}/web"
    client(url).upload_file(str(tmp_path / "a" / "p.parquet"), BUCKET, f"{prefix}/part/p.parquet")
    monkeypatch.setattr(s3_client, "READ_SECONDS", 1)
    with FaultyNetwork(url, fault or "none") as network:
        for name, value in environment(network.url).items():
            monkeypatch.setenv(name, value)
        data = make(f"s3://{BUCKET}/{prefix}", tmp_path / "store")
    assert data.facts["sources"]["a"] == as_text.facts["sources"]["a"]
    assert index_of(data)[0] == {**index_of(as_text)[0], "file": "part/p.parquet", "line": 1}
    assert not list((tmp_path / "store").rglob("*input*"))
    assert network.faults >= 2


def test_an_empty_prefix_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder without files."""
    for name, value in environment(url).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=r"data\.sources\.a\.path=s3://checkpoints/nothing: no file in it"):
        make(f"s3://{BUCKET}/nothing", tmp_path)
    with pytest.raises(DataError, match=r"s3://no-such-bucket/x cannot be read.*NoSuchBucket"):
        make("s3://no-such-bucket/x", tmp_path)
