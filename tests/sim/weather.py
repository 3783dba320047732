"""What befalls a simulated cluster: faults at drawn times, and a control plane that fails at any call.

All of it ends at CALM_SECONDS; then everything is made well again, so that liveness can be demanded.
"""

from __future__ import annotations

from collections.abc import Callable

from trainrun_operator.cluster import Key, Object
from trainrun_operator.errors import Conflict, Unavailable
from trainrun_operator.testing.cluster import OperatorKilled
from trainrun_operator.testing.simulation import Simulation
from trainrun_operator.testing.trainers import Group

from tests.sim.draws import between, one_of, unit

CALM_SECONDS = 1500.0
"""No fault after that."""

WRITES = frozenset(
    {
        "replace_run_status",
        "create_job",
        "delete_job",
        "delete_pod",
        "delete_pods",
        "detach_pod",
        "record_event",
        "delete_run",
    }
)

Fault = Callable[["Weather", int], None]


class Weather:
    """Strikes a simulation; `tick` before each step."""

    def __init__(self, seed: int, sim: Simulation, runs: list[Key]) -> None:
        self.seed = seed
        self.sim = sim
        self.runs = runs
        self.calls = 0
        self.heard = 0
        self.outage_until = 0.0
        self.undo: list[tuple[float, Callable[[], None]]] = []
        self.is_nested = False
        count = between(3, 12, seed, "faults")
        self.due = sorted((between(5, 1000, seed, "at", n), n) for n in range(count))
        sim.cluster.before = self.before
        sim.cluster.after = self.after
        sim.cluster.deliveries = self.deliveries

    @property
    def is_calm(self) -> bool:
        """Faults are over."""
        return self.sim.clock.monotonic() >= CALM_SECONDS

    def tick(self) -> None:
        """Strike what is due, and undo what has lasted long enough."""
        now = self.sim.clock.monotonic()
        while self.due and self.due[0][0] <= now:
            _, n = self.due.pop(0)
            self.strike(n)
        for entry in [e for e in self.undo if e[0] <= now or self.is_calm]:
            self.undo.remove(entry)
            entry[1]()

    # -- the control plane -------------------------------------------------------------------------

    def before(self, call: str) -> None:
        """Conflicts, outages, death before a write; another operator's pass in the middle of this one."""
        if self.is_calm:
            return
        self.calls += 1
        if self.sim.clock.monotonic() < self.outage_until:
            raise Unavailable("no connection")
        chance = unit(self.seed, "before", self.calls)
        if call in WRITES and chance < 0.03:
            raise OperatorKilled
        if chance < 0.04:
            raise Unavailable("timeout")
        if call == "replace_run_status" and chance < 0.08:
            raise Conflict("somebody was faster")
        if chance > 0.93 and len(self.sim.operators) > 1 and not self.is_nested:
            self.is_nested = True
            try:
                self.sim.drive(1)
            finally:
                self.is_nested = False

    def after(self, call: str) -> None:
        """Death right after a write that took effect, or an answer that never arrived."""
        if self.is_calm:
            return
        chance = unit(self.seed, "after", self.calls, call)
        if chance < 0.03:
            raise OperatorKilled
        if chance < 0.05:
            raise Unavailable("the answer was lost")

    def deliveries(self, event: object) -> int:
        """Lost, once, or twice."""
        if self.is_calm:
            return 1
        self.heard += 1
        chance = unit(self.seed, "heard", self.heard)
        return 0 if chance < 0.1 else 2 if chance > 0.9 else 1

    # -- the world -----------------------------------------------------------------------------------

    def strike(self, n: int) -> None:
        """One fault of a drawn kind on a drawn victim."""
        kind = one_of(sorted(KINDS), self.seed, "kind", n)
        KINDS[kind](self, n)

    def later(self, n: int, action: Callable[[], None]) -> None:
        """Undo after a drawn while."""
        lasts = between(20, 400, self.seed, "lasts", n)
        self.undo.append((self.sim.clock.monotonic() + lasts, action))

    def run(self, n: int) -> Key:
        """A drawn run."""
        return one_of(self.runs, self.seed, "run", n)

    def pod(self, n: int) -> Object | None:
        """A drawn pod that runs."""
        pods = [p for p in self.sim.world.pods(self.run(n)) if p.get("status", {}).get("phase") == "Running"]
        return one_of(pods, self.seed, "pod", n) if pods else None

    def node(self, n: int) -> str:
        """A drawn node, preferably one that works for us."""
        pod = self.pod(n)
        names = [x["metadata"]["name"] for x in self.sim.world.store.list("Node")]
        if pod is not None and unit(self.seed, "any node", n) < 0.8:
            return str(pod["spec"]["nodeName"])
        return one_of(names, self.seed, "node", n)

    def job(self, n: int) -> Key | None:
        """The living job of a drawn run."""
        jobs = self.sim.world.living_jobs(self.run(n))
        return Key(self.run(n).namespace, jobs[0]["metadata"]["name"]) if jobs else None


