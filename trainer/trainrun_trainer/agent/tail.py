"""The program's output: passed on to the pod's own, with a bounded tail kept for the termination message."""

from __future__ import annotations

import collections
import os
import re
import threading
from typing import Deque

TAIL_LINES = 200
TAIL_LINE_BYTES = 2000
"""A longer line is cut in the tail (never in the pod's output)."""

_NAME = (
    r"[A-Z0-9_.-]*(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY)[A-Z0-9_.-]*"  # as an environment variable
    r"|(?i:[\w.-]*(?:secret|password|passwd|credential)[\w.-]*)"
    r"|[\w.-]*[_.-](?i:token|key)|\w*[a-z](?:Token|Key)"  # hf_token, apiKey; neither tokens nor num_key_value_heads
    r"|(?i:token|key)(?==)"
)
_VALUE = r"""(?P<quote>["']).*?(?P=quote)|(?i:(?:bearer|basic)\s+)?[^\s,;&"'}\])]+"""
_SECRET = re.compile(r"""(?<![\w.-])(?P<name>(?:%s)["']?)(?P<sep>\s*[=:]\s*)(?:%s)""" % (_NAME, _VALUE))
_URL_PASSWORD = re.compile(r"(?i)(\w+://[^/\s:@]*):[^/\s@]+@")


def redact(text: str) -> str:
    """Hide values whose name says token, secret, password, credential or key, and passwords in URLs."""
    text = _SECRET.sub(lambda m: m.group("name") + m.group("sep") + "***", text)
    return _URL_PASSWORD.sub(r"\1:***@", text)


class Tail:
    """The last lines, bounded in number and length."""

    def __init__(self) -> None:
        self._lines: Deque[bytes] = collections.deque(maxlen=TAIL_LINES)
        self._open = b""
        self._lock = threading.Lock()

    def add(self, data: bytes) -> None:
        """Take a piece of output, whole lines or not."""
        with self._lock:
            *lines, rest = (self._open + data).split(b"\n")
            self._lines.extend(line[:TAIL_LINE_BYTES] for line in lines)
            self._open = rest[:TAIL_LINE_BYTES]

    def text(self, limit_bytes: int = 2048) -> str:
        """The newest lines that fit, redacted."""
        with self._lock:
            data = b"\n".join([*self._lines, self._open] if self._open else self._lines)
        return redact(data.decode(errors="replace"))[-limit_bytes:]


def pump(source_fd: int, target_fd: int, tail: Tail) -> threading.Thread:
    """Copy output until its writers are gone, in a thread. A closed target ends the copy but not the draining."""

    def copy() -> None:
        can_write = True
        while True:
            data = os.read(source_fd, 65536)
            if not data:
                return
            tail.add(data)
            while data and can_write:
                try:
                    data = data[os.write(target_fd, data) :]
                except OSError:
                    can_write = False  # whoever read our output is gone; the training goes on

    thread = threading.Thread(target=copy, name="output", daemon=True)
    thread.start()
    return thread
