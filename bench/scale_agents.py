"""The agents of all pods of the scale benchmark: one process, one port, nothing but what an answer needs.

It renews the nodes' heartbeats, too, evenly spread: kwok would go on with those of nodes that are gone, all at a time.

It runs in the benchmark's own network namespace, where every address of 127.0.0.0/8 is ours: one socket answers for all
pods, and the address that was asked tells which one. A node whose kubelet label says "gone" answers no longer, and the
attempts on it stand still. All that is kept of a pod is its place; the API server is watched as anybody else would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainrun_api.contract import AGENT_PORT, SCHEMA, Label

from tests.controlplane.api import CORE, Api, ApiError
from tests.controlplane.nodes import KUBELET, now
from tests.controlplane.pods import checkpoint, group_key, index

SECONDS_PER_STEP = 2.0
SAVE_EVERY_STEPS = 50
RETRY_SECONDS = 0.5
SILENT_SECONDS = 3.0
"""A node that has vanished does not even refuse; whoever asks has given up long before."""
HEARD_SECONDS = 0.5
HEARTBEAT_SECONDS = 300.0
"""A kubelet at rest writes its Node this often; its Lease, which nobody watches here, tells the rest."""
PODS = f"{CORE}/pods?labelSelector={Label.RUN}"
GONE_NODES = f"{CORE}/nodes?labelSelector={KUBELET}=gone"
LIVING_NODES = f"{CORE}/nodes?labelSelector={KUBELET}=kwok"


@dataclass
class Group:
    """The pods of one attempt."""

    run: str
    attempt: int
    started: float = field(default_factory=time.monotonic)
    nodes: dict[str, str] = field(default_factory=dict)
    """Node by pod index."""
    frozen_at: float | None = None
    """Seconds after the start at which it hung, because a member was lost."""


class Agents:
    """What the watches have shown; answers come from here."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, int], Group] = {}
        self._places: dict[str, tuple[Group, str]] = {}
        """Group and pod index by address."""
        self._gone: dict[str, float] = {}
        """Vanished nodes, and when."""
        self._lock = threading.Lock()

    def see_pod(self, kind: str, pod: Any) -> None:
        """A pod runs, or is there no longer."""
        address = pod["status"].get("podIP")
        if not address:
            return
        with self._lock:
            if kind == "DELETED":
                self._places.pop(address, None)
                return
            labels = pod["metadata"]["labels"]
            key = group_key(pod)
            group = self._groups.setdefault(key, Group(labels[Label.RUN], int(labels[Label.ATTEMPT])))
            group.nodes[index(pod)] = pod["spec"]["nodeName"]
            self._places[address] = (group, index(pod))

    def see_gone(self, kind: str, node: Any) -> None:
        """A node has vanished: whatever trained on it hangs."""
        name = node["metadata"]["name"]
        with self._lock:
            self._gone.setdefault(name, time.monotonic())
            for group in self._groups.values():
                if group.frozen_at is None and name in group.nodes.values():
                    group.frozen_at = time.monotonic() - group.started

    def is_gone(self, node: str) -> bool:
        """Whether the node has vanished."""
        with self._lock:
            return node in self._gone

    def record(self, address: str) -> dict[str, Any] | None:
        """What the agent there says; None: nobody lives there."""
        with self._lock:
            group, mine = self._places.get(address, (None, ""))
            if group is None or group.nodes[mine] in self._gone:
                return None
            since = time.monotonic() - group.started
            step, age = divmod(group.frozen_at if group.frozen_at is not None else since, SECONDS_PER_STEP)
            age += since - group.frozen_at if group.frozen_at is not None else 0.0
            heard = {i: self._age(node) for i, node in group.nodes.items() if i != mine}
        saved = checkpoint(int(step) - int(step) % SAVE_EVERY_STEPS)
        return {
            "schema": SCHEMA, "run": group.run, "attempt": group.attempt, "stage": "train", "phase": "training",
            "step": int(step), "total_steps": 1_000_000, "loss": round(4.0 - step / 1e6, 4), "tokens": int(step) * 1024,
            "tokens_per_second": 512.0, "step_age_seconds": age if step else None,
            "slowest_step_seconds": SECONDS_PER_STEP, "durable_checkpoint": {**saved, "age_seconds": 1.0},
            "heard": heard,
        }  # fmt: skip

    def _age(self, node: str) -> float:
        """Seconds since a worker there was heard by its peers, under the lock."""
        return time.monotonic() - self._gone[node] if node in self._gone else HEARD_SECONDS

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer; none where nobody lives."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            record = self.record(writer.get_extra_info("sockname")[0])
            if record is None:
                await asyncio.sleep(SILENT_SECONDS)
            else:
                body = json.dumps(record).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        writer.close()


def watch(api: Api, path: str, see: Any) -> None:
    """List, then follow for ever."""
    never = threading.Event()
    while True:
        with suppress(ApiError):  # the API server has forgotten the version, or is away
            version = ""
            for page in api.pages(path):
                version = page["metadata"]["resourceVersion"]
                for obj in page["items"]:
                    see("ADDED", obj)
            for kind, obj in api.watch(path, version, never):
                see(kind, obj)
        time.sleep(RETRY_SECONDS)


def beat(api: Api, agents: Agents) -> None:
    """Renew all nodes' heartbeats in turn, for ever."""
    while True:
        began = time.monotonic()
        with suppress(ApiError):  # busy: the next round comes
            nodes = [node for page in api.pages(LIVING_NODES) for node in page["items"]]
            for number, node in enumerate(nodes):
                name = node["metadata"]["name"]
                time.sleep(max(0.0, began + HEARTBEAT_SECONDS * number / len(nodes) - time.monotonic()))
                ready = next((c for c in node["status"].get("conditions", ()) if c["type"] == "Ready"), None)
                if ready is not None and not agents.is_gone(name):
                    status = {"conditions": [{**ready, "lastHeartbeatTime": now()}]}
                    api.merge(f"{CORE}/nodes/{name}/status", {"status": status})
        time.sleep(max(RETRY_SECONDS, began + HEARTBEAT_SECONDS - time.monotonic()))


async def serve(agents: Agents) -> None:
    """Until the process is ended."""
    server = await asyncio.start_server(agents.answer, "0.0.0.0", AGENT_PORT, backlog=1024)
    await server.serve_forever()


def main() -> None:
    """Watch and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubeconfig", type=Path)
    kubeconfig, agents = parser.parse_args().kubeconfig, Agents()
    for path, see in ((PODS, agents.see_pod), (GONE_NODES, agents.see_gone)):
        threading.Thread(target=watch, args=(Api(kubeconfig), path, see), daemon=True).start()
    threading.Thread(target=beat, args=(Api(kubeconfig), agents), daemon=True).start()
    asyncio.run(serve(agents))


if __name__ == "__main__":
    main()
