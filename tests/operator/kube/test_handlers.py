"""kopf's part: the watch of runs that feeds the cache, and settings by which kopf writes nothing."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

import kopf
import pytest
from trainrun_operator import handlers
from trainrun_operator.kube.cache import Cache
from trainrun_operator.testing import FakeClock

RUN = {"metadata": {"namespace": "ns", "name": "n", "uid": "u", "resourceVersion": "1"}}


def feed(cache: Cache, relisted: list[int], *events: tuple[str | None, dict[str, Any]]) -> None:
    handler = handlers._feed(cache, lambda: relisted.append(1))
    for kind, obj in events:
        asyncio.run(handler({"type": kind, "object": obj}))


def newer(version: int) -> dict[str, Any]:
    return {"metadata": {**RUN["metadata"], "resourceVersion": str(version)}}


@pytest.mark.parametrize(
    ("events", "present", "relists"),
    [
        pytest.param([(None, RUN)], 1, 0, id="first-list"),
        pytest.param([("ADDED", RUN)], 1, 0, id="added"),
        pytest.param([("ADDED", RUN), ("MODIFIED", newer(2))], 1, 0, id="modified"),
        pytest.param([("ADDED", RUN), ("DELETED", newer(2))], 0, 0, id="deleted"),
        pytest.param([("ADDED", RUN), (None, RUN)], 1, 1, id="the-watch-began-anew"),
    ],
)
def test_watch_events_reach_the_cache(events: list[tuple[str | None, Any]], present: int, relists: int) -> None:
    """A list of what is known already means that a watch was cut: a refresh is due."""
    cache, relisted = Cache(FakeClock().monotonic), []
    feed(cache, relisted, *events)
    assert (len(cache.all("TrainingRun")), len(relisted)) == (present, relists)


def test_kopf_needs_no_finalizer() -> None:
    """Only low-level handlers: kopf would otherwise mark every object, and block its deletion."""
    registry = handlers.registry(Cache(FakeClock().monotonic), lambda: None)
    assert registry._changing.get_all_handlers() == []
    assert registry._spawning.get_all_handlers() == []
    assert len(registry._watching.get_all_handlers()) == 1


def test_kopf_copies_no_object_to_find_differences() -> None:
    """Nobody asks for them, and 1,000 runs would be copied twice at each start."""
    storage = handlers.settings(is_namespaced=False).persistence.diffbase_storage
    body = kopf.Body({"metadata": {"labels": {"a": "b"}}, "spec": {"c": "d"}})
    assert storage.build(body=body) == {}
    assert storage.fetch(body=body) is None
    patch = kopf.Patch()
    storage.store(body=body, patch=patch, essence=kopf.BodyEssence())
    assert not patch


@pytest.mark.parametrize("is_namespaced", [False, True])
def test_settings_are_explicit(is_namespaced: bool) -> None:
    """Every run is watched; a namespaced operator scans nothing."""
    settings = handlers.settings(is_namespaced=is_namespaced)
    assert settings.scanning.disabled is is_namespaced
    assert not settings.posting.enabled
    assert settings.queueing.idle_timeout == handlers.LINGER_SECONDS
    assert not settings.watching.label_selectors


def test_watches_that_failed_begin_anew() -> None:
    """kopf gives up on answers that it does not expect; what was missed meanwhile is listed, and a stop is a stop."""
    outcomes: list[Exception | None] = [RuntimeError("410: Expired"), RuntimeError("gave up"), None]
    cuts: list[int] = []

    async def run_kopf() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def told() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handlers, "BEGIN_ANEW_SECONDS", (0.001,))
            await handlers.watch(run_kopf, lambda: cuts.append(1))

    asyncio.run(told())
    assert (outcomes, len(cuts)) == ([], 2)


def test_watches_that_hang_need_a_new_process() -> None:
    """kopf says in its log that a task has failed, and never ends."""

    async def run_kopf() -> None:
        try:
            raise RuntimeError("410: Expired")
        except RuntimeError as error:
            logging.getLogger("kopf._core.reactor.running").exception(f"Watcher for pods has failed: {error}")
        await asyncio.Event().wait()

    async def told() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handlers, "HUNG_SECONDS", 0.01)
            with pytest.raises(handlers.WatchesHung, match="new process"):
                await handlers.watch(run_kopf, lambda: None)

    asyncio.run(told())


def test_requests_of_watches_are_repeated_without_end() -> None:
    """An outage is no reason to give up; the same waits for each request."""
    backoffs = handlers.settings(is_namespaced=True).networking.error_backoffs
    for _ in range(2):
        assert list(itertools.islice(iter(backoffs), 7)) == [1.0, 1.0, 2.0, 3.0, 5.0, 5.0, 5.0]
