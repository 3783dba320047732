"""kopf's watches. Every handler hands the object to the cache, whose listeners enqueue a key; no rule lives here.

Only low-level event handlers are used: kopf then writes nothing, neither finalizers nor annotations. An uninstalled
operator blocks no deletion.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import kopf
from trainrun_api.contract import GROUP

from trainrun_operator.cluster import Key, Kind
from trainrun_operator.kube.cache import Cache
from trainrun_operator.kube.kube_cluster import WATCHED

RESOURCES: Mapping[Kind, tuple[str, str, str]] = {
    "TrainingRun": (GROUP, "v1alpha1", "trainingruns"),
    "PyTorchJob": ("kubeflow.org", "v1", "pytorchjobs"),
    "Pod": ("", "v1", "pods"),
    "Node": ("", "v1", "nodes"),
}

INACTIVITY_SECONDS = 70.0
"""The API server sends a bookmark every minute; a stream that says nothing for longer is dead."""
REQUEST_SECONDS = 30.0
LIST_CHUNK = 500
EXIT_SECONDS = 20.0
"""Below the pod's grace period of 30 s."""
BEGIN_ANEW_SECONDS = (1.0, 2.0, 5.0, 10.0)
"""Waits before the watches begin anew after kopf gave up; the last one is repeated. Meanwhile passes go on."""

log = logging.getLogger(__name__)


async def watch(run_kopf: Callable[[], Awaitable[None]], on_cut: Callable[[], None]) -> None:
    """Keep the watches going until kopf is asked to stop.

    kopf gives up for good on any answer that it does not expect (a 410 or 401 to a watch, an outage longer than its
    retries): a new process would be the remedy, but nothing of ours is wrong. `on_cut` is called before it begins anew.
    """
    waits = itertools.chain(BEGIN_ANEW_SECONDS, itertools.repeat(BEGIN_ANEW_SECONDS[-1]))
    while True:
        try:
            return await run_kopf()
        except Exception as error:
            wait = next(waits)
            log.warning("the watches have failed and begin anew in %.0f s: %s", wait, str(error)[:500])
        await asyncio.sleep(wait)
        on_cut()


def registry(
    cache: Cache, on_relisted: Callable[[], None], login: Callable[..., Any] = kopf.login_via_client
) -> kopf.OperatorRegistry:
    """The four watches. `on_relisted` is called when a watch that had been cut begins anew with a list."""
    handlers = kopf.OperatorRegistry()
    kopf.on.login(registry=handlers)(login)
    for kind, resource in RESOURCES.items():
        kopf.on.event(*resource, registry=handlers, id=f"watch-{resource[2]}")(_feed(kind, cache, on_relisted))
    return handlers


def settings(*, is_namespaced: bool) -> kopf.OperatorSettings:
    """All settings that matter, said explicitly."""
    chosen = kopf.OperatorSettings()
    chosen.persistence.finalizer = f"{GROUP}/never-set"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    chosen.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    chosen.posting.enabled = False  # Events are ours, counted
    chosen.scanning.disabled = is_namespaced  # no right to list namespaces and definitions
    chosen.watching.inactivity_timeout = INACTIVITY_SECONDS
    chosen.watching.connect_timeout = REQUEST_SECONDS
    chosen.watching.chunk_size = LIST_CHUNK
    chosen.networking.request_timeout = REQUEST_SECONDS
    chosen.process.ultimate_exiting_timeout = EXIT_SECONDS
    for kind, label in WATCHED.items():
        if label:
            chosen.watching.label_selectors[RESOURCES[kind]] = label
    return chosen


def _feed(kind: Kind, cache: Cache, on_relisted: Callable[[], None]) -> Callable[..., Awaitable[None]]:
    async def feed(event: Mapping[str, Any], **_: Any) -> None:
        obj = event["object"]
        if event["type"] == "DELETED":
            cache.drop(kind, obj)
            return
        metadata = obj["metadata"]
        is_list = event["type"] is None
        was_known = is_list and cache.has(kind, Key(metadata.get("namespace", ""), metadata["name"]))
        cache.put(kind, obj)
        if was_known:
            on_relisted()

    return feed
