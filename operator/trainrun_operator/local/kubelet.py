"""Runs pods as processes, and is honest about it: what it tells of a pod is what a kubelet would tell.

A pod is an agent in a session of its own. Its pid and start time are on disk, so that the next operator process
adopts it; everything else is read again from there and from the store. The operator process may die at any line.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from trainrun_api.contract import TERMINATION_MESSAGE_LIMIT_BYTES

from trainrun_operator.cluster import Key, Object
from trainrun_operator.errors import Conflict, LocalModeError, NotFound
from trainrun_operator.job_controller import JOB_NAME_LABEL, REPLICA_INDEX_LABEL
from trainrun_operator.local.disk import read_json, write_json
from trainrun_operator.local.layout import RunDir
from trainrun_operator.local.pod_process import (
    POD_FOLDER,
    Places,
    Ports,
    command_of,
    environment_of,
    trainer_container,
)
from trainrun_operator.local.pod_status import CONTAINER_LOST, ended_status, running_status, waiting_status
from trainrun_operator.local.ports import PortBook
from trainrun_operator.local.process import ProcessId, Tree, find_leader
from trainrun_operator.local.scheduler import ENDED
from trainrun_operator.local.slots import Slots
from trainrun_operator.objects import ObjectStore, timestamp

RECORD = "record.json"
FALLBACK_BYTES = 2048
"""terminationMessagePolicy FallbackToLogsOnError takes this much of the log's end."""


@dataclass
class PodProcess:
    """A pod that has a process; `popen` is missing when an earlier operator process started it."""

    uid: str
    key: Key
    node: str
    process: ProcessId
    pidfd: int | None
    started_at: str
    index: int
    """Pod index of its job."""
    port: int
    """Where its agent listens."""
    popen: subprocess.Popen[bytes] | None = None
    kill_at: float | None = None
    """Monotonic time at which the grace of its deletion is over."""


