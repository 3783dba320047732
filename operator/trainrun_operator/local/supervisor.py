"""`trainrun run`: one manifest from start to end on this machine.

The supervisor validates, holds the workdir, keeps the operator process alive, does the faults that were asked for,
merges metrics and shows what happens. It decides nothing about the run: that is the operator's work, and whatever
the supervisor wants of it (start, edit, stop) it writes down as the desired manifest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from trainrun_api.stages import is_chain_as_written

from trainrun_operator.clock import SystemClock
from trainrun_operator.cluster import Object
from trainrun_operator.errors import LocalModeError
from trainrun_operator.local.child import OperatorChild
from trainrun_operator.local.disk import read_json, write_json
from trainrun_operator.local.faults import FaultMaker, Plan
from trainrun_operator.local.journal import Journal
from trainrun_operator.local.layout import LOCK, RunDir
from trainrun_operator.local.merge import MetricsFile
from trainrun_operator.local.observer import Observer, Snapshot
from trainrun_operator.local.order import (
    Exit,
    Order,
    checked_manifest,
    earlier_start,
    number_of_slots,
    planned_faults,
    refuse_without_parent,
    result_of,
    verdict_of,
)
from trainrun_operator.local.state import ask_progress, durable_step, end_pods, has_workload, kill_pods, live_pods
from trainrun_operator.local.stopping import StopRequests
from trainrun_operator.local.tailing import Follower
from trainrun_operator.local.workdir import lock_workdir
from trainrun_operator.provenance.manifest import run_manifest
from trainrun_operator.report import write_report

TICK_SECONDS = 0.05
"""How fast a held worker is noticed; a tick reads a few small files."""
SNAPSHOT_SECONDS = 0.5
CLEANUP_SECONDS = 30.0
"""After the verdict the operator clears the last pods away; a run that is over does not wait for ever for that."""


def supervise(order: Order, observer: Observer) -> Exit:
    """Run a manifest to its end.

    Raises ManifestRefusedError, UnknownFaultError, WorkdirInUseError, LocalModeError.
    """
    manifest = checked_manifest(order.file)
    plan = planned_faults(order.faults, manifest["spec"])
    run_dir = RunDir(order.workdir.resolve() / manifest["metadata"]["name"])
    with lock_workdir(order.workdir, LOCK), StopRequests() as stops:
        earlier = earlier_start(run_dir, manifest)
        if earlier is not None and result_of(earlier) is not None:
            if not is_chain_as_written(manifest["spec"]):
                return _say_over(run_dir, earlier, observer)
            observer.say(f"{run_dir.name}: begins anew; stages that are complete and unchanged stay done")
            run_dir.forget()
            earlier = None
        if earlier is None:
            refuse_without_parent(manifest, order.workdir)
        run_dir.make()
        folder = str((order.folder or order.file.resolve().parent).resolve())
        desired = {"manifest": manifest, "folder": folder, "nodes": number_of_slots(order, manifest["spec"])}
        return Supervisor(run_dir, desired, plan, observer, stops).run()


class Supervisor:
    """The main loop; everything it must remember is on disk."""

    def __init__(
        self, run_dir: RunDir, desired: dict[str, Any], plan: Plan, observer: Observer, stops: StopRequests
    ) -> None:
        self._dir = run_dir
        self._desired = desired
        self._wanted: Object = desired["manifest"]
        self._observer = observer
        self._stops = stops
        self._told_stops = 0
        self._journal = Journal(run_dir.events, run_dir.name, SystemClock())
        self._faults = FaultMaker(run_dir, plan)
        self._child = OperatorChild(run_dir)
        self._metrics = MetricsFile(run_dir)
        self._events = Follower(run_dir.events)
        self._next_snapshot = 0.0
        self._over_since: float | None = None
        self._last_decision: dict[str, Any] = {}
        self._save_error: str | None = None
        self._inplace_restarts = 0

    def run(self) -> Exit:
        """Until the run is over, or stopped as asked."""
        self._events.skip_to_end()
        self._announce()
        self._faults.arm()
        write_json(self._dir.desired, self._desired)
        try:
            while True:
                ending = self._child.keep_alive()
                if ending is not None:
                    self._tell({"type": "operator", "reason": "OperatorDied", "message": ending})
                for record in self._faults.act(self._child.pid):
                    self._tell(record)
                self._heed_stop_requests()
                self._show()
                code = self._exit_code()
                if code is not None:
                    return code
                time.sleep(TICK_SECONDS)
        except LocalModeError:
            end_pods(self._dir, float(self._desired["manifest"]["spec"].get("terminationGracePeriodSeconds", 120)))
            raise
        finally:
            self._child.stop()
            self._finish()

    def _announce(self) -> None:
        spec = self._desired["manifest"]["spec"]
        adopted = live_pods(self._dir)
        if adopted:
            self._observer.say(f"{self._dir.name}: {len(adopted)} pods of an earlier start train on and are adopted")
        elif durable_step(self._dir) is not None:
            self._observer.say(f"{self._dir.name}: goes on from the checkpoint of step {durable_step(self._dir)}")
        self._observer.say(
            f"{self._dir.name}: {self._desired['nodes']} slots, image {spec['image']} stands for this Python, "
            f"everything is in {self._dir.root}"
        )

    def _tell(self, record: dict[str, Any]) -> None:
        self._journal(record)

    def _show(self) -> None:
        """New lines of events.jsonl, new metrics, and twice a second the state."""
        for record in self._metrics.refresh():
            self._tell(record)
        for line in self._events.read():
            if line.get("type") == "decision":
                self._last_decision = line
            self._observer.event(line)
        moment = time.monotonic()
        run = read_json(self._dir.status) if moment >= self._next_snapshot else None
        if run is not None:
            progress = ask_progress(self._dir)
            self._note_trouble(progress)
            self._observer.snapshot(Snapshot(run, progress, self._last_decision))
            self._next_snapshot = moment + SNAPSHOT_SECONDS

    def _note_trouble(self, progress: Mapping[str, Any]) -> None:
        """What the pods mend by themselves is no matter of the operator, but it must not pass unseen."""
        error, restarts = progress.get("save_error"), int(progress.get("inplace_restarts") or 0)
        where = {"type": "event", "severity": "Warning", "attempt": progress.get("attempt")}
        if error is not None and error != self._save_error:
            message = f"a checkpoint could not be saved, training goes on and tries again at the next one: {error}"
            self._tell({**where, "reason": "SaveFailed", "message": message})
        if restarts > self._inplace_restarts:
            message = f"a worker died; the group started again within its pods ({restarts} so far in this attempt)"
            self._tell({**where, "reason": "RestartedInPlace", "message": message})
        if progress:
            self._save_error, self._inplace_restarts = error, restarts

    def _heed_stop_requests(self) -> None:
        if self._stops.count == self._told_stops:
            return
        self._told_stops = self._stops.count
        if self._stops.count == 1:
            self._observer.say("stopping: the workers save a checkpoint first (again: what is waited for)")
            self._wish_suspended()
        elif self._stops.count == 2:
            names = ", ".join(pod.name for pod in live_pods(self._dir)) or "the operator"
            self._observer.say(
                f"still waiting for {names} to save and end (again: kill them; the last checkpoint stays)"
            )
        else:
            kill_pods(self._dir)

    def _wish_suspended(self) -> None:
        manifest = self._desired["manifest"]
        self._wanted = {**manifest, "spec": {**manifest["spec"], "suspend": True}}
        write_json(self._dir.desired, {**self._desired, "manifest": self._wanted})

    def _exit_code(self) -> Exit | None:
        """None while the run goes on."""
        run = read_json(self._dir.status)
        status = (run or {}).get("status") or {}
        if run is None or not self._is_heeded(run):
            if self._stops.count > 2 and not live_pods(self._dir):
                return self._say_stopped()
            return None
        result = status.get("result")
        if result is not None and self._is_cleared_away():
            return self._say_result(run)
        is_resting = status.get("phase") == "Suspended" and not has_workload(self._dir)
        if is_resting or (self._stops.count > 2 and not live_pods(self._dir)):
            return self._say_stopped()
        return None

    def _is_heeded(self, run: Object) -> bool:
        """Whether the operator has seen what we want now: what it says of an earlier wish is old news."""
        wanted = self._wanted["spec"]
        observed = (run.get("status") or {}).get("observedGeneration")
        return bool(run["spec"] == wanted and observed == run["metadata"]["generation"])

    def _is_cleared_away(self) -> bool:
        """After the verdict: no pod lives. What the operator does not end in time is killed."""
        if not live_pods(self._dir):
            return True
        self._over_since = self._over_since or time.monotonic()
        if time.monotonic() - self._over_since > CLEANUP_SECONDS:
            kill_pods(self._dir)
        return False

    def _say_result(self, run: Object) -> Exit:
        self._show()
        self._observer.say(f"{self._dir.name}: {verdict_of(run)}")
        attempts = run["status"].get("attempts") or []
        if len(attempts) > len(run["status"].get("stages") or []) + 1:
            self._observer.say(f"why it restarted: trainrun explain {self._dir.name} --workdir {self._dir.root.parent}")
        return Exit.SUCCEEDED if run["status"]["result"] == "Succeeded" else Exit.FAILED

    def _say_stopped(self) -> Exit:
        self._show()
        step = durable_step(self._dir)
        where = f"the checkpoint of step {step} is durable" if step is not None else "no checkpoint was committed yet"
        if self._stops.count:
            self._observer.say(f"{self._dir.name}: stopped, {where}; the same command goes on from there")
        else:
            self._observer.say(f"{self._dir.name}: spec.suspend is true, {where}; set it to false and run it again")
        return Exit.STOPPED

    def _finish(self) -> None:
        """Last lines and the report; also after a failure, which is when people read it."""
        for record in self._metrics.refresh(is_final=True):
            self._tell(record)
        for fault in self._faults.unfired():
            self._observer.say(f"{self._dir.name}: fault {fault} has not happened yet")
        for line in self._events.read():
            self._observer.event(line)
        self._observer.close()
        run = read_json(self._dir.status)
        if run is not None:
            made = run_manifest(run, self._dir.checkpoints, self._desired["folder"])
            write_json(self._dir.manifest, made)
        self._observer.say(f"report: {write_report(self._dir.root)}")


def _say_over(run_dir: RunDir, run: Object, observer: Observer) -> Exit:
    """A run that has ended is not started again."""
    observer.say(
        f"{run_dir.name}: {verdict_of(run)}; nothing is done. To run it again give it another name or --workdir, "
        f"or remove {run_dir.root}"
    )
    return Exit.SUCCEEDED if result_of(run) == "Succeeded" else Exit.FAILED
