"""The agent's life: prepare, wait for the name, start, watch, stop, tell how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from trainrun_api.contract import (
    TERMINATION_MESSAGE_LIMIT_BYTES,
    ExitCode,
    LauncherState,
    ProgressFile,
    TerminationMessage,
)

from trainrun_trainer.agent import devices, ending, files, metrics, proctree, progress
from trainrun_trainer.agent.command import why_not_startable
from trainrun_trainer.agent.ending import End, Stop
from trainrun_trainer.agent.keeper import NOT_STARTED, Keeper
from trainrun_trainer.agent.peers import Peers
from trainrun_trainer.agent.rendezvous import find_endpoint
from trainrun_trainer.agent.sampling import Sampler
from trainrun_trainer.agent.server import ListenError, Server
from trainrun_trainer.agent.settings import RENDEZVOUS, Settings
from trainrun_trainer.agent.tail import Tail, pump

TICK_SECONDS = 0.2
SAMPLE_EVERY_SECONDS = 2.0
COMMAND_WAIT_SECONDS = 60.0
"""A user's command may not use the rendezvous at all, so it is not kept from starting for longer."""
DRAIN_SECONDS = 2.0
"""How long the last output may take to pass through after the tree is gone."""

LAUNCHER_MODULE = "trainrun_trainer.launcher"


