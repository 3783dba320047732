"""N ranks of the real worker over gloo, in processes forked from a server that has imported torch once."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import socket
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mortal import end_with_the_tests

JOIN_SECONDS = 240


@dataclass
class Launch:
    """One start of a worker group."""

    world_size: int
    env: dict[str, str]
    hook: str | None = None
    """'module:function' called in the child with its rank and `hook_args` before `run`."""
    hook_args: dict[str, Any] = field(default_factory=dict)


@dataclass
class Ended:
    """How one rank ended: an outcome, or an exit code (negative: signal)."""

    outcome: dict[str, Any] | None
    exit_code: int
    error: str = ""


def fork_server() -> Any:
    """The context whose children start with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainrun_trainer.worker", "tests.trainer.ranks"])
    return context


def start(launch: Launch, folder: Path) -> list[Any]:
    """Start the ranks; `finish` collects them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = fork_server()
    processes = []
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(launch.world_size):
        env = {
            **launch.env,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(launch.world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        process = context.Process(target=_child, args=(rank, env, launch.hook, launch.hook_args, str(folder)))
        process.start()
        processes.append(process)
    return processes


def finish(processes: list[Any], folder: Path) -> list[Ended]:
    """Wait for the ranks. When one dies, the others are killed, as a launcher does."""
    try:
        pending = list(processes)
        while pending:
            multiprocessing.connection.wait([p.sentinel for p in pending], timeout=JOIN_SECONDS)
            ended = [p for p in pending if not p.is_alive()]
            assert ended, "no rank ended in time"
            pending = [p for p in pending if p.is_alive()]
            if any(p.exitcode != 0 for p in ended):
                for process in pending:
                    process.kill()
    finally:
        for process in processes:
            process.kill()
            process.join()
    found = []
    for rank, process in enumerate(processes):
        path = folder / f"outcome{rank}.json"
        raw = json.loads(path.read_text()) if path.exists() else {}
        found.append(Ended(raw.get("outcome"), process.exitcode, raw.get("error", "")))
    return found


def launch(request: Launch, folder: Path) -> list[Ended]:
    """Start and finish."""
    return finish(start(request, folder), folder)


def kill_self() -> None:
    """SIGKILL: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def _child(rank: int, env: dict[str, str], hook: str | None, hook_args: dict[str, Any], folder: str) -> None:
    end_with_the_tests()
    os.environ.update(env)
    log = os.open(f"{folder}/log{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from trainrun_trainer import worker
    from trainrun_trainer.stores import open_storage

    result: dict[str, Any] = {}
    try:
        storage = open_storage
        if hook is not None:
            module, _, name = hook.partition(":")
            storage = getattr(importlib.import_module(module), name)(rank, **hook_args) or open_storage
        result["outcome"] = worker.run(storage)
    except BaseException:
        result["error"] = traceback.format_exc()
        traceback.print_exc()
        raise
    finally:
        written = Path(f"{folder}/outcome{rank}.tmp")
        written.write_text(json.dumps(result))
        written.rename(f"{folder}/outcome{rank}.json")
