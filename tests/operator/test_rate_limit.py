"""So much a second, and some at once."""

from __future__ import annotations

from trainrun_operator.rate_limit import RateLimit


def test_some_at_once_and_then_as_many_as_the_rate_allows() -> None:
    """Also after a long rest no more than that at once."""
    limit = RateLimit(per_second=10.0, at_once=3)
    for now in (0.0, 1000.0):
        assert [round(limit.take(now), 3) for _ in range(5)] == [0.0, 0.0, 0.0, 0.1, 0.2]


def test_what_may_not_begin_yet_takes_nothing() -> None:
    """So that asking often costs nobody a turn."""
    limit = RateLimit(per_second=4.0, at_once=4.0)
    assert [limit.may_take(100.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [limit.may_take(100.25) for _ in range(2)] == [True, False]
    assert not limit.may_take(100.49)
    assert limit.may_take(100.5)
