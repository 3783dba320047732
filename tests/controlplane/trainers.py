"""What would run in the pods: agents that answer `GET /progress`, and trainers that step, save and say why they ended.

kwok makes pods run; here their containers are played. Each pod is answered for at its own loopback address. All pods of
an attempt share one count of steps, which goes on from the newest checkpoint of the run, as real ones do.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from trainrun_api.contract import AGENT_PORT, SCHEMA, Env, Label, Progress
from trainrun_operator.cluster import Object

from tests.controlplane.api import CORE, Api, ApiError
from tests.controlplane.nodes import Nodes, now
from tests.controlplane.pods import attempt, checkpoint, env, group_key, index, run_uid, said, total_steps

STEPS_PER_SECOND = 2.0
SAVE_EVERY_STEPS = 10
PODS = f"{CORE}/pods?labelSelector={Label.RUN}"
RETRY_SECONDS = 0.5
SILENT_SECONDS = 3.0
"""Whoever asks a lost node has given up long before."""
ABORT_GRACE_SECONDS = 1
"""With such a grace nobody has the time to save."""


@dataclass
class Group:
    """The members of one attempt: they step together."""

    first_step: int
    total_steps: int | None
    started: float
    frozen_step: int | None = None
    """They hang, or have stopped, after this step."""
    has_stopped: bool = False
    """On SIGTERM; a queue may have the attempt's next pods go on from what was saved."""
    is_done: bool = False
    """They have passed the last barrier: a SIGTERM finds them on their way out."""

    taken: dict[int, str] = field(default_factory=dict)
    """Uids of the pods that took a lost member's seat, by rank; every other rank is the pod's of that index."""

    def rank(self, pod: Object) -> int | None:
        """Of the pod's one worker; None: it waits warm."""
        own = next((rank for rank, uid in self.taken.items() if uid == pod["metadata"]["uid"]), None)
        number = int(index(pod))
        is_member = number < int(env(pod)[Env.REPLICAS]) and number not in self.taken
        return number if own is None and is_member else own

    def step(self) -> int:
        """Completed steps."""
        if self.frozen_step is not None:
            return self.frozen_step
        step = self.first_step + int((time.monotonic() - self.started) * STEPS_PER_SECOND)
        return step if self.total_steps is None else min(step, self.total_steps)

    def step_age_seconds(self) -> float | None:
        """Since the last step; None: this attempt has made none yet."""
        if self.step() == self.first_step:
            return None
        since_start = time.monotonic() - self.started
        return since_start - (self.step() - self.first_step) / STEPS_PER_SECOND


async def close(server: asyncio.Server) -> None:
    """Listen no more. Whoever is just being accepted comes in first: asyncio would forget his socket, open."""
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    await asyncio.sleep(0)
    server.close()


