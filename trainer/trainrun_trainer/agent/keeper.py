"""A small process between the agent and the launcher that owns the tree below it.

It holds one end of a pipe to the agent. When the agent dies, however it dies, the pipe ends and the keeper kills
everything below itself; when the launcher dies, the same. It lives in its own session, so that a signal to the agent's
group cannot take it away before its work is done. If the keeper itself is killed, the launcher goes with it
(parent-death signal) and the agent, who inherits the rest, ends that.

Talk: JSON lines. Agent to keeper: {"start": [argv], "env": {...}}, {"signal": n}, {"kill": true}.
Keeper to agent: {"started": pid}, {"ended": exit code or minus the signal}.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from typing import Any, Dict, List, Optional

from trainrun_trainer.agent import proctree

NOT_STARTED = 127
"""Exit code of a command that could not be executed, as a shell has it."""


class Keeper:
    """The agent's handle. Made before the agent has threads, because it forks."""

    def __init__(self) -> None:
        control_r, self._control_w = os.pipe()
        self.status_r, status_w = os.pipe()
        self.output_r, output_w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                for fd in (self._control_w, self.status_r, self.output_r):
                    os.close(fd)
                _Loop(control_r, status_w, output_w).run()
                code = 0
            finally:
                os._exit(code)
        for fd in (control_r, status_w, output_w):
            os.close(fd)
        self._pending = b""

    def start(self, argv: List[str], env: Dict[str, str]) -> None:
        """Start the launcher or the user's command; its output arrives at `output_r`."""
        self._send({"start": argv, "env": env})

    def signal(self, number: int) -> None:
        """Signal the started command only, not what it started."""
        self._send({"signal": number})

    def kill(self) -> None:
        """End the whole tree; the answer is `ended`."""
        self._send({"kill": True})

    def read(self) -> Optional[List[Dict[str, Any]]]:
        """What the keeper said since the last call; None when it is gone. Call it when `status_r` is readable."""
        data = os.read(self.status_r, 65536)
        if not data:
            return None
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _send(self, message: Dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._control_w, data) :]
        except BrokenPipeError:
            return  # the keeper is gone, which `read` tells


class _Loop:
    """What runs inside the keeper."""

    def __init__(self, control_r: int, status_w: int, output_w: int) -> None:
        self._control_r = control_r
        self._status_w = status_w
        self._output_w = output_w
        self._command_pid: Optional[int] = None
        self._pending = b""

    def run(self) -> None:
        """Until the command has ended or the agent is gone; leaves nothing alive below this process."""
        os.setsid()
        proctree.adopt_orphans()
        wake_r, wake_w = os.pipe()
        for fd in (wake_r, wake_w):
            os.set_blocking(fd, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_w)
        ended: Optional[int] = None
        while ended is None:
            ready, _, _ = select.select([self._control_r, wake_r], [], [])
            if wake_r in ready:
                os.read(wake_r, 4096)
            if self._control_r in ready and not self._obey():
                break
            ended = self._reap()
        killed = proctree.kill_descendants(os.getpid())
        if ended is None and self._command_pid is not None:
            ended = -int(signal.SIGKILL)
        self._say({"ended": ended, "alive": killed})

    def _obey(self) -> bool:
        data = os.read(self._control_r, 1 << 20)
        if not data:
            return False  # the agent is gone
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "kill" in message:
                return False
            if "start" in message:
                self._command_pid = self._spawn(message["start"], message["env"])
                self._say({"started": self._command_pid})
            elif self._command_pid is not None:
                os.kill(self._command_pid, message["signal"])  # not yet reaped, so the number is still its own
        return True

    def _reap(self) -> Optional[int]:
        return proctree.reap().get(self._command_pid) if self._command_pid is not None else None

    def _spawn(self, argv: List[str], env: Dict[str, str]) -> int:
        keeper = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            proctree.die_with_parent()
            if os.getppid() != keeper:
                os._exit(NOT_STARTED)  # the keeper died between fork and the line above
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(self._output_w, 1)
            os.dup2(self._output_w, 2)
            os.execvpe(argv[0], argv, env)  # noqa: S606  a user's command, as given
        except OSError as error:
            os.write(2, ("cannot start %r: %s; check the command\n" % (argv[0], error)).encode())
        finally:
            os._exit(NOT_STARTED)

    def _say(self, message: Dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the agent is gone; nobody is left to tell
            os.write(self._status_w, json.dumps(message).encode() + b"\n")
