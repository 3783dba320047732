"""Worker 0 asks the other pods' agents, so that the operator needs one call per run."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Mapping, Sequence, Tuple

ASK_EVERY_SECONDS = 5.0
ANSWER_SECONDS = 1.0
AT_ONCE = 16
ANSWER_LIMIT_BYTES = 1 << 20


class Peers:
    """The last answer of each other pod, with the instant it came."""

    def __init__(self, addresses: Sequence[str], own_index: int) -> None:
        self._addresses = {i: a for i, a in enumerate(addresses) if i != own_index}
        self._answers: Dict[int, Tuple[Dict[str, Any], float]] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Ask in a thread of our own, at a bounded cadence, for ever."""
        if self._addresses:
            threading.Thread(target=self._ask_for_ever, name="peers", daemon=True).start()

    def answers(self) -> Mapping[int, Tuple[Dict[str, Any], float]]:
        """Pod index -> (last answer, its age in seconds); a pod that never answered is absent."""
        now = time.monotonic()
        with self._lock:
            return {index: (answer, max(0.0, now - at)) for index, (answer, at) in self._answers.items()}

    def _ask_for_ever(self) -> None:
        with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(self._addresses))) as pool:
            while True:
                started = time.monotonic()
                list(pool.map(self.ask, self._addresses))
                time.sleep(max(0.2, ASK_EVERY_SECONDS - (time.monotonic() - started)))

    def ask(self, index: int) -> None:
        """Ask one pod once; silence and nonsense leave the former answer, which grows old."""
        host, _, port = self._addresses[index].rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/progress?scope=pod")
            raw = connection.getresponse().read(ANSWER_LIMIT_BYTES)
            answer = json.loads(raw)
        except (OSError, ValueError, http.client.HTTPException):
            return
        finally:
            connection.close()
        workers = answer.get("workers") if isinstance(answer, dict) else None
        if isinstance(workers, list) and all(isinstance(w, dict) for w in workers):
            with self._lock:
                self._answers[index] = (answer, time.monotonic())