class Agent:
    """Owns one pod. `run` is called once and returns the exit code."""

    def __init__(self, settings: Settings, command: List[str]) -> None:
        self._settings = settings
        self._command = command or [sys.executable, "-m", LAUNCHER_MODULE]
        self._is_own_launcher = LAUNCHER_MODULE in self._command
        self._started_at = time.monotonic()
        self._identity: Dict[str, Any] = {
            "run": settings.run,
            "attempt": settings.attempt,
            "stage": settings.stage,
            "pod_index": settings.pod_index,
        }
        self._steps = progress.StepClock()
        self._tail = Tail()
        self._sampler = Sampler()
        self._peers = Peers(settings.peers if settings.pod_index == 0 else (), settings.pod_index)
        self._signals = 0
        self._stop: Optional[Stop] = None
        self._stop_at = 0.0
        self._is_killed = False
        self._is_forwarded = False

    # the pod's life, from top to bottom

    def run(self, keeper: Keeper, wake_r: int) -> int:
        """Everything between the first signal handler and the exit code."""
        refusal = why_not_startable(self._command)
        returncode = NOT_STARTED if refusal is not None else None
        if refusal is None:
            refusal = self._prepare()
        if refusal is None:
            pumping = pump(keeper.output_r, 1, self._tail)
            self._peers.start()
            self._sampler = Sampler(devices.reader(self._settings.accelerator))  # may start a thread: after the fork
            threading.Thread(target=self._sample_for_ever, name="samples", daemon=True).start()
            refusal, found = self._find_rendezvous()
            if refusal is None and not self._asked_to_stop():
                keeper.start(self._command, {**os.environ, **found})
                returncode = self._watch(keeper, wake_r)
                pumping.join(DRAIN_SECONDS)
        keeper.kill()
        return self._tell(returncode, refusal)

    def _prepare(self) -> Optional[str]:
        try:
            files.clear(self._settings.progress_dir)
        except OSError as error:
            return "the progress folder cannot be used: %s; set TRAINRUN_PROGRESS_DIR to a writable folder" % error
        try:
            server = Server(self._settings.host, self._settings.port, self.progress, self.metrics)
        except ListenError as error:
            return str(error)
        server.start()
        return None

    def _find_rendezvous(self) -> Tuple[Optional[str], Dict[str, str]]:
        """Why not to start, and what our launcher is told. torchrun too fails at once where the name is not known yet,
        but only our launcher needs it in any case, and a user's program may want the name."""
        endpoint, limit = self._settings.rendezvous_endpoint, self._settings.rendezvous_wait_seconds
        if not self._is_own_launcher:
            limit = min(limit, COMMAND_WAIT_SECONDS)
        found = find_endpoint(endpoint, limit, should_stop=self._asked_to_stop)
        if self._is_own_launcher:
            return found.problem, {RENDEZVOUS: found.endpoint} if endpoint else {}
        if found.problem is not None:
            _say("%s; the command is started all the same" % found.problem)
        return None, {}

    def _watch(self, keeper: Keeper, wake_r: int) -> Optional[int]:
        """Until the tree is gone; the launcher's or command's exit code."""
        while True:
            ready, _, _ = select.select([keeper.status_r, wake_r], [], [], TICK_SECONDS)
            if wake_r in ready:
                os.read(wake_r, 4096)
            if keeper.status_r in ready:
                said = keeper.read()
                if said is None:  # somebody killed the keeper: what it kept is ours now
                    proctree.kill_descendants(os.getpid())
                    return -int(signal.SIGKILL)
                for message in said:
                    if "ended" in message:
                        return int(message["ended"])
            proctree.reap()  # as PID 1 we are the parent of whatever was left in this container
            if self._asked_to_stop():
                self._pursue_stop(keeper)

    def _tell(self, returncode: Optional[int], refusal: Optional[str]) -> int:
        proctree.kill_descendants(os.getpid())
        end = End(
            returncode=returncode,
            result=files.read_json(self._settings.progress_dir, ProgressFile.RESULT),
            progress=self.progress(False),
            stop=self._stop,
            is_own_launcher=self._is_own_launcher,
            refusal=refusal,
            monotonic=time.monotonic(),
        )
        identity = {name: self._identity[name] for name in ("run", "attempt", "pod_index")}
        message = ending.message_of(end, {**identity, "role": self._role()}, self._tail.text())
        write_message(self._settings.termination_log, message)
        return message.exit_code

    # stopping

    def on_signal(self, number: int, _frame: Any) -> None:
        """SIGTERM and SIGINT: save and stop. Counted only; the main loop acts."""
        self._signals += 1

    def _asked_to_stop(self) -> bool:
        if self._stop is None:
            deadline = self._settings.deadline_seconds
            if self._signals:
                self._request_stop("stopped on request", ExitCode.STOPPED)
            elif deadline is not None and time.monotonic() - self._started_at >= deadline:
                self._request_stop("the time limit of %.0f s is reached" % deadline, ExitCode.TIME_LIMIT)
        return self._stop is not None

    def _request_stop(self, reason: str, code: int) -> None:
        self._stop, self._stop_at = Stop(reason, int(code)), time.monotonic()
        request = {"reason": reason, "exit_code": int(code)}
        try:
            files.write_json(self._settings.progress_dir, ProgressFile.STOP_REQUEST, request)
        except OSError as error:  # a full disk: they cannot be asked, but they are ended in time
            _say("the stop request cannot be written: %s" % error)
        _say("%s; workers save and stop within %.0f s" % (reason, self._settings.kill_after_seconds))

    def _pursue_stop(self, keeper: Keeper) -> None:
        """After a request: nothing to save ends at once, the rest when it has saved or its time is over."""
        if self._stop is None or self._is_killed:
            return
        waited = time.monotonic() - self._stop_at
        if waited >= self._settings.kill_after_seconds:
            self._is_killed = True
            self._stop = Stop(self._stop.reason, self._stop.exit_code, killed_after_seconds=waited)
            keeper.kill()
        elif not self._is_own_launcher:
            if not files.rank_records(self._settings.progress_dir) and not self._is_forwarded:
                self._is_forwarded = True
                keeper.signal(signal.SIGTERM)  # it does not know our stop request; this it may know
        elif self._launcher().get("state") != LauncherState.RUNNING:
            self._is_killed = True
            keeper.kill()

    # answers

    def _launcher(self) -> Dict[str, Any]:
        return files.read_json(self._settings.progress_dir, ProgressFile.LAUNCHER) or {}

    def _role(self) -> str:
        """By its seat in the worker group; before it has asked for one, by its number."""
        state = self._launcher().get("state", LauncherState.IMPORTING)
        if state == LauncherState.IMPORTING:
            return self._settings.role
        return "spare" if state == LauncherState.SPARE else "member"

    def progress(self, whole_run: bool) -> Dict[str, Any]:
        """contract.Progress of this pod, or of the whole run as worker 0 knows it."""
        own = progress.pod_progress(
            self._identity,
            files.rank_records(self._settings.progress_dir),
            self._launcher(),
            self._sampler.latest,
            self._steps,
            time.monotonic(),
        )
        return progress.run_progress(own, self._peers.answers()) if whole_run else own

    def metrics(self) -> str:
        """Prometheus text of this pod."""
        return metrics.render(self.progress(False), self._settings.pod_index)

    def _sample_for_ever(self) -> None:
        while True:
            records = files.rank_records(self._settings.progress_dir)
            self._sampler.sample({int(r["local_rank"]): int(r["pid"]) for r in records if r.get("pid")})
            time.sleep(SAMPLE_EVERY_SECONDS)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # whoever read our output is gone
        sys.stderr.write("[agent] %s\n" % text)
        sys.stderr.flush()


def write_message(path: str, message: TerminationMessage) -> None:
    """Leave the message for the kubelet, and a line of it for people; a missing file is no reason to fail."""
    text = message.to_bounded_json(TERMINATION_MESSAGE_LIMIT_BYTES)
    _say("exit %d %s: %s" % (message.exit_code, message.cause, message.message))
    try:
        with open(path, "w") as handle:
            handle.write(text)
    except OSError as error:
        _say("the termination message cannot be written: %s; it would have been %s" % (error, text))


def prepare_signals(agent: Agent) -> Tuple[int, int]:
    """Handlers and the pipe that wakes the main loop: (read end, write end)."""
    wake_r, wake_w = os.pipe()
    for fd in (wake_r, wake_w):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.on_signal)
    return wake_r, wake_w
