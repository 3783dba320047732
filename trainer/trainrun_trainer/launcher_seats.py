"""A seat in the worker group: who joins the rendezvous, and who waits warm until a member is lost.

With `workers.spares` there are more pods than seats. torchelastic gives seats to whoever comes first, at each restart
anew; here a seat belongs to its pod until that pod's heartbeat ends, so that worker 0, which hosts the store, is never
the one left over. A pod that waits asks in no list: it reads the shared state, and joins once a seat stays empty.
Whatever becomes of the run, it ends only when it is deleted: an end of its own would fail the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.distributed.elastic.rendezvous import RendezvousError

FIRST_ROUND_SECONDS = 30.0
"""A pod beyond the seats waits so long for the members of the first round: one of them may have found no node."""
VACANT_SECONDS = 1.0
"""A seat counts as empty after this: at a restart in place a member leaves its seat for two looks at the state."""
GONE_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class View:
    """The rendezvous as one pod sees it; pods whose heartbeat ended are left out."""

    round: int
    is_first: bool
    """The first round is not complete yet."""
    is_closed: bool
    is_mine: bool
    """This pod is a member, or on its way to be one."""
    taken: int


class Seats:
    """One pod's way to its seat. `wait` is called before each rendezvous."""

    def __init__(self, handler: Any, *, seats: int, is_extra: bool) -> None:
        self._handler = handler
        self._seats = seats
        self._is_extra = is_extra

    def wait(self, on_waiting: Callable[[], None]) -> None:
        """Return when this pod may join; `on_waiting` is called once if it has to wait."""
        began = time.monotonic()
        empty_since: float | None = None
        tickets: dict[int, int] = {}
        is_told = False
        while True:
            view, now = self._look(), time.monotonic()
            vacant = self._seats - view.taken
            if view.is_mine or (view.is_first and not self._is_extra):
                return
            if not is_told:
                on_waiting()
                is_told = True
            if vacant <= 0 or view.is_closed or (view.is_first and now - began < FIRST_ROUND_SECONDS):
                empty_since = None
            elif empty_since is None:
                empty_since = now
            elif now - empty_since >= VACANT_SECONDS and self._ticket(tickets, view.round) <= vacant:
                return
            time.sleep(self._handler._state_holder._cache_duration)

    def _look(self) -> View:
        """The state now. Without the store's host nothing is left to wait for but the end."""
        holder = self._handler._state_holder
        while True:
            try:
                holder.sync()
                break
            except RendezvousError:
                time.sleep(GONE_PAUSE_SECONDS)
        state, me = holder.state, self._handler._this_node
        seated = set(state.participants) | state.wait_list
        is_first = state.round == 0 and not state.complete
        return View(state.round, is_first, state.closed, me in seated, len(seated))

    def _ticket(self, tickets: dict[int, int], number: int) -> int:
        """This pod's place among those that saw empty seats in that round: they see them at the same time."""
        if number not in tickets:
            tickets[number] = int(self._handler._store.add(f"trainrun/seats/{number}", 1))
        return tickets[number]
