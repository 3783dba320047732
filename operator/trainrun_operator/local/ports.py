"""Ports for the jobs of this machine, remembered so that pods started later find the earlier ones."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.disk import read_json, write_json
from trainrun_operator.local.pod_process import LOOPBACK, Ports

LOWEST, HIGHEST = 17000, 31000
"""Below Linux's range of ephemeral ports: no outgoing connection can take a port between choice and use."""
TRIES = 500


class PortBook:
    """Gives each job its ports once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, job_uid: str, pods: int) -> Ports:
        """Ports of a job with this many pods; more pods than before get more ports."""
        book: dict[str, list[int]] = read_json(self._path) or {}
        given = book.get(job_uid, [])
        if len(given) < pods + 1:
            given = given + _free_ports(pods + 1 - len(given), {p for ps in book.values() for p in ps})
            # jobs before the last few are over: their ports may be given again
            book = dict([*((k, v) for k, v in book.items() if k != job_uid), (job_uid, given)][-8:])
            write_json(self._path, book)
        return Ports(given[0], tuple(given[1:]))


def _free_ports(count: int, taken: set[int]) -> list[int]:
    found: list[int] = []
    chance = random.SystemRandom()
    for _ in range(TRIES):
        port = chance.randrange(LOWEST, HIGHEST)
        if port in taken or port in found:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise LocalModeError(
        f"no {count} free ports between {LOWEST} and {HIGHEST} on {LOOPBACK}; close programs that listen there"
    )
