"""Kind report: one page about the stages before it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.stages.records import Records, StageRecord
from trainrun_trainer.storage import LocalDirectory
from trainrun_trainer.units import Units


def subjects(root: LocalDirectory, names: Sequence[str]) -> dict[str, StageRecord]:
    """The records of the named stages. Raises ConfigError if one is not done."""
    records = {name: Records(root, name).done() for name in names}
    missing = [name for name, record in records.items() if record is None]
    if missing:
        raise ConfigError(f"config.stages: stage {missing[0]} has no result here; run that stage first")
    return {name: record for name, record in records.items() if record is not None}


def run(root: LocalDirectory, names: list[str], title: str, out: Path, units: Units) -> str:
    """The page, as report.html below `out`."""
    from trainrun_trainer.reporting.page import write_report  # torch, as in tools

    units.expect(1)
    write_report(root.root, names, title, out)
    units.done()
    return ""