class Trainers:
    """All trainers of a control plane; a context manager around two threads."""

    def __init__(self, api: Api, nodes: Nodes) -> None:
        self._api = api
        self._nodes = nodes
        self._groups: dict[tuple[str, int], Group] = {}
        self._saved: dict[str, int] = {}
        """Newest checkpoint of each run, by its uid."""
        self._pods: dict[str, Object] = {}
        """Running pods by address."""
        self._servers: dict[str, asyncio.Server] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._threads = [
            threading.Thread(target=self._serve, name="agents"),
            threading.Thread(target=self._watch, name="trainers"),
        ]

    def __enter__(self) -> Trainers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._threads[1].join()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join()

    # -- what tests ask for ----------------------------------------------------------------------

    def hang(self, pods: list[Object]) -> None:
        """No further step, although agents answer: a collective waits for ever."""
        with self._lock:
            for pod in pods:
                group = self._group(pod)
                group.frozen_step = group.step()

    def take_seat(self, lost: Object, taker: Object) -> None:
        """A spare trains in the place of a member, as the pods settle it among themselves."""
        with self._lock:
            group = self._group(taker)
            rank = group.rank(lost)
            assert rank is not None
            group.taken[rank] = taker["metadata"]["uid"]

    def end(self, pod: Object, exit_code: int, message: str = "", reason: str = "") -> None:
        """The trainer container of this pod has ended. A pod that is gone meanwhile has nobody left to say so."""
        why = reason or ("Completed" if exit_code == 0 else "Error")
        ended = {"exitCode": exit_code, "reason": why, "message": message, "startedAt": now(), "finishedAt": now()}
        container = pod["spec"]["containers"][0]
        status = {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "containerStatuses": [{
                "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0,
                "ready": False, "started": False, "state": {"terminated": ended},
            }],
        }  # fmt: skip
        metadata = pod["metadata"]
        path = f"{CORE}/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        try:
            self._api.merge(path, {"metadata": {"uid": metadata["uid"]}, "status": status})
        except ApiError as error:
            if error.code != 404:
                raise

    def finish(self, pods: list[Object]) -> None:
        """All members reach the target, as good trainers end; after the first the job's controller ends the rest."""
        with self._lock:
            for pod in pods:
                self._group(pod).is_done = True
        for pod in pods:
            self._finish(pod)

    def _finish(self, pod: Object) -> None:
        total = total_steps(pod) or 200
        words = {"step": total, "target_step": total, "final_checkpoint": checkpoint(total)}
        self.end(pod, 0, said(pod, 0, "Done", **words))

    def finish_due(self) -> None:
        """Let those end that have taken their last step; for a cluster in which nobody plays the end by hand."""
        with self._lock:
            due = [pod for pod in self._pods.values() if self._group(pod).step() == total_steps(pod)]
        for pod in due:
            with suppress(ApiError):  # gone meanwhile
                self.finish([pod])

    # -- agents ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._close())
        self._loop.close()

    async def _close(self) -> None:
        await asyncio.gather(*[close(server) for server in self._servers.values()])
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.gather(*others, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer; from a node that is lost none, not even an end of the connection."""
        try:
            await reader.readuntil(b"\r\n\r\n")
            with self._lock:
                pod = self._pods.get(writer.get_extra_info("sockname")[0])
                lives = pod is not None and pod["spec"]["nodeName"] not in self._nodes.lost
                body = self._record(pod).to_json().encode() if pod is not None and lives else b""
            if pod is not None and not lives:
                await asyncio.sleep(SILENT_SECONDS)
            if body:
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _record(self, pod: Object) -> Progress:
        group, saved = self._group(pod), self._saved.get(run_uid(pod), 0)
        step = group.step()
        if group.frozen_step is None:
            saved = max(saved, step - step % SAVE_EVERY_STEPS)
            self._saved[run_uid(pod)] = saved
        phase = "finishing" if step == group.total_steps else "training"
        pods = [p for p in self._pods.values() if group_key(p) == group_key(pod)]
        ranks = {int(index(p)): group.rank(p) for p in pods} if group.total_steps is not None else {}
        return Progress(
            schema=SCHEMA, run=pod["metadata"]["labels"][Label.RUN], attempt=attempt(pod), stage="train",
            phase=phase, step=step, total_steps=group.total_steps, loss=round(4.0 - step / 100, 4),
            tokens=step * 1024, tokens_per_second=1024 * STEPS_PER_SECOND, step_age_seconds=group.step_age_seconds(),
            slowest_step_seconds=1 / STEPS_PER_SECOND, durable_checkpoint={**checkpoint(saved), "age_seconds": 1.0},
            workers=[{"pod_index": i, "rank": rank} for i, rank in ranks.items() if rank is not None],
            heard={index(p): 0.5 for p in pods if p is not pod and p["spec"]["nodeName"] not in self._nodes.lost},
        )  # fmt: skip

    # -- pods ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                listed = self._api.get(PODS)
                self._forget({pod["metadata"]["uid"] for pod in listed["items"]})
                for pod in listed["items"]:
                    self._see(pod)
                for kind, pod in self._api.watch(PODS, listed["metadata"]["resourceVersion"], self._stopping):
                    self._drop(pod) if kind == "DELETED" else self._see(pod)
            except ApiError:  # the API server is away or has forgotten the version
                self._stopping.wait(RETRY_SECONDS)

    def _see(self, pod: Object) -> None:
        status, metadata = pod["status"], pod["metadata"]
        if status.get("phase") != "Running" or pod["spec"]["nodeName"] in self._nodes.lost:
            if status.get("phase") != "Running":
                self._drop(pod)
            return
        try:
            if "deletionTimestamp" in metadata:
                self._stop(pod)
                return
            self._listen(pod)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def _stop(self, pod: Object) -> None:
        """SIGTERM: the group saves after the same step and exits 10; without a grace it just dies."""
        with self._lock:
            group = self._group(pod)
            if group.is_done:
                self._finish(pod)
            elif pod["metadata"].get("deletionGracePeriodSeconds", 30) > ABORT_GRACE_SECONDS:
                group.frozen_step = step = group.step()
                group.has_stopped = True
                self._saved[run_uid(pod)] = step
                words = {"step": step, "target_step": group.total_steps, "final_checkpoint": checkpoint(step)}
                self.end(pod, 10, said(pod, 10, "Stopped", **words))
            else:
                self.end(pod, 137)

    def _listen(self, pod: Object) -> None:
        address = pod["status"]["podIP"]
        with self._lock:
            known = self._pods.get(address)
            is_another = known is None or known["metadata"]["uid"] != pod["metadata"]["uid"]
            if is_another and self._group(pod).has_stopped:
                del self._groups[group_key(pod)]
            self._group(pod)
            is_new = address not in self._servers
            self._pods[address] = pod
        if is_new:
            asyncio.run_coroutine_threadsafe(self._open(address), self._loop).result()

    async def _open(self, address: str) -> None:
        self._servers[address] = await asyncio.start_server(self._answer, address, AGENT_PORT)

    def _drop(self, pod: Object) -> None:
        address = pod["status"].get("podIP", "")
        with self._lock:
            known = self._pods.get(address)
            if known is None or known["metadata"]["uid"] != pod["metadata"]["uid"]:
                return
            del self._pods[address]
        asyncio.run_coroutine_threadsafe(close(self._servers.pop(address)), self._loop)

    def _forget(self, uids: set[str]) -> None:
        """Pods that went while nobody watched."""
        for pod in [*self._pods.values()]:
            if pod["metadata"]["uid"] not in uids:
                self._drop(pod)

    def _group(self, pod: Object) -> Group:
        key = group_key(pod)
        if key not in self._groups:
            first = self._saved.get(run_uid(pod), 0)
            self._groups[key] = Group(first, total_steps(pod), time.monotonic())
        return self._groups[key]
