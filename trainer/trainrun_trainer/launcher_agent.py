"""torchelastic's LocalElasticAgent with our rule for restarts in place.

torchelastic alone retries any failure, also one that a contract code explains, and each pod counts for itself. Here
the rendezvous round is the generation (equal in all pods), `launcher_policy` decides, and who may not restart ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import MultiprocessContext
from trainrun_api.contract import CAUSE_OF_EXIT, ExitCode, LauncherState, ProgressFile

from trainrun_trainer.agent import files
from trainrun_trainer.agent.ending import signal_name
from trainrun_trainer.launcher_policy import Failure, RestartBudget, first_cause
from trainrun_trainer.launcher_seats import Seats

MANY_ROUNDS = 1_000_000
"""torchelastic's own budget: never the one that decides."""
REJOIN_SECONDS = 60
"""How long the group waits for a pod after a restart in place; the operator usually ends the attempt earlier."""
OUTCOME_SECONDS = 5.0
"""A worker that returned a failing code waits so long for its peers, which may hang in a collective without it."""
AGREED_CODES = (ExitCode.DONE, ExitCode.STOPPED, ExitCode.TIME_LIMIT)
"""All ranks return these together; everything else ends the group as soon as one rank says it."""


class InPlaceAgent(LocalElasticAgent):
    """Runs one pod's part of the worker group; `outcomes` and `failures` tell how the last generation ended."""

    def __init__(self, *args: Any, progress_dir: str, seats: Seats | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._progress_dir = progress_dir
        self._seats = seats
        self._budget = RestartBudget()
        self._told_at: float | None = None
        self.generation = 0
        self.has_seat = False
        self.outcomes: list[dict[str, Any]] = []
        self.failures: list[Failure] = []
        self.history: list[dict[str, Any]] = []
        self.not_restarted_because: str | None = None

    def tell(self, state: str) -> None:
        """Replace launcher.json: what the agent needs for its answers and for stops."""
        facts = {
            "state": state,
            "pid": os.getpid(),
            "generation": self.generation,
            "inplace_restarts": self.generation,
            "history": self.history[-20:],
        }
        files.write_json(self._progress_dir, ProgressFile.LAUNCHER, facts)

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        if self._seats is not None:
            self._seats.wait(self._wait_warm)
        self.has_seat = True
        self.tell(LauncherState.RENDEZVOUS)
        super()._rendezvous(worker_group)
        handler: Any = worker_group.spec.rdzv_handler
        self.generation = handler._state_holder.state.round
        self._remaining_restarts = MANY_ROUNDS - self.generation  # becomes TORCHELASTIC_RESTART_COUNT
        # from now on joining is a restart in place: the peers are near, who is not back soon is lost
        handler.settings.timeout._set_timeouts(join=timedelta(seconds=REJOIN_SECONDS))

    def _wait_warm(self) -> None:
        self.has_seat = False
        for local_rank in self._local_ranks():  # of the time when this pod was a member
            files.remove(self._progress_dir, ProgressFile.rank(local_rank))
        self.tell(LauncherState.SPARE)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        for local_rank in range(worker_group.spec.local_world_size):
            files.remove(self._progress_dir, ProgressFile.crash(local_rank))
        self.failures, self.outcomes, self._told_at = [], [], None
        started: dict[int, Any] = super()._start_workers(worker_group)
        self.tell(LauncherState.RUNNING)
        return started

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        context = self._pcontext
        assert isinstance(context, MultiprocessContext) and context._pc is not None
        processes = context._pc.processes
        dead = {i: p.exitcode for i, p in enumerate(processes) if p.exitcode is not None}
        dead = {i: code for i, code in dead.items() if i not in context._return_values}
        if dead:
            return self._died(worker_group, dead)
        result: RunResult = super()._monitor_workers(worker_group)
        self.outcomes = [
            {"rank": worker_group.workers[i].global_rank, **value} for i, value in context._return_values.items()
        ]
        if result.state == WorkerState.FAILED:  # died within this very look
            return self._died(worker_group, {i: p.exitcode for i, p in enumerate(processes) if p.exitcode is not None})
        if result.state == WorkerState.HEALTHY and self._must_end_without_the_rest():
            self._kill_workers()
            return self._end("a worker returned a failing outcome while others did not answer")
        return result

    def _died(self, worker_group: WorkerGroup, dead: dict[int, int]) -> RunResult:
        failures = [f for f in map(lambda i: self._failure(worker_group, i, dead.get(i)), self._local_ranks()) if f]
        self._kill_workers()
        told = [f for f in failures if f.exit_code in CAUSE_OF_EXIT and f.exit_code >= ExitCode.STOPPED]
        for failure in told:  # sys.exit with a contract code instead of a returned outcome
            code = failure.exit_code
            self.outcomes.append(
                {"rank": failure.rank, "exit_code": code, "cause": CAUSE_OF_EXIT[code], "message": failure.message}
            )
        self.failures = failures
        first = first_cause(failures)
        self._budget, refusal = self._budget.after(first, self._durable_step())
        if any(o["exit_code"] not in AGREED_CODES for o in self.outcomes):
            refusal = "a worker returned a contract code"
        elif files.read_json(self._progress_dir, ProgressFile.STOP_REQUEST) is not None:
            refusal = "a stop was requested"
        self.history.append({"generation": self.generation, **asdict(first)})
        if refusal is not None:
            return self._end(refusal)
        print(f"[launcher] {first.message}; restarting the workers in place", flush=True)
        self._remaining_restarts = max(1, self._remaining_restarts)
        return RunResult(state=WorkerState.FAILED)

    def _end(self, reason: str) -> RunResult:
        """End this launcher with what is known; closing the rendezvous lets the peers end too."""
        self.not_restarted_because = reason
        self._remaining_restarts = 0
        return RunResult(state=WorkerState.FAILED)

    def _failure(self, worker_group: WorkerGroup, local_rank: int, exit_code: int | None) -> Failure | None:
        """What is known of one rank's abnormal end; None while it is alive and has not raised."""
        crash = files.read_json(self._progress_dir, ProgressFile.crash(local_rank))
        if exit_code is None and crash is None:
            return None
        rank = worker_group.workers[local_rank].global_rank
        step = (files.read_json(self._progress_dir, ProgressFile.rank(local_rank)) or {}).get("step")
        number = -exit_code if exit_code is not None and exit_code < 0 else None
        if crash is not None:
            text = f"rank {rank} raised {crash['message']}"
        elif number is not None:
            text = f"rank {rank} was killed by {signal_name(number)}"
        else:
            text = f"rank {rank} ended with exit code {exit_code} and no outcome"
        return Failure(
            rank=rank,
            local_rank=local_rank,
            exit_code=exit_code if exit_code is not None and exit_code > 0 else int(ExitCode.ERROR),
            message=text,
            fingerprint=crash["fingerprint"] if crash else signal_name(number) if number else f"exit {exit_code}",
            failed_monotonic=crash["failed_monotonic"] if crash else time.monotonic(),
            step=step,
            signal=number,
            collateral=bool(crash and crash["collateral"]),
        )

    def _must_end_without_the_rest(self) -> bool:
        if all(o["exit_code"] in AGREED_CODES for o in self.outcomes):
            return False
        if self._told_at is None:
            self._told_at = time.monotonic()
        return time.monotonic() - self._told_at > OUTCOME_SECONDS

    def _exit_barrier(self) -> None:
        if all(o["exit_code"] in AGREED_CODES for o in self.outcomes):
            super()._exit_barrier()  # type: ignore[no-untyped-call]

    def _kill_workers(self) -> None:
        """SIGKILL, since a stopped process does not take SIGTERM and would cost torchelastic's 30 s."""
        assert isinstance(self._pcontext, MultiprocessContext) and self._pcontext._pc is not None
        for process in self._pcontext._pc.processes:
            if process.is_alive():
                with contextlib.suppress(ProcessLookupError):  # it ended between the look and the kill
                    os.kill(process.pid, signal.SIGKILL)
        for process in self._pcontext._pc.processes:
            process.join(5)

    def _local_ranks(self) -> range:
        return range(self._worker_group.spec.local_world_size)

    def _durable_step(self) -> int | None:
        steps = [(r.get("durable_checkpoint") or {}).get("step") for r in files.rank_records(self._progress_dir)]
        return max((s for s in steps if s is not None), default=None)
