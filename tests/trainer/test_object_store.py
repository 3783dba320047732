"""Checkpoints in a bucket: the same promises as in a directory, on a real S3-protocol server and a bad network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from trainrun_trainer import s3_client
from trainrun_trainer.claims import Owner, Parent, read_claims, refuse_if_fenced, try_claim
from trainrun_trainer.errors import Fenced
from trainrun_trainer.object_store import S3Prefix, open_s3
from trainrun_trainer.storage import hash_stream

from tests.trainer.buckets import BUCKET, BucketSite, FaultyNetwork, environment, s3_server, write_file
from tests.trainer.ranks import finish
from tests.trainer.runs import Site, only_code, wait_for, was_killed

Reference = Callable[[int], Site]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for the module."""
    with s3_server() as url:
        yield url


@pytest.fixture
def store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Prefix:
    """An empty prefix, and a pod's folder."""
    for name, value in environment(url).items():
        monkeypatch.setenv(name, value)
    return S3Prefix(BUCKET, f"{tmp_path.name}/run", scratch=tmp_path / "pod")


@pytest.fixture
def bucket_site(url: str, text: Path, tmp_path: Path) -> BucketSite:
    """A run that saves into the bucket."""
    return BucketSite(text, tmp_path, url=url)


def test_only_one_of_many_takes_a_claim(store: S3Prefix) -> None:
    """Sixteen at once see the same claims; the number goes to one."""
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda i: try_claim(store, [], Owner("uid", 1, i), None), range(16)))
    assert len([claim for claim in taken if claim is not None]) == 1
    assert [claim["k"] for claim in read_claims(store)] == [1]


def test_the_next_claim_fences_the_last(store: S3Prefix) -> None:
    """A writer under the old number is refused from then on."""
    first = try_claim(store, [], Owner("uid", 1, 0), None)
    assert first is not None
    refuse_if_fenced(store, first)
    assert try_claim(store, read_claims(store), Owner("uid", 1, 1), Parent(20, 1)) is not None
    with pytest.raises(Fenced, match="claim 2 has taken"):
        refuse_if_fenced(store, first)


def test_an_exclusive_put_whose_answer_was_lost_is_our_own(store: S3Prefix) -> None:
    """It was repeated by the client and found its own object."""
    assert store.put_exclusive("claims/1.json", b"ours")
    assert store.put_exclusive("claims/1.json", b"ours")
    assert not store.put_exclusive("claims/1.json", b"theirs")


def test_names_folders_and_what_is_not_there(store: S3Prefix) -> None:
    """As a directory has them; deleting twice is fine."""
    store.put("a/x", b"1")
    store.put("a/b/y", b"22")
    store.put("z", b"")
    assert (store.list(""), store.list("a"), store.list("nothing")) == (["a", "z"], ["b", "x"], [])
    assert (store.get("a/b/y"), store.hash("a/b/y")["size"]) == (b"22", 2)
    for _ in range(2):
        store.delete("a")
    assert store.list("") == ["z"]
    with pytest.raises(FileNotFoundError):
        store.get("a/x")
    with pytest.raises(FileNotFoundError):
        store.hash("a/x")


def test_lines_are_sent_whole_when_they_are_settled(store: S3Prefix) -> None:
    """An object store cannot append."""
    store.append("metrics/c1.jsonl", b"one\n")
    assert store.list("metrics") == []
    store.append("metrics/c1.jsonl", b"two\n")
    store.settle("metrics/c1.jsonl")
    assert store.get("metrics/c1.jsonl") == b"one\ntwo\n"


def test_a_folder_comes_once_and_leaves_when_the_next_comes(store: S3Prefix) -> None:
    """So a pod holds one checkpoint at most."""
    for name in ("step-1-c1", "step-2-c1"):
        store.put(f"{name}/t", name.encode())
    first = store.read_folder("step-1-c1")
    assert (first / "t").read_bytes() == b"step-1-c1"
    store.put("step-1-c1/t", b"changed behind our back")
    assert (store.read_folder("step-1-c1") / "t").read_bytes() == b"step-1-c1"
    assert (store.read_folder("step-2-c1") / "t").read_bytes() == b"step-2-c1"
    assert not first.exists()


def test_a_store_that_refuses_says_so_without_secrets(store: S3Prefix) -> None:
    """A bucket that is not there."""
    with pytest.raises(OSError, match="the store answers NoSuchBucket") as refused:
        S3Prefix("no-such-bucket", "run").put("x", b"")
    assert "s3://no-such-bucket/run/x" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("fault", ["503", "torn", "silent"])
