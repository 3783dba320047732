"""Checkpoints, claims, data and metrics below a prefix of an S3 bucket.

An object store has what the commit protocol needs: a PUT is whole and durable when it is answered, a PUT with
`If-None-Match: *` is exclusive, and a list shows every answered PUT. It has no append and no memory map: what needs a
file lies in a folder of this pod (`TMPDIR`) and goes to the store when it is settled, or comes from there once for all
workers of the pod. boto3 repeats what fails or hangs, and moves large objects as parallel parts in both directions.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

import xxhash
from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from trainrun_trainer import s3_client
from trainrun_trainer.s3_client import ATTEMPTS
from trainrun_trainer.storage import Before, hash_stream, unobserved

T = TypeVar("T")

FETCHED = ".fetched"
LOCK = ".lock"


class S3Prefix:
    """A store below `s3://bucket/prefix`; credentials, region and endpoint are those of boto3's environment."""

    def __init__(self, bucket: str, prefix: str, before: Before = unobserved, scratch: Path | None = None) -> None:
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self.before = before
        name = xxhash.xxh3_64_hexdigest(f"{bucket}/{self.prefix}".encode())
        # the environment's own word: tempfile remembers what it saw in the server that this worker was forked from
        self.root = scratch or Path(os.environ.get("TMPDIR") or tempfile.gettempdir()) / "trainrun-store" / name
        self._client = s3_client.make_client()
        self._transfer = s3_client.transfer_config()

    # -- objects ---------------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> None:
        """One PUT: whole and durable when it is answered."""
        self.before("write", name)
        with self._errors(name):
            self._client.put_object(Bucket=self.bucket, Key=self._key(name), Body=data)

    def put_exclusive(self, name: str, data: bytes) -> bool:
        """A PUT that the store refuses if the name is taken. An own one whose answer was lost counts as done."""
        self.before("link", name)
        try:
            with self._errors(name):
                self._client.put_object(Bucket=self.bucket, Key=self._key(name), Body=data, IfNoneMatch="*")
        except FileExistsError:
            return self.get(name) == data
        return True

    def append(self, name: str, data: bytes) -> None:
        """To a file of this pod; `settle` sends the whole of it."""
        self.before("append", name)
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as stream:
            stream.write(data)

    def get(self, name: str) -> bytes:
        """The whole object."""
        return self._taken(name, lambda body: bytes(body.read()))

    def hash(self, name: str) -> dict[str, Any]:
        """Size and xxh3 of the object, read from the store."""
        return self._taken(name, hash_stream)

    def list(self, folder: str) -> list[str]:
        """Names directly below a folder."""
        prefix = self._key(folder) + "/" if folder else self._key("")
        names: set[str] = set()
        with self._errors(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                names |= {one["Key"][len(prefix) :] for one in page.get("Contents") or ()}
                names |= {one["Prefix"][len(prefix) :].rstrip("/") for one in page.get("CommonPrefixes") or ()}
        return sorted(name for name in names if name)

    def delete(self, name: str) -> None:
        """An object, or all below a folder; what this pod has of it, too."""
        self.before("delete", name)
        self._drop(name)
        with self._errors(name):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(name))
            for key in self._below(name):
                self._client.delete_object(Bucket=self.bucket, Key=key)

    # -- folders ---------------------------------------------------------------------------------

    def address(self, name: str) -> str:
        """What people are told."""
        return f"s3://{self.bucket}/{self._key(name)}"

    def folder(self, name: str) -> Path:
        """Where this pod may write before it settles."""
        return self.root / name

    def read_folder(self, name: str) -> Path:
        """All objects of a folder, brought here once for the workers of this pod; of its siblings none stays."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not _marker(target).exists():
                self._drop_fetched_siblings(target)
                shutil.rmtree(target, ignore_errors=True)
                with self._errors(name):
                    for key in self._below(name):
                        place = target / key[len(self._key(name)) + 1 :]
                        place.parent.mkdir(parents=True, exist_ok=True)
                        self._client.download_file(self.bucket, key, str(place), Config=self._transfer)
                _marker(target).touch()
        return target

    def settle(self, folder: str) -> None:
        """Send a file, or every file below a folder; afterwards the folder counts as brought here."""
        self.before("fsync", folder)
        target = self.root / folder
        if target.is_file():
            self._send(folder)
            return
        for path in sorted(p for p in target.rglob("*") if p.is_file()):
            self._send(str(path.relative_to(self.root)))
        with _locked(target):
            _marker(target).touch()

    def make_folder(self, name: str) -> Path:
        """In this pod."""
        target = self.root / name
        target.mkdir(parents=True, exist_ok=True)
        _marker(target).unlink(missing_ok=True)  # whoever writes here has no longer what was brought
        return target

    def take(self, name: str) -> None:
        """Send it; a pod keeps no tensor file that the store has."""
        self._send(name)
        (self.root / name).unlink()

    # -- parts -----------------------------------------------------------------------------------

    def _taken(self, name: str, take: Callable[[Any], T]) -> T:
        """What `take` makes of the object's body. boto3 repeats requests, but not a body that breaks off."""
        with self._errors(name):
            for _ in range(ATTEMPTS - 1):
                try:
                    return take(self._client.get_object(Bucket=self.bucket, Key=self._key(name))["Body"])
                except (ResponseStreamingError, IncompleteReadError, ReadTimeoutError):
                    continue
            return take(self._client.get_object(Bucket=self.bucket, Key=self._key(name))["Body"])

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _below(self, name: str) -> Sequence[str]:
        return [str(one["Key"]) for one in s3_client.list_objects(self._client, self.bucket, f"{self._key(name)}/")]

    def _send(self, name: str) -> None:
        self.before("send", name)
        with self._errors(name):
            self._client.upload_file(str(self.root / name), self.bucket, self._key(name), Config=self._transfer)

    def _drop(self, name: str) -> None:
        target = self.root / name
        _marker(target).unlink(missing_ok=True)
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def _drop_fetched_siblings(self, target: Path) -> None:
        for marker in target.parent.glob(f"*{FETCHED}"):
            self._drop(str(marker.with_name(marker.name.removesuffix(FETCHED)).relative_to(self.root)))

    def _errors(self, name: str) -> AbstractContextManager[None]:
        return s3_client.store_errors(self.address(name))


def open_s3(path: str) -> S3Prefix:
    """The store behind `s3://bucket/prefix`."""
    parsed = urlparse(path)
    return S3Prefix(parsed.netloc, parsed.path)


def _marker(target: Path) -> Path:
    return target.with_name(f"{target.name}{FETCHED}")


@contextmanager
def _locked(target: Path) -> Generator[None, None, None]:
    """One worker of the pod at a time."""
    with target.with_name(f"{target.name}{LOCK}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
