"""Numbers of the operator's machinery, each with its reason. What decides about runs lives in core/."""

from __future__ import annotations

from dataclasses import dataclass

from trainrun_operator.core.pod import AGENT_IMAGE


@dataclass(frozen=True)
class Settings:
    """Defaults for a cluster; `local()` for one machine."""

    workers: int = 16
    """Passes at once: they wait for the API server, which is slow just when a rack of nodes has failed."""
    resync_seconds: float = 600.0
    """Every run gets a pass so long after its last one although nothing happened: a lost watch event costs no more. A
    healthy run's turn to renew its progress (below) comes earlier, so that this costs nothing up to 1,500 runs."""
    relist_seconds: float = 300.0
    """Runs are listed anew so often, since kopf does not say when its watch was cut."""
    retry_first_seconds: float = 0.1
    retry_longest_seconds: float = 30.0
    """Back-off of a pass that met a conflict or an unavailable API server; doubling."""
    poll_healthy_seconds: float = 30.0
    """One call per run: 1,000 runs are 33 calls per second."""
    poll_suspect_seconds: float = 5.0
    """While something may be wrong or the first step is awaited."""
    poll_timeout_seconds: float = 1.0
    """An agent answers from memory in milliseconds; a second is a verdict on the way to it."""
    poll_parallel: int = 128
    """Calls at once, so that a rack of silent agents does not delay the others: each holds one for a second."""
    peer_silent_seconds: float = 7.0
    """A peer that worker 0 has not heard for this long is silent: asked every 5 s, with 1 s to answer, it has missed a
    question. That is known before the node's lease runs out, and nothing follows from it alone."""
    progress_pass_seconds: float = 60.0
    """A healthy run gets a pass this often to refresh status.progress."""
    progress_passes_per_second: float = 2.5
    """And of all runs together so many, in turn: each costs 6 ms here and a write there, so that from 150 runs up
    status.progress is renewed less often (1,000 runs: every 400 s)."""
    outage_memory_seconds: float = 60.0
    """After an API outage a node's facts are stale until its next heartbeat, but no longer than this."""
    agent_image: str = AGENT_IMAGE
    """Brings the agent into pods of a user's own image."""


def local() -> Settings:
    """On one machine a call to an agent costs a millisecond, and people watch."""
    return Settings(
        workers=1,
        resync_seconds=10.0,
        poll_healthy_seconds=1.0,
        poll_suspect_seconds=0.25,
        poll_parallel=8,
        progress_pass_seconds=5.0,
    )
