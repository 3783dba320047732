"""A real S3-protocol server on loopback (moto's), a run that keeps its checkpoints in it, and a bad network."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from tests.trainer.ranks import Ended, Launch
from tests.trainer.runs import Site

BUCKET = "checkpoints"
SLOW_PARTS, SLOW_PAUSE_SECONDS = 8, 0.15


def environment(url: str) -> dict[str, str]:
    """Where boto3 finds its server and who it is."""
    return {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[str]:
    """Its URL; the bucket is there."""
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client(url).create_bucket(Bucket=BUCKET)
        yield url
    finally:
        server.stop()


def client(url: str) -> Any:
    """A client of the test's own."""
    return boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )


@dataclass
class BucketSite(Site):
    """As Site, with checkpoint.path in a bucket; `store` is a copy of it, taken after each start."""

    url: str = ""

    @property
    def prefix(self) -> str:
        """Of the run in the bucket; each test has a folder of its own."""
        return self.root.name

    def request(self, world_size: int, hook: str | None = None, **hook_args: Any) -> Launch:
        """With the store's address."""
        launch = super().request(world_size, hook, **hook_args)
        scratch = self.root / f"pod{self.starts}"
        scratch.mkdir()
        launch.env |= {
            "TRAINRUN_CHECKPOINT_PATH": f"s3://{BUCKET}/{self.prefix}", "TMPDIR": str(scratch), **environment(self.url),
        }  # fmt: skip
        return launch

    def run(self, world_size: int, hook: str | None = None, **hook_args: Any) -> list[Ended]:
        """Start a worker group in a new pod, wait for its end, look at the bucket."""
        ended = super().run(world_size, hook, **hook_args)
        self.look()
        return ended

    def look(self) -> None:
        """Take the copy."""
        copy_prefix(self.url, self.prefix, self.store)


def copy_prefix(url: str, prefix: str, folder: Path, parts: Sequence[str] = ("",)) -> None:
    """Objects below the prefix whose keys hold one of `parts`, as files below the folder."""
    s3 = client(url)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    for key in (str(one["Key"]) for page in pages for one in page.get("Contents") or ()):
        name = key.removeprefix(f"{prefix}/")
        if any(part in name for part in parts):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, key, str(folder / name))


class FaultyNetwork:
    """A reverse proxy; the first request for each object by each method meets the fault, then all is well.

    But slow: every body comes in parts, with a pause before each, and comes whole.
    """

    def __init__(self, url: str, fault: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        seen: Counter[tuple[str, str]] = Counter()
        network = self
        self.fault = fault
        self.faults = self.slow_bodies = 0
        self.asked: Counter[tuple[str, str, str]] = Counter()
        """Method, path and range of every request."""
        self._released = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else b""
                key = (self.command, self.path)
                seen[key] += 1
                network.asked[*key, self.headers.get("Range", "")] += 1
                is_first = seen[key] == 1
                network.faults += is_first
                if is_first and fault == "503":
                    self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                    return
                if is_first and fault == "silent":
                    network._released.wait(20)
                    self.close_connection = True
                    return
                there = http.client.HTTPConnection(host, int(port))
                there.request(self.command, self.path, body, dict(self.headers))
                answer = there.getresponse()
                data = answer.read()
                there.close()
                self._answer(answer.status, dict(answer.getheaders()), data, is_torn=is_first and fault == "torn")

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815 - the base class looks for them

            def _answer(self, code: int, headers: dict[str, str], data: bytes, *, is_torn: bool = False) -> None:
                self.send_response(code)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    network.send(data[: len(data) // 2] if is_torn else data, self.wfile)
                if is_torn:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def send(self, data: bytes, to: BufferedIOBase) -> None:
        """A body, at once or slowly."""
        if self.fault != "slow" or not data:
            to.write(data)
            return
        self.slow_bodies += 1
        size = -(-len(data) // SLOW_PARTS)
        for start in range(0, len(data), size):
            self._released.wait(SLOW_PAUSE_SECONDS)
            to.write(data[start : start + size])

    def __enter__(self) -> FaultyNetwork:
        threading.Thread(target=self._server.serve_forever, name="network", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


def write_file(folder: Path, name: str, size: int) -> bytes:
    """A file of this many bytes, none of which repeats soon."""
    data = b"".join(number.to_bytes(4, "little") for number in range(size // 4))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return data