def test_a_bad_network_costs_time_only(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Small objects and large ones in parts, both ways; each thing that is asked fails at first."""
    monkeypatch.setattr(s3_client, "READ_SECONDS", 1)
    monkeypatch.setattr(s3_client, "PART_BYTES", 5 << 20)
    with FaultyNetwork(url, fault) as network:
        for name, value in environment(network.url).items():
            monkeypatch.setenv(name, value)
        store = S3Prefix(BUCKET, f"{tmp_path.name}/run", scratch=tmp_path / "pod")
        assert store.put_exclusive("claims/1.json", b"ours")
        data = write_file(store.root, "data/rows", 12 << 20)
        store.settle("data")
        elsewhere = S3Prefix(BUCKET, f"{tmp_path.name}/run", scratch=tmp_path / "other-pod")
        assert (elsewhere.read_folder("data") / "rows").read_bytes() == data
        assert elsewhere.get("claims/1.json") == b"ours"
    assert network.faults > 5


def test_a_slow_network_is_waited_for(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that trickles is no torn one: the same bytes, and none of them is asked for twice."""
    monkeypatch.setattr(s3_client, "PART_BYTES", 5 << 20)
    with FaultyNetwork(url, "slow") as network:
        for name, value in environment(network.url).items():
            monkeypatch.setenv(name, value)
        store = S3Prefix(BUCKET, f"{tmp_path.name}/run", scratch=tmp_path / "pod")
        store.put("claims/1.json", b"ours")
        data = write_file(store.root, "data/rows", 12 << 20)
        store.settle("data")
        elsewhere = S3Prefix(BUCKET, f"{tmp_path.name}/run", scratch=tmp_path / "other-pod")
        assert (elsewhere.read_folder("data") / "rows").read_bytes() == data
        assert elsewhere.get("claims/1.json") == b"ours"
        assert elsewhere.hash("data/rows") == hash_stream(BytesIO(data))
    assert network.slow_bodies >= 3 + 2, "three ranges, two whole objects"
    assert set(network.asked.values()) == {1}


def test_resume_from_a_bucket_is_bit_identical(bucket_site: BucketSite, undisturbed: Reference) -> None:
    """Killed in accumulation and in a save, each start in a pod that has nothing; equal to a run in a directory."""
    was_killed(bucket_site.run(2, "kill_in_slot", on_rank=1, nth=6 * 5), 1)
    was_killed(bucket_site.run(2, "kill_at_write", on_rank=0, prefix="step-8-", nth=1), 0)
    bucket_site.finish(2)
    assert bucket_site.losses() == undisturbed(2).losses()
    assert bucket_site.digests() == undisturbed(2).digests()
    assert {path.name for path in (bucket_site.store / "export").iterdir()} >= {"config.json", "tokenizer.json"}


@pytest.mark.parametrize(
    ("prefix", "operation"),
    [
        pytest.param("step-8-c1/manifest.json", "write", id="stopped between check and manifest"),
        pytest.param("step-0-c1/manifest.json", "delete", id="stopped in the middle of pruning"),
        pytest.param("metrics/c1.jsonl", "append", id="trains and prunes on"),
    ],
)
def test_a_zombie_writer_changes_nothing(bucket_site: BucketSite, tmp_path: Path, prefix: str, operation: str) -> None:
    """A worker group is stopped, the next one runs to the end, the first goes on: nothing of it counts."""
    site = bucket_site
    site.checkpoint["keepLast"] = 2
    marker = tmp_path / "zombie"
    zombie = site.begin(1, "pause_at_write", prefix=prefix, operation=operation, marker=str(marker))
    zombie_logs = site.logs
    wait_for(Path(f"{marker}.here"))
    site.starts += 1  # a new attempt, not a new generation
    site.finish(1)
    before = site.losses(), site.digests()
    Path(f"{marker}.go").touch()
    outcome = only_code(finish(zombie, zombie_logs), 41)
    assert outcome["cause"] == "StorageRefused" and "claim 2" in outcome["message"]
    site.look()
    assert (site.losses(), site.digests()) == before
    site.changes["total_steps"] = 14
    site.finish(1)
    assert site.claims()[-1]["parent"] == {"step": 12, "claim": 2}, "nothing of the zombie was loaded"


def test_the_address_is_what_people_are_told(store: S3Prefix) -> None:
    """Not the place in the pod."""
    assert store.address("step-1-c1") == f"s3://{BUCKET}/{store.prefix}/step-1-c1"
    assert open_s3("s3://b/p/q/").address("x") == "s3://b/p/q/x"
    assert os.path.isabs(open_s3("s3://b/p").folder("x"))
