"""Bit-identical resume: equal losses at every step and equal state digests at every common checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.trainer.runs import Site, was_killed

pytestmark = pytest.mark.timeout(300)
Reference = Callable[[int], Site]


def assert_same_run(site: Site, reference: Site) -> None:
    """Equal bit for bit, with exactly one line per step."""
    assert site.losses() == reference.losses()
    assert list(site.losses()) == list(range(1, 13))
    assert site.digests() == reference.digests()
    lines, diverged = site.metrics()
    assert not diverged
    same = ("step", "rows_digest", "grad_norm", "lr", "tokens", "eval")
    assert [[line.get(k) for k in same] for line in lines] == [
        [line.get(k) for k in same] for line in reference.metrics()[0]
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_resume_is_bit_identical_wherever_a_rank_dies(site: Site, undisturbed: Reference, world_size: int) -> None:
    """One run, killed in accumulation, in a save and in an evaluation, by each kind of rank."""
    last = world_size - 1
    share = 12 // world_size
    deaths = [
        ("kill_in_slot", {"nth": 2 * share + share // 2}, None),
        ("kill_in_evaluation", {"nth": 0}, 0),
        ("kill_at_write", {"prefix": "step-4-", "nth": 1}, 0),
        ("kill_in_slot", {"nth": 5 * share}, 0),
        ("kill_in_evaluation", {"nth": 3}, 4),
    ]
    for i, (hook, args, parent) in enumerate(deaths):
        rank = last if i % 2 else 0
        was_killed(site.run(world_size, hook, on_rank=rank, **args), rank)
        assert site.resumed_from() == parent
    site.finish(world_size)
    assert_same_run(site, undisturbed(world_size))


@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 0), (2, 1)])
def test_kill_at_each_write_of_a_save_loses_at_most_that_save(
    site: Site, undisturbed: Reference, world_size: int, rank: int
) -> None:
    """Every change that the save of step 2 makes to the store is tried, one after the other."""
    site.checkpoint["interval"] = 2
    for nth in range(40):
        own = f"step-2-c{nth + 1}/"  # each start takes the next claim
        ended = site.run(world_size, "kill_at_write", on_rank=rank, prefix=own, nth=nth)
        if ended[0].outcome is not None:
            assert ended[0].outcome["exit_code"] == 0
            break
        was_killed(ended, rank)
        assert site.resumed_from() == (0 if nth else None)
    writes = nth
    assert writes >= (5 if rank == 0 else 2), "tensors: write, fsync; rank 0 also: manifest write, fsync, rename"
    assert site.losses() == undisturbed(world_size).losses()
    assert site.digests().items() >= undisturbed(world_size).digests().items()


def test_a_kill_in_the_middle_of_pruning_leaves_every_kept_checkpoint_valid(site: Site, undisturbed: Reference) -> None:
    """A half-deleted checkpoint does not exist; the run goes on from the newest one."""
    site.checkpoint["keepLast"] = 2
    for nth in range(2):
        was_killed(site.run(1, "kill_at_write", on_rank=0, prefix="step-", nth=nth, operation="delete"), 0)
    site.finish(1)
    assert site.losses() == undisturbed(1).losses()
    assert (site.store / "step-0-c1").exists() and not (site.store / "step-0-c1" / "manifest.json").exists()
    assert {m["step"] for m in site.manifests().values()} == {4, 8, 12}
    assert site.digests().items() <= undisturbed(1).digests().items()
