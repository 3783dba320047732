"""This pod's part of the worker group: its place in the rendezvous, its elastic agent, its result.

Runs in the launcher proper, with torch. Private names of torchelastic are touched here and in launcher_agent.py only.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from typing import Any

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest, SignalException
from torch.distributed.elastic.rendezvous import (
    RendezvousConnectionError,
    RendezvousError,
    RendezvousParameters,
    dynamic_rendezvous,
)
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler
from trainrun_api.contract import Env, ProgressFile

from trainrun_trainer.agent import files
from trainrun_trainer.launcher_agent import MANY_ROUNDS, InPlaceAgent
from trainrun_trainer.launcher_seats import Seats
from trainrun_trainer.launcher_worker import crash_facts, run_worker

FIRST_JOIN_SECONDS = 1800
"""Peers may still pull their image; the run's startup limit is shorter where it matters."""
STORE_SECONDS = 60
EXIT_BARRIER_SECONDS = 60.0
MONITOR_SECONDS = 0.1


@dataclass(frozen=True)
class Group:
    """This pod's place in the worker group, as training-operator tells it."""

    endpoint: str
    run_id: str
    min_pods: int
    max_pods: int
    workers_per_pod: int
    index: int
    spares: int
    """Pods beyond `max_pods`, which wait warm."""


def group_from_env() -> Group:
    """Parse PET_*. Raises ValueError with a sentence where a number is none."""
    low, _, high = os.environ.get("PET_NNODES", "1").partition(":")
    try:
        return Group(
            endpoint=os.environ.get("PET_RDZV_ENDPOINT") or "127.0.0.1:0",
            run_id=os.environ.get("PET_RDZV_ID") or "local",
            min_pods=int(low),
            max_pods=int(high or low),
            workers_per_pod=int(os.environ.get("PET_NPROC_PER_NODE", "1")),
            index=int(os.environ.get(Env.POD_INDEX, "0")),
            spares=int(os.environ.get(Env.SPARES, "0")),
        )
    except ValueError as error:
        raise ValueError(
            f"PET_NNODES must be MIN:MAX; PET_NPROC_PER_NODE, {Env.POD_INDEX} and {Env.SPARES} numbers: {error}"
        ) from error


def local_address(endpoint: str) -> str:
    """The address by which the rendezvous host sees this pod; needs no name of our own. Sends nothing."""
    host, _, port = endpoint.rpartition(":")
    family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port) or 1, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def make_agent(group: Group, entry: str, progress_dir: str, method: str) -> InPlaceAgent:
    """Join the rendezvous' store and build the elastic agent."""
    address = local_address(group.endpoint)
    parameters = RendezvousParameters(
        backend="c10d",
        endpoint=group.endpoint,
        run_id=group.run_id,
        min_nodes=group.min_pods,
        max_nodes=group.max_pods,
        local_addr=address,
        is_host=group.index == 0,
        join_timeout=FIRST_JOIN_SECONDS,
        last_call_timeout=1,
        close_timeout=5,
        read_timeout=STORE_SECONDS,
        keep_alive_interval=1,
        keep_alive_max_attempt=3,
    )
    handler = join_store(parameters)
    quicken(handler, group.max_pods)
    spec = WorkerSpec(
        role="worker",
        local_world_size=group.workers_per_pod,
        entrypoint=run_worker,
        args=(entry, progress_dir),
        rdzv_handler=handler,
        max_restarts=MANY_ROUNDS,
        monitor_interval=MONITOR_SECONDS,
        local_addr=address,
    )
    return InPlaceAgent(
        spec=spec,
        logs_specs=_InheritedOutput(log_dir=os.devnull),
        start_method=method,
        exit_barrier_timeout=EXIT_BARRIER_SECONDS,
        shutdown_timeout=1,
        progress_dir=progress_dir,
        seats=Seats(handler, seats=group.max_pods, is_extra=group.index >= group.max_pods) if group.spares else None,
    )


def quicken(handler: Any, pods: int) -> None:
    """Let a small group meet within tenths of a second: torchelastic looks at the shared state once a second.

    A few pods may look more often, a thousand may not. It also walks the stack twice for the name of an event that
    nobody records, 90 times a restart.
    """
    pause = min(1.0, 0.05 + pods / 500)
    handler._state_holder._cache_duration = pause
    dynamic_rendezvous._delay = lambda seconds: time.sleep(pause)  # type: ignore[attr-defined]
    dynamic_rendezvous.get_method_name = lambda depth=2: "rendezvous"


class _InheritedOutput(DefaultLogsSpecs):
    """Workers write to the pod's own output; without files to follow, a restart need not wait for the followers."""

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        destination = super().reify(envs)
        destination.tee_stdouts, destination.tee_stderrs = {}, {}
        return destination


def join_store(parameters: RendezvousParameters) -> Any:
    """The rendezvous handler, once the pod that hosts the store answers. Raises OSError where we are that pod."""
    end = time.monotonic() + FIRST_JOIN_SECONDS
    while True:
        try:
            return get_rendezvous_handler(parameters)
        except RendezvousConnectionError as error:
            if parameters.get_as_bool("is_host"):
                text = f"cannot open the rendezvous port {parameters.endpoint}: {error.__cause__}; is it in use?"
                raise OSError(text) from error
            if time.monotonic() > end:
                raise
            time.sleep(1)


def launch(entry: str, progress_dir: str, method: str) -> int:
    """Run this pod's workers to their end and write the result; 0 if every worker returned an outcome."""
    agent: InPlaceAgent | None = None
    lost: dict[str, Any] | None = None
    try:
        agent = make_agent(group_from_env(), entry, progress_dir, method)
        agent.run()
    except SignalException as error:
        lost = {"message": f"the launcher was asked to end by {error.sigval.name}", "signal": int(error.sigval)}
    except Exception as error:  # torchelastic's many kinds, and our own bugs: each must reach the message
        lost = crash_facts(error)
        lost["collateral"] = lost["collateral"] or isinstance(error, RendezvousError)  # closed, timed out, store gone
        lost["message"] = f"the worker group cannot go on: {lost['message']}"
    finally:
        if agent is not None and agent.has_seat:  # closing lets peers that would restart end too
            agent.get_worker_group().spec.rdzv_handler.shutdown()
    write_result(progress_dir, agent, lost)
    return 0 if agent is not None and agent.outcomes and not agent.failures else 1


def write_result(progress_dir: str, agent: InPlaceAgent | None, lost: dict[str, Any] | None) -> None:
    """result.json: outcomes and failures of the last generation, or why the group was lost."""
    failures = [asdict(f) for f in agent.failures] if agent is not None else []
    if lost is not None and not failures:
        failures = [{"exit_code": 1, "failed_monotonic": time.monotonic(), **lost}]
    reason = agent.not_restarted_because if agent is not None else None
    for failure in failures:
        if reason is not None:
            failure["message"] += f"; not restarted in place: {reason}"
    result = {
        "outcomes": agent.outcomes if agent is not None else [],
        "failures": failures,
        "history": agent.history if agent is not None else [],
        "inplace_restarts": agent.generation if agent is not None else 0,
    }
    files.write_json(progress_dir, ProgressFile.RESULT, result)
