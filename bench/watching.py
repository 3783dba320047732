"""When watches of the API server first showed something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from tests.controlplane.api import Api


class Watching:
    """Moments by name, each by `clock`; `paths` says who looks at what each path's watch shows."""

    def __init__(self, api: Api, clock: Callable[[], float], paths: Mapping[str, Callable[[Any], None]]) -> None:
        self.at: dict[str, float] = {}
        self._api, self._clock = api, clock
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=item, daemon=True) for item in paths.items()]

    @contextmanager
    def watching(self) -> Iterator[Self]:
        """While the block lasts."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def mark(self, name: str) -> None:
        """It is so now, if it was not before."""
        self.at.setdefault(name, self._clock())

    def _watch(self, path: str, see: Callable[[Any], None]) -> None:
        version = self._api.get(path)["metadata"]["resourceVersion"]
        for _, obj in self._api.watch(path, version, self._stop):
            see(obj)
