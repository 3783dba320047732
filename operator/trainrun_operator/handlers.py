"""kopf watches the runs. Its handler hands each to the cache, whose listeners enqueue a key; no rule lives here.

Only a low-level event handler is used: kopf then writes nothing, neither finalizers nor annotations. An uninstalled
operator blocks no deletion. Pods, nodes and jobs are watched by `kube/watcher.py` (ADR 10).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any

import kopf
from trainrun_api.contract import GROUP

from trainrun_operator.cluster import Key
from trainrun_operator.kube.cache import Cache

RESOURCE = (GROUP, "v1alpha1", "trainingruns")

INACTIVITY_SECONDS = 70.0
"""The API server sends a bookmark every minute; a stream that says nothing for longer is dead."""
REQUEST_SECONDS = 30.0
LIST_CHUNK = 100
EXIT_SECONDS = 20.0
"""Below the pod's grace period of 30 s."""
BEGIN_ANEW_SECONDS = (1.0, 2.0, 5.0, 10.0)
"""Waits before the watches begin anew after kopf gave up; the last one is repeated. Meanwhile passes go on."""
HUNG_SECONDS = 5.0
"""kopf ends in moments when it has given up, or never."""
ERROR_BACKOFFS = (1.0, 1.0, 2.0, 3.0, 5.0)
LINGER_SECONDS = 0.1
"""kopf's worker of a run holds the last whole event while it waits for another one: thousands of them at a list."""

log = logging.getLogger(__name__)


class WatchesHung(Exception):
    """kopf has given up and does not end: only a new process can watch again."""


class Backoffs:
    """Waits between the tries of a request, without end: kopf would give up for good after a minute's outage."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(ERROR_BACKOFFS, itertools.repeat(ERROR_BACKOFFS[-1]))


class NoDifferences(kopf.DiffBaseStorage):
    """kopf copies every run twice to tell handlers what has changed; ours do not ask."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Nothing of the object is of interest."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is stored."""


class _Failures(logging.Handler):
    """Sets an event when one of kopf's eternal tasks has failed; its log is the only place where it says so at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.ERROR)
        self._loop = loop
        self.seen = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Called for every error line of the reactor."""
        if record.exc_info and " has failed: " in record.getMessage():
            self._loop.call_soon_threadsafe(self.seen.set)


async def watch(run_kopf: Callable[[], Coroutine[Any, Any, None]], on_cut: Callable[[], None]) -> None:
    """Keep the watches going until kopf is asked to stop.

    kopf gives up for good on any answer that it does not expect (a 410 or 400 to a watch): a new process would be the
    remedy, but nothing of ours is wrong. `on_cut` is called before it begins anew. Raises WatchesHung.
    """
    waits = itertools.chain(BEGIN_ANEW_SECONDS, itertools.repeat(BEGIN_ANEW_SECONDS[-1]))
    while True:
        error = await _life(run_kopf)
        if error is None:
            return
        wait = next(waits)
        log.warning("the watches have failed and begin anew in %.0f s: %s", wait, str(error)[:500])
        await asyncio.sleep(wait)
        on_cut()


async def _life(run_kopf: Callable[[], Coroutine[Any, Any, None]]) -> BaseException | None:
    """Run kopf until it ends; the error that ended it, or None after a stop that was wanted."""
    failures = _Failures(asyncio.get_running_loop())
    reactor = logging.getLogger("kopf._core.reactor")
    reactor.addHandler(failures)
    seen = asyncio.ensure_future(failures.seen.wait())
    life = asyncio.ensure_future(run_kopf())
    try:
        await asyncio.wait({life, seen}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({life}, timeout=HUNG_SECONDS if seen.done() else None)
        if not life.done():
            raise WatchesHung("kopf has given up its watches and does not end; a new process is needed")
        return life.exception()
    finally:
        reactor.removeHandler(failures)
        seen.cancel()


def registry(
    cache: Cache, on_relisted: Callable[[], None], login: Callable[..., Any] = kopf.login_via_client
) -> kopf.OperatorRegistry:
    """The watch. `on_relisted` is called when it had been cut and begins anew with a list."""
    handlers = kopf.OperatorRegistry()
    kopf.on.login(registry=handlers)(login)
    kopf.on.event(*RESOURCE, registry=handlers, id="watch-trainingruns")(_feed(cache, on_relisted))
    return handlers


def settings(*, is_namespaced: bool) -> kopf.OperatorSettings:
    """All settings that matter, said explicitly."""
    chosen = kopf.OperatorSettings()
    chosen.persistence.finalizer = f"{GROUP}/never-set"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    chosen.persistence.diffbase_storage = NoDifferences()
    chosen.queueing.idle_timeout = LINGER_SECONDS
    chosen.posting.enabled = False  # Events are ours, counted
    chosen.scanning.disabled = is_namespaced  # no right to list namespaces and definitions
    chosen.watching.inactivity_timeout = INACTIVITY_SECONDS
    chosen.watching.connect_timeout = REQUEST_SECONDS
    chosen.watching.chunk_size = LIST_CHUNK
    chosen.networking.request_timeout = REQUEST_SECONDS
    chosen.networking.error_backoffs = Backoffs()
    chosen.process.ultimate_exiting_timeout = EXIT_SECONDS
    return chosen


def _feed(cache: Cache, on_relisted: Callable[[], None]) -> Callable[..., Awaitable[None]]:
    async def feed(event: Mapping[str, Any], **_: Any) -> None:
        obj = event["object"]
        if event["type"] == "DELETED":
            cache.drop("TrainingRun", obj)
            return
        metadata = obj["metadata"]
        is_list = event["type"] is None
        was_known = is_list and cache.has("TrainingRun", Key(metadata["namespace"], metadata["name"]))
        cache.put("TrainingRun", obj)
        if was_known:
            on_relisted()

    return feed
