"""The store's primitives and the claims that stand on them."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trainrun_trainer import storage
from trainrun_trainer.claims import Claim, Owner, Parent, read_claims, refuse_if_fenced, try_claim
from trainrun_trainer.errors import ConfigError, Fenced, StorageRefused
from trainrun_trainer.storage import LocalDirectory
from trainrun_trainer.stores import open_storage

OWNER = Owner("uid", 1, 0)


@pytest.fixture
def store(tmp_path: Path) -> LocalDirectory:
    """An empty store."""
    return LocalDirectory(tmp_path / "store")


def test_only_one_of_many_takes_a_claim(store: LocalDirectory) -> None:
    """Sixteen at once see the same claims; the number goes to one, whole from the first moment."""
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda i: try_claim(store, [], Owner("uid", 1, i), None), range(16)))
    assert len([claim for claim in taken if claim is not None]) == 1
    [claim] = read_claims(store)
    assert claim["k"] == 1 and claim["parent"] is None
    assert os.listdir(store.root / "claims") == ["1.json"], "no temporary file stays"


def test_the_next_claim_names_its_parent_and_fences_the_last(store: LocalDirectory) -> None:
    """A writer under the old number is refused from then on."""
    first = try_claim(store, [], OWNER, None)
    assert first is not None
    refuse_if_fenced(store, first)
    second = try_claim(store, read_claims(store), Owner("uid", 1, 1), Parent(20, 1))
    assert second == Claim(2, Owner("uid", 1, 1), Parent(20, 1))
    assert read_claims(store)[1]["parent"] == {"step": 20, "claim": 1}
    with pytest.raises(Fenced, match="claim 2 has taken"):
        refuse_if_fenced(store, first)


@pytest.mark.parametrize(
    ("uid", "attempt", "is_refused"), [("uid", 0, True), ("uid", 1, False), ("uid", 2, False), ("other", 0, False)]
)
def test_an_older_attempt_of_the_same_run_is_refused(
    store: LocalDirectory, uid: str, attempt: int, is_refused: bool
) -> None:
    """Attempts of another run do not compare."""
    try_claim(store, [], OWNER, None)
    claims = read_claims(store)
    if is_refused:
        with pytest.raises(Fenced):
            try_claim(store, claims, Owner(uid, attempt, 0), None)
    else:
        assert try_claim(store, claims, Owner(uid, attempt, 0), None) is not None


def test_an_unreadable_claim_is_refused(store: LocalDirectory) -> None:
    """Nobody can decide without it."""
    store.put("claims/1.json", b"{")
    with pytest.raises(StorageRefused, match=r"claims/1\.json is not JSON"):
        read_claims(store)


def test_put_is_seen_whole_or_not_at_all(store: LocalDirectory) -> None:
    """A writer that dies before the rename leaves the old content and a name that nobody lists."""

    def die(operation: str, name: str) -> None:
        if operation == "rename":
            raise KeyboardInterrupt

    store.put("a/x", b"old")
    with pytest.raises(KeyboardInterrupt):
        LocalDirectory(store.root, die).put("a/x", b"new")
    assert store.get("a/x") == b"old"
    assert store.list("a") == ["x"]


def test_append_writes_all_or_nothing(store: LocalDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write is taken back, so that the next line does not follow half a line."""
    store.append("m", b"one\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:2]))
    with pytest.raises(OSError, match="No space") as failure:
        store.append("m", b"two\n")
    assert failure.value.errno == errno.ENOSPC
    monkeypatch.undo()
    store.append("m", b"three\n")
    assert store.get("m") == b"one\nthree\n"


def test_delete_and_list_do_not_mind_what_is_not_there(store: LocalDirectory) -> None:
    """Clean-up may run twice."""
    store.delete("nothing")
    assert store.list("nothing") == []
    store.put("folder/x", b"")
    store.delete("folder")
    assert store.list("") == []
    with pytest.raises(FileNotFoundError):
        store.get("folder/x")


@pytest.mark.parametrize("path", ["/data/run", "file:///data/run"])
def test_local_paths_open_a_directory(path: str) -> None:
    """With and without a scheme."""
    found = open_storage(path)
    assert isinstance(found, LocalDirectory) and found.root == Path("/data/run")


@pytest.mark.parametrize(
    ("path", "words"),
    [("gs://b/p", "expected"), ("run", "expected")],
)
def test_other_paths_are_refused(path: str, words: str) -> None:
    """With the field's name."""
    with pytest.raises(ConfigError, match=f"checkpoint.path={path}: .*{words}"):
        open_storage(path)


def test_a_new_folder_is_durable_before_its_manifest(store: LocalDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after the commit must not forget the folder's own name: its parent is synced first."""
    seen: list[str] = []
    sync = storage._sync
    monkeypatch.setattr(storage, "_sync", lambda path: (seen.append(str(path)), sync(path)))
    store.before = lambda operation, name: seen.append(f"{operation} {name}")
    store.make_folder("step-7-c1")
    store.put("step-7-c1/manifest.json", b"{}")
    assert seen.index(str(store.root)) < seen.index("rename step-7-c1/manifest.json")
    assert seen[-1] == str(store.root / "step-7-c1")
