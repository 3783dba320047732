"""Text counts in a run of several stages: changed, it is prepared again, and what depends on it runs again.

Never while a stage is under way: that goes on with the text that it has begun with.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trainrun_api.data_config import DataConfig
from trainrun_trainer import s3_client
from trainrun_trainer.corpus import jobs, texts
from trainrun_trainer.corpus.formats import Record
from trainrun_trainer.corpus.stages import Corpus
from trainrun_trainer.errors import DataError, TextsChanged
from trainrun_trainer.explain_step import explain
from trainrun_trainer.prepared import data_hash

from tests.trainer.buckets import BUCKET, client, environment, s3_server
from tests.trainer.runs import Site, only_code, tiny_config, was_killed
from tests.trainer.stage_runs import ROWS, Chain, Stages, attempt

pytestmark = pytest.mark.timeout(600)
HOUR = 3600


@pytest.fixture
def mine(text: Path, tmp_path: Path) -> Path:
    """Some of the real text, which a test may change; nobody has touched it for an hour."""
    folder = tmp_path / "text"
    shutil.copytree(text, folder, ignore=shutil.ignore_patterns("chapter0[2-5]*"))
    for path in folder.rglob("*"):
        date(path, HOUR)
    return folder


def config_of(text: Path) -> dict[str, Any]:
    """Four steps on it."""
    config = tiny_config(text, **ROWS)
    config["data"]["tokenizer"]["vocab_size"] = 300
    return config


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path / "root", tmp_path)


def date(path: Path, seconds_ago: float) -> None:
    """Set the time of change."""
    os.utime(path, (time.time() - seconds_ago,) * 2)


def change(path: Path) -> None:
    """Other content of the same size."""
    path.write_text(path.read_text()[::-1])


def prepared(chain: Chain, text: Path) -> dict[str, Any]:
    """The next attempt to prepare; the record that it leaves."""
    outcome = attempt(chain, "prepare", config_of(text))
    assert outcome["exit_code"] == 0 and outcome["step"] == outcome["target_step"], outcome
    return chain.record("it")


def manifest(chain: Chain, name: str = "it") -> dict[str, Any]:
    """Of the data that a stage made or used."""
    found: dict[str, Any] = json.loads((chain.root / chain.record(name)["data"] / "manifest.json").read_text())
    return found


def starts(chain: Chain, name: str = "it") -> int:
    """How often a stage did something."""
    return len(list((chain.root / "stages" / name / "claims").iterdir()))


def test_prepared_again_when_the_text_changes_and_only_then(mine: Path, chain: Chain) -> None:
    """A file of the same size, a new file, a new name; not a new time; and back again."""
    first = prepared(chain, mine)
    date(mine / "domain" / "chapter003.txt", HOUR / 2)
    assert prepared(chain, mine) == first and starts(chain) == 1, "it was only touched"
    change(mine / "domain" / "chapter003.txt")
    places = [first["data"], prepared(chain, mine)["data"]]
    (mine / "general" / "more.txt").write_text("Another document of some words.")
    places.append(prepared(chain, mine)["data"])
    (mine / "general" / "more.txt").rename(mine / "general" / "most.txt")
    places.append(prepared(chain, mine)["data"])
    assert len(set(places)) == starts(chain) == 4
    assert sorted(path.name for path in (chain.root / "data").iterdir() if path.is_dir()) == sorted(
        Path(place).name for place in places
    )
    change(mine / "domain" / "chapter003.txt")
    (mine / "general" / "most.txt").unlink()
    made = {path: path.stat().st_mtime_ns for path in (chain.root / first["data"]).rglob("*")}
    assert prepared(chain, mine)["data"] == first["data"]
    assert {path: path.stat().st_mtime_ns for path in (chain.root / first["data"]).rglob("*")} == made


def test_prepared_again_when_a_tokenizer_from_elsewhere_changes(mine: Path, chain: Chain, tmp_path: Path) -> None:
    """The same text in other tokens is other data; weights and lineage beside the tokenizer say nothing of it."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(chain.root / prepared(chain, mine)["data"] / "tokenizer", folder)
    config = config_of(mine)
    config["data"]["tokenizer"] = {"path": str(folder)}

    def again() -> str:
        assert attempt(chain, "prepare", config)["exit_code"] == 0
        return str(chain.record("it")["data"])

    first = again()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "lineage.json").write_text("{}")
    assert again() == first and starts(chain) == 2
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["merges"].pop()
    words["model"]["vocab"].popitem()
    (folder / "tokenizer.json").write_text(json.dumps(words))
    assert again() != first and starts(chain) == 3