def _kill_node(weather: Weather, n: int) -> None:
    name = weather.node(n)
    weather.sim.world.kill_node(name)
    weather.later(n, lambda: weather.sim.world.revive_node(name))


def _replace_node(weather: Weather, n: int) -> None:
    weather.sim.world.remove_node(weather.node(n))
    weather.later(n, lambda: weather.sim.world.add_node(f"new{n}"))


def _mark_node(weather: Weather, n: int) -> None:
    name = weather.node(n)
    weather.sim.world.mark_node(name, "UnschedulablePendingReplacement")
    weather.later(n, lambda: weather.sim.world.mark_node(name, None))


def _mute_node(weather: Weather, n: int) -> None:
    name = weather.node(n)
    weather.sim.world.mute.add(name)
    weather.later(n, lambda: weather.sim.world.mute.discard(name))


def _fail_pod(weather: Weather, n: int) -> None:
    pod = weather.pod(n)
    if pod is None:
        return
    code = one_of([1, 1, 10, 11, 22, 30, 31, 41, 134, 137, 139, 143], weather.seed, "code", n)
    said = unit(weather.seed, "said", n) < 0.7
    reason = "OOMKilled" if code == 137 and said else "Error"
    weather.sim.world.fail_pod(pod, code, reason=reason, said=said and code < 128, fingerprint=f"f{n}")


def _evict_pod(weather: Weather, n: int) -> None:
    pod = weather.pod(n)
    if pod is not None:
        reasons = ["PreemptionByScheduler", "EvictionByEvictionAPI", "TerminationByKubelet", "DeletionByTaintManager"]
        weather.sim.world.evict_pod(pod, reason=one_of(reasons, weather.seed, "why", n))


def _hang(weather: Weather, n: int) -> None:
    for job in weather.sim.world.living_jobs(weather.run(n)):
        weather.sim.world.hang(job["metadata"]["uid"])


def _queue(weather: Weather, n: int) -> None:
    job = weather.job(n)
    if job is not None:
        weather.sim.world.suspend_job(job, is_suspended=True)
        weather.later(n, lambda: weather.sim.world.suspend_job(job, is_suspended=False))


def _delete_job(weather: Weather, n: int) -> None:
    job = weather.job(n)
    if job is not None:
        weather.sim.world.store.delete("PyTorchJob", job)


def _delete_pod(weather: Weather, n: int) -> None:
    pod = weather.pod(n)
    if pod is not None:
        grace = one_of([0, 1, 30], weather.seed, "grace", n)
        key = Key(pod["metadata"]["namespace"], pod["metadata"]["name"])
        weather.sim.world.store.delete("Pod", key, grace_seconds=grace)


def _corrupt(weather: Weather, n: int) -> None:
    for bucket in weather.sim.world.buckets.values():
        if len([s for s in bucket.saved if s.is_valid]) > 1:
            bucket.corrupt_newest()


def _suspend(weather: Weather, n: int) -> None:
    key = weather.run(n)
    weather.sim.world.edit_run(key, suspend=True)
    weather.later(n, lambda: weather.sim.world.edit_run(key, suspend=False))


def _restart(weather: Weather, n: int) -> None:
    weather.sim.world.edit_run(weather.run(n), restartToken=f"t{n}")


def _outage(weather: Weather, n: int) -> None:
    weather.outage_until = weather.sim.clock.monotonic() + between(10, 200, weather.seed, "outage", n)


def _flaky_registry(weather: Weather, n: int) -> None:
    weather.sim.world.unpullable = "dial tcp: i/o timeout"
    weather.later(n, lambda: setattr(weather.sim.world, "unpullable", None))


def _program_error(weather: Weather, n: int) -> None:
    """The program raises after a drawn step, each time that it gets there, in this and every later attempt."""
    key, step = weather.run(n), between(20, 300, weather.seed, "raises at", n)
    known = weather.sim.world.program

    def break_program(group: Group) -> None:
        known(group)
        if group.run == key and group.step < step:
            group.program_error_at = step

    weather.sim.world.program = break_program


KINDS: dict[str, Fault] = {
    "flaky registry": _flaky_registry,
    "program error": _program_error,
    "kill node": _kill_node,
    "replace node": _replace_node,
    "mark node": _mark_node,
    "mute node": _mute_node,
    "fail pod": _fail_pod,
    "evict pod": _evict_pod,
    "hang": _hang,
    "queue": _queue,
    "delete job": _delete_job,
    "delete pod": _delete_pod,
    "corrupt": _corrupt,
    "suspend": _suspend,
    "restart": _restart,
    "outage": _outage,
}
