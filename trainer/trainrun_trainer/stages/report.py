"""Kind report: one page about the stages before it."""

from __future__ import annotations

from pathlib import Path

from trainrun_api.contract import CheckpointLayout

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.reporting.page import write_report
from trainrun_trainer.stages.records import DONE, Records, StageRecord
from trainrun_trainer.storage import LocalDirectory
from trainrun_trainer.units import Units


def subjects(root: LocalDirectory, own_name: str, names: list[str] | None) -> dict[str, StageRecord]:
    """The named stages, or all others that are done, in the order in which they ended. Raises ConfigError."""
    if names is None:
        found = [Records(root, name).done() for name in root.list(CheckpointLayout.STAGES) if name != own_name]
        done = sorted((r for r in found if r is not None and r.kind != "report"), key=lambda r: r.ended_at or "")
        return {record.name: record for record in done}
    records = {name: Records(root, name).done() for name in names}
    missing = [name for name, record in records.items() if record is None]
    if missing:
        raise ConfigError(f"config.stages: stage {missing[0]} has no result here; run that stage first")
    return {name: record for name, record in records.items() if record is not None and record.state == DONE}


def run(root: LocalDirectory, names: list[str], title: str, out: Path, units: Units) -> str:
    """The page, below `out`."""
    units.expect(1)
    write_report(root.root, names, title, out)
    units.done()
    return ""
