"""A proxy between an operator and the API server: it counts calls, and makes the network and the server hostile.

It speaks plain HTTP on loopback and passes credentials on, so that whoever talks through it keeps exactly his own
rights. What happens to a call is said by `on_call`, which every test gives anew.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import aiohttp
from aiohttp import web

from tests.controlplane.control_plane import ControlPlane

DROPPED_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "accept-encoding"}
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


@dataclass
class Call:
    """One request, as it passes."""

    method: str
    path: str
    is_watch: bool
    code: int | None = None
    """Of the API server's answer."""

    @property
    def is_write(self) -> bool:
        """It may change something."""
        return self.method in WRITES

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Fault:
    """What happens instead of the answer."""

    when: Literal["before", "after"] = "before"
    """Before the API server has seen the call, or when it has carried it out."""
    code: int | None = None
    """Answer with this code and a Status object; None: the connection breaks without an answer."""
    then: Callable[[], None] = field(default=lambda: None)
    """Called at that moment, before the caller hears anything."""


OnCall = Callable[[Call], Fault | None]


class Proxy:
    """A context manager around one thread; `url` is where to connect."""

    def __init__(self, plane: ControlPlane) -> None:
        self._target = f"https://127.0.0.1:{plane.port}"
        self._tls = ssl.create_default_context(cafile=str(plane.authority))
        self.on_call: OnCall = lambda call: None
        self.calls: list[Call] = []
        self._watches: dict[int, web.Request] = {}
        self._is_ready = threading.Event()
        self._runner = asyncio.Runner()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self.url = ""

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._is_ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.get_loop().call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def watched(self) -> set[str]:
        """Paths of the watches that are open now."""
        return {request.path for request in list(self._watches.values())}

    def cut_watches(self) -> int:
        """Break every watch that is open now, without a word; how many there were."""
        return asyncio.run_coroutine_threadsafe(self._cut(), self._runner.get_loop()).result()

    def writes(self) -> list[Call]:
        """Calls so far that changed something, Events apart."""
        return [c for c in self.calls if c.is_write and "/events" not in c.path and c.code is not None and c.code < 300]

    def _run(self) -> None:
        with self._runner:  # ends also those who still wait for an answer when the server is gone
            self._runner.run(self._serve())

    async def _serve(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, connect=5)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._session:
            app = web.Application(client_max_size=16 * 2**20)
            app.router.add_route("*", "/{path:.*}", self._pass)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._is_ready.set()
            await self._stop.wait()
            await self._cut()
            await runner.cleanup()

    async def _cut(self) -> int:
        open_now = [*self._watches.values()]
        for request in open_now:
            if request.transport is not None:
                request.transport.abort()
        return len(open_now)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, request.path, request.query.get("watch", "") in ("1", "true"))
        self.calls.append(call)
        fault = self.on_call(call)
        if fault is not None and fault.when == "before":
            return _fail(request, fault)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in DROPPED_HEADERS}
        body = await request.read()
        try:
            async with self._session.request(
                request.method, f"{self._target}{request.path_qs}", headers=headers, data=body or None
            ) as answer:
                call.code = answer.status
                if fault is not None:
                    await answer.read()
                    return _fail(request, fault)
                return await self._stream(request, answer, call)
        except aiohttp.ClientError:
            return _fail(request, Fault())

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse, call: Call) -> web.StreamResponse:
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in DROPPED_HEADERS}
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        if call.is_watch:
            self._watches[id(request)] = request
        try:
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        except (ConnectionError, aiohttp.ClientError):  # either side went
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._watches.pop(id(request), None)
        return response


def status(code: int, reason: str) -> dict[str, Any]:
    """As the API server says that something went wrong."""
    return {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": f"said by the test: {reason}",
    }  # fmt: skip


REASONS = {
    409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable",
    504: "Timeout",
}  # fmt: skip


def _fail(request: web.Request, fault: Fault) -> web.StreamResponse:
    fault.then()
    if fault.code is not None:
        body = json.dumps(status(fault.code, REASONS[fault.code]))
        return web.Response(status=fault.code, text=body, content_type="application/json")
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