def test_only_what_looks_new_is_read(mine: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once more at each start, nor for each stage; and a file that was written just now is never taken as known."""
    inner, read = texts.hash_file, list[str]()

    def hashing(path: Path) -> dict[str, Any]:
        read.append(path.name)
        return inner(path)

    monkeypatch.setattr(texts, "hash_file", hashing)
    first = prepared(chain, mine)
    assert len(read) == len(set(read)) == len(list(mine.rglob("*.*")))
    read.clear()
    other = config_of(mine)
    other["data"]["row_tokens"] = 32
    assert attempt(chain, "prepare", other)["exit_code"] == 0 and not read
    date(mine / "domain" / "chapter003.txt", HOUR / 2)
    assert prepared(chain, mine)["input"] == first["input"] and read == ["chapter003.txt"]
    read.clear()
    assert prepared(chain, mine)["input"] == first["input"] and not read
    new = mine / "domain" / "new.txt"
    new.write_text("One two three.")
    written = new.stat().st_mtime_ns
    second = prepared(chain, mine)
    new.write_text("One two forty.")
    os.utime(new, ns=(written, written))
    assert prepared(chain, mine)["data"] not in (first["data"], second["data"])


def test_a_run_of_one_stage_does_not_look_at_the_content(undisturbed: Callable[[int], Site]) -> None:
    """Its data has the name that it always had, that of its configuration."""
    site = undisturbed(1)
    assert [path.name for path in (site.store / "data").iterdir()] == [
        data_hash(DataConfig.model_validate(tiny_config(site.text)["data"]))
    ]


def test_what_depends_on_the_text_runs_again_and_nothing_else(mine: Path, chain: Chain) -> None:
    """By real workers: training on the text and its evaluation, not the stage that reads another source."""
    base = config_of(mine)
    other = json.loads(json.dumps(base))
    other["data"] |= {"sources": {"general": base["data"]["sources"]["general"]}, "mix": {}}
    sets = {"domain": {"prepared": "stage:base/data", "source": "domain", "max_documents": 2}}
    stages: Stages = {
        "data": ("prepare", base),
        "base": ("train", base),
        "other": ("train", other),
        "judged": ("evaluate", {"perplexity": sets, "checkpoints": "stage:base/checkpoints"}),
    }
    chain.play(stages)
    first = {name: chain.record(name) for name in stages}
    assert first["base"]["data"] == first["data"]["data"] != first["other"]["data"]
    change(mine / "domain" / "chapter000.txt")
    chain.play(stages)
    second = {name: chain.record(name) for name in stages}
    assert {name for name in stages if second[name]["folder"] != first[name]["folder"]} == {"data", "base", "judged"}
    assert second["other"] == first["other"] and second["base"]["data"] == second["data"]["data"]
    for record in (first["base"], second["base"]):
        found = explain(str(chain.root / record["folder"]), 2)
        assert found["proof"]["first_difference"] is None and f"data/{found['data_hash']}" == record["data"]
    change(mine / "domain" / "chapter000.txt")
    outcomes = chain.play(stages)
    assert {name: of["message"] for name, of in outcomes.items()} == {n: f"stage {n} is done already" for n in stages}
    assert {name: chain.record(name)["folder"] for name in stages} == {name: first[name]["folder"] for name in stages}


def disturb_files(chain: Chain, mine: Path) -> None:
    """One file is another, one is new, one is gone."""
    change(mine / "domain" / "chapter000.txt")
    (mine / "domain" / "aaa.txt").write_text("A new document of some words.")
    (mine / "domain" / "chapter019.txt").unlink()


def disturb_data(chain: Chain, mine: Path) -> None:
    """A byte of the prepared rows."""
    rows = chain.root / chain.record("base")["data"] / "domain" / "train.rows"
    rows.write_bytes(b"\xff" + rows.read_bytes()[1:])


@pytest.mark.parametrize("disturb", [disturb_files, disturb_data])
def test_an_unfinished_training_goes_on_with_its_text(
    mine: Path, chain: Chain, tmp_path: Path, disturb: Callable[[Chain, Path], None]
) -> None:
    """Killed, disturbed, resumed: the same bits as undisturbed. Once it is done, changed files count."""
    stages: Stages = {"base": ("train", config_of(mine))}
    undisturbed = only_code(Chain(tmp_path / "undisturbed", tmp_path / "scratch").run(stages, "base"), 0)
    was_killed(chain.run(stages, "base", "kill_in_slot", on_rank=0, nth=9), 0)
    begun = chain.record("base")
    assert begun["state"] == "running" and (chain.root / begun["folder"] / "step-2-c1").exists()
    disturb(chain, mine)
    again = only_code(chain.run(stages, "base"), 0)
    assert again["final_checkpoint"]["state_digest"] == undisturbed["final_checkpoint"]["state_digest"]
    done = chain.record("base")
    assert (done["state"], done["texts"], done["data"]) == ("done", begun["texts"], begun["data"])
    assert [line["data"] for line in events(chain) if line["event"] == "texts-kept"] == [begun["data"]]
    assert any(line["event"] == "resumed" and line["step"] == 2 for line in events(chain))
    last = only_code(chain.run(stages, "base"), 0)
    if disturb is disturb_files:
        assert chain.record("base")["folder"] != done["folder"] and (chain.root / done["folder"] / "export").exists()
        assert last["final_checkpoint"]["state_digest"] != undisturbed["final_checkpoint"]["state_digest"]
    else:
        assert last["message"] == "stage base is done already"


def events(chain: Chain) -> list[dict[str, Any]]:
    """What rank 0 of the newest attempt said."""
    lines = (chain.logs / "log0.txt").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"event"')]


def test_a_training_whose_data_was_not_ready_begins_anew(mine: Path, chain: Chain, tmp_path: Path) -> None:
    """Killed before its text was read: there is nothing to go on with."""
    stages: Stages = {"base": ("train", config_of(mine))}
    was_killed(chain.run(stages, "base", "kill_at_write", on_rank=0, prefix="data/", nth=0, operation="delete"), 0)
    disturb_files(chain, mine)
    only_code(chain.run(stages, "base"), 0)
    fresh = Chain(tmp_path / "fresh", tmp_path / "scratch")
    assert prepared(fresh, mine)["data"] == chain.record("base")["data"]
    assert manifest(chain, "base") == manifest(fresh)


@pytest.mark.parametrize("is_done", [False, True])
def test_a_killed_preparation_is_of_one_state(mine: Path, chain: Chain, tmp_path: Path, is_done: bool) -> None:
    """What was read of files that then changed is read again; all that was prepared already is kept as it is."""
    stages: Stages = {"it": ("prepare", config_of(mine))}
    if is_done:
        last = {"prefix": "stages/it/records/1.json", "operation": "rename", "nth": 1}
        was_killed(chain.run(stages, "it", "kill_at_write", on_rank=0, **last), 0)
    else:
        was_killed(chain.run(stages, "it", "kill_after_unit", nth=8), 0)
    begun = chain.record("it")
    fresh = Chain(tmp_path / "fresh", tmp_path / "scratch")
    if is_done:
        prepared(fresh, mine)
    disturb_files(chain, mine)
    if not is_done:
        prepared(fresh, mine)
    only_code(chain.run(stages, "it"), 0)
    assert (chain.record("it")["data"] == begun["data"]) == is_done
    assert chain.record("it")["data"] == fresh.record("it")["data"] and manifest(chain) == manifest(fresh)
    assert not list(chain.root.glob("data/*.work"))


def rewritten(path: Path, mine: Path) -> None:
    """The very file that is read."""
    change(path)


def rewritten_ahead(path: Path, mine: Path) -> None:
    """A file that is still to be read: half of the data would be new."""
    change(mine / "domain" / "chapter015.txt")


def removed_ahead(path: Path, mine: Path) -> None:
    """A file that is still to be read."""
    (mine / "domain" / "chapter015.txt").unlink()


def removed_behind(path: Path, mine: Path) -> None:
    """A file that was read."""
    (mine / "domain" / "chapter001.txt").unlink()


def torn(path: Path, mine: Path) -> None:
    """Half of a file, as long as it is copied."""
    whole = mine / "general" / "topics.jsonl"
    (mine / "whole").write_bytes(whole.read_bytes())
    whole.write_bytes(whole.read_bytes()[:-100])


@pytest.mark.parametrize("happens", [rewritten, rewritten_ahead, removed_ahead, removed_behind, torn])
def test_text_that_changes_while_it_is_read(
    mine: Path, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Path, Path], None]
) -> None:
    """The data is that of one state: before, if all of it was still read as it was; else after."""
    fresh, inner, has_happened = Chain(tmp_path / "fresh", tmp_path / "scratch"), jobs.read_records, False
    before = prepared(fresh, mine)["data"]

    def reading(path: Path, *rest: Any) -> Iterator[Record]:
        nonlocal has_happened
        try:
            yield from inner(path, *rest)
        except DataError:
            path.write_bytes((mine / "whole").read_bytes())
            raise
        if path.name == "chapter010.txt" and not has_happened:
            has_happened = True
            happens(path, mine)

    monkeypatch.setattr(jobs, "read_records", reading)
    data = prepared(chain, mine)["data"]
    assert has_happened and not list(chain.root.glob("data/*.work"))
    after = prepared(fresh, mine)["data"]
    is_of_before = data == before
    assert is_of_before == (happens is removed_behind or happens is torn) and data in (before, after)
    if not is_of_before or happens is torn:
        assert manifest(chain) == manifest(fresh)
    assert prepared(chain, mine)["data"] == after


def test_text_that_changes_all_the_time_is_refused(mine: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, code 21."""
    inner, log_file = jobs.read_records, mine / "domain" / "chapter000.txt"

    def reading(path: Path, *rest: Any) -> Iterator[Record]:
        yield from inner(path, *rest)
        log_file.write_text(log_file.read_text() + "One more line.\n")

    monkeypatch.setattr(jobs, "read_records", reading)
    outcome = attempt(chain, "prepare", config_of(mine))
    assert outcome["exit_code"] == 21
    assert outcome["message"].startswith(f"data.sources.domain: {log_file} changed while it was read; let nothing")


def test_processes_tell_that_a_file_has_changed(mine: Path, tmp_path: Path) -> None:
    """By the same error as in one process."""
    config = DataConfig.model_validate({**config_of(mine)["data"], "processes": 2})
    corpus = Corpus.of(config, tmp_path / "work")
    change(mine / "domain" / "chapter000.txt")
    with pytest.raises(TextsChanged, match=r"chapter000\.txt changed while it was read"):
        corpus.clean()


def test_a_bucket_counts_by_its_etags(mine: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another object is another text, the same one put again is not; one that changes under us is fetched anew."""
    with s3_server() as url:
        for name, value in environment(url).items():
            monkeypatch.setenv(name, value)
        store, file = client(url), mine / "general" / "topics.jsonl"
        config = config_of(mine)
        config["data"] |= {"sources": {"web": {"path": f"s3://{BUCKET}/web"}}, "mix": {}}
        content = file.read_bytes()

        def put(body: bytes) -> None:
            store.put_object(Bucket=BUCKET, Key="web/pages.jsonl", Body=body)

        def data_of() -> str:
            assert attempt(chain, "prepare", config)["exit_code"] == 0
            return str(chain.record("it")["data"])

        put(content)
        first = data_of()
        put(content)
        assert data_of() == first and starts(chain) == 1
        put(content + content.splitlines(keepends=True)[0])
        second = data_of()
        assert second != first
        inner, has_happened = s3_client.fetch_object, False

        def fetching(*args: Any) -> None:
            nonlocal has_happened
            inner(*args)
            if not has_happened:
                has_happened = True
                put(content)

        put(content + content)
        monkeypatch.setattr(s3_client, "fetch_object", fetching)
        assert data_of() == first and has_happened