class Kubelet:
    """All slots' kubelets in one; called from one thread."""

    def __init__(
        self,
        store: ObjectStore,
        now: Callable[[], datetime],
        run_dir: RunDir,
        slots: Slots,
        selector: selectors.BaseSelector,
    ) -> None:
        self._store = store
        self._now = now
        self._dir = run_dir
        self._slots = slots
        self._selector = selector
        self._ports = PortBook(run_dir.ports)
        self._running: dict[str, PodProcess] = {}
        self.workdir = Path.cwd()

    def adopt(self) -> list[str]:
        """Take over what an earlier operator process started; returns the names of the pods that live."""
        for pod in self._store.list("Pod"):
            folder = self._dir.pods / pod["metadata"]["uid"]
            if pod["status"]["phase"] in ENDED:  # told already; only the record was not yet put away
                (folder / RECORD).unlink(missing_ok=True)
                continue
            record = read_json(folder / RECORD)
            if record is not None:
                process, started_at = ProcessId.from_json(record["process"]), record["started_at"]
                kill_at = record.get("kill_at")
            else:
                found = find_leader(POD_FOLDER, str(folder)) if folder.exists() else None
                if found is None:
                    continue
                process, started_at, kill_at = found, timestamp(self._now()), None
            self._watch(pod, process, started_at, popen=None, kill_at=kill_at)
        self._kill_strays()
        return [p.key.name for p in self._running.values()]

    def sync(self) -> None:
        """One pass over all pods: start, stop, tell. Never waits."""
        pods = {p["metadata"]["uid"]: p for p in self._store.list("Pod")}
        for running in list(self._running.values()):
            pod = pods.get(running.uid)
            if pod is None or self._slots.is_lost(running.node):
                self._tree(running).kill()
                self._forget(running)
            elif not running.process.is_alive():
                self._tell_end(running, pod)
            elif "deletionTimestamp" in pod["metadata"]:
                self._stop(running, pod)
        for pod in pods.values():
            if self._is_to_start(pod):
                self._start(pod)
            elif self._is_over(pod):
                self._remove(pod)

    def seconds_to_next_kill(self) -> float | None:
        """Until the next grace period is over."""
        deadlines = [p.kill_at for p in self._running.values() if p.kill_at is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def release(self) -> None:
        """Let go of the processes without ending them: the next operator process adopts them."""
        for running in self._running.values():
            if running.popen is not None:
                running.popen.returncode = 0  # Popen complains about children that outlive it; these are meant to

    def port_of(self, pod: Object) -> int | None:
        """Where the pod's agent listens; None when it has no process here."""
        running = self._running.get(pod["metadata"]["uid"])
        return running.port if running is not None else None

    def _is_to_start(self, pod: Object) -> bool:
        node = pod["spec"].get("nodeName")
        return (
            bool(node)
            and pod["metadata"]["uid"] not in self._running
            and "deletionTimestamp" not in pod["metadata"]
            and pod["status"]["phase"] == "Pending"
            and not self._slots.is_lost(node)
        )

    def _is_over(self, pod: Object) -> bool:
        """Deleted, and no process is left that could have a last word."""
        node = pod["spec"].get("nodeName", "")
        return (
            "deletionTimestamp" in pod["metadata"]
            and pod["metadata"]["uid"] not in self._running
            and not self._slots.is_lost(node)
        )

    def _start(self, pod: Object) -> None:
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        places = Places(self._dir.pods / uid, self._dir.checkpoints, self._dir.faults, self.workdir)
        (places.pod / "progress").mkdir(parents=True, exist_ok=True)
        try:
            ports = self._ports_of(pod)
            env = environment_of(pod, ports, places, os.environ)
            with open(self._dir.logs / f"{name}.log", "ab") as log:
                popen = subprocess.Popen(
                    command_of(pod), env=env, cwd=self.workdir, start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
        except (LocalModeError, OSError) as error:
            self._write(pod, waiting_status(pod, "CreateContainerConfigError", str(error)))
            return
        process = ProcessId.of(popen.pid) or ProcessId(popen.pid, 0, "")  # it may have ended already
        started_at = timestamp(self._now())
        self._watch(pod, process, started_at, popen=popen, kill_at=None)
        self._write(pod, running_status(pod, started_at))

    def _watch(
        self, pod: Object, process: ProcessId, started_at: str, *, popen: subprocess.Popen[bytes] | None,
        kill_at: float | None,
    ) -> None:  # fmt: skip
        metadata = pod["metadata"]
        running = PodProcess(
            uid=metadata["uid"],
            key=Key(metadata["namespace"], metadata["name"]),
            node=pod["spec"]["nodeName"],
            process=process,
            pidfd=process.open_pidfd(),
            started_at=started_at,
            index=_index_of(pod),
            port=self._ports_of(pod).agents[_index_of(pod)],
            popen=popen,
            kill_at=kill_at,
        )
        if running.pidfd is not None:
            self._selector.register(running.pidfd, selectors.EVENT_READ)
        self._running[running.uid] = running
        self._record(running)

    def _record(self, running: PodProcess) -> None:
        record = {
            "pod": running.key.name, "node": running.node, "process": running.process.to_json(),
            "started_at": running.started_at, "kill_at": running.kill_at,
            "port": running.port, "index": running.index,
        }  # fmt: skip
        write_json(self._dir.pods / running.uid / RECORD, record)

    def _stop(self, running: PodProcess, pod: Object) -> None:
        """SIGTERM once, SIGKILL to everything when the grace is over."""
        grace = float(pod["metadata"]["deletionGracePeriodSeconds"])
        moment = time.monotonic()
        if running.kill_at is None:
            running.kill_at = moment + grace
            self._record(running)
            running.process.signal(signal.SIGTERM)
        elif moment + grace < running.kill_at:
            running.kill_at = moment + grace
            self._record(running)
        if moment >= running.kill_at:
            self._tree(running).kill()

    def _tell_end(self, running: PodProcess, pod: Object) -> None:
        """The agent has ended: end what is left of the pod, then say how it ended."""
        self._tree(running).kill()
        message = self._termination_message(pod)
        code, reason = _exit_code(running, message)
        if not message and code != 0 and _falls_back_to_log(pod):
            message = self._log_tail(running.key.name)
        status = ended_status(pod, code, reason, message, running.started_at, timestamp(self._now()))
        self._write(pod, status)
        self._forget(running)
        if "deletionTimestamp" in pod["metadata"]:
            self._remove(pod)

    def _termination_message(self, pod: Object) -> str:
        try:
            raw: bytes = (self._dir.pods / pod["metadata"]["uid"] / "termination-log").read_bytes()
        except FileNotFoundError:
            return ""
        return raw[:TERMINATION_MESSAGE_LIMIT_BYTES].decode(errors="replace")

    def _log_tail(self, name: str) -> str:
        with suppress(FileNotFoundError), open(self._dir.logs / f"{name}.log", "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - FALLBACK_BYTES))
            return log.read().decode(errors="replace")
        return ""

    def _forget(self, running: PodProcess) -> None:
        if running.popen is not None:
            running.popen.wait()  # it was killed or has ended: this only takes its exit code
        if running.pidfd is not None:
            self._selector.unregister(running.pidfd)
            os.close(running.pidfd)
        (self._dir.pods / running.uid / RECORD).unlink(missing_ok=True)
        del self._running[running.uid]

    def _tree(self, running: PodProcess) -> Tree:
        return Tree(running.process, POD_FOLDER, str(self._dir.pods / running.uid))

    def _kill_strays(self) -> None:
        """End processes of pods that are in no store any more (force-deleted just before a crash)."""
        known = {p["metadata"]["uid"] for p in self._store.list("Pod")}
        for path in self._dir.pods.glob(f"*/{RECORD}"):
            if path.parent.name not in known:
                Tree(ProcessId.from_json(read_json(path)["process"]), POD_FOLDER, str(path.parent)).kill()
                path.unlink()

    def _ports_of(self, pod: Object) -> Ports:
        key = Key(pod["metadata"]["namespace"], pod["metadata"]["labels"][JOB_NAME_LABEL])
        job = self._store.get("PyTorchJob", key)
        replicas = int(job["spec"]["pytorchReplicaSpecs"]["Worker"].get("replicas", 1)) if job is not None else 0
        return self._ports.of(pod["metadata"]["ownerReferences"][0]["uid"], max(replicas, _index_of(pod) + 1))

    def _write(self, pod: Object, status: Object) -> None:
        with suppress(NotFound):
            while True:
                try:
                    written = self._store.replace_status({**pod, "status": status})
                    pod["metadata"] = written["metadata"]
                    return
                except Conflict:
                    fresh = self._store.get("Pod", Key(pod["metadata"]["namespace"], pod["metadata"]["name"]))
                    if fresh is None or fresh["metadata"]["uid"] != pod["metadata"]["uid"]:
                        return
                    pod["metadata"] = fresh["metadata"]

    def _remove(self, pod: Object) -> None:
        metadata = pod["metadata"]
        self._store.remove("Pod", Key(metadata["namespace"], metadata["name"]), uid=metadata["uid"])


def _index_of(pod: Object) -> int:
    return int(pod["metadata"]["labels"][REPLICA_INDEX_LABEL])


def _exit_code(running: PodProcess, message: str) -> tuple[int, str]:
    """(exit code, reason). Of a process that is not our child only its own message knows the code."""
    if running.popen is not None:
        code = running.popen.wait()
        code = 128 - code if code < 0 else code
        return code, "Completed" if code == 0 else "Error"
    with suppress(ValueError, KeyError, TypeError):
        code = int(json.loads(message)["exit_code"])
        return code, "Completed" if code == 0 else "Error"
    return CONTAINER_LOST


def _falls_back_to_log(pod: Object) -> bool:
    return bool(trainer_container(pod).get("terminationMessagePolicy") == "FallbackToLogsOnError")
