"""What a stage that is not training is to do: its configuration, what it is made from, and the program that does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainrun_api.contract import Outcome
from trainrun_api.data_config import identity
from trainrun_api.stage_config import STAGE_CONFIGS, ConsolidateStage, EvaluateStage, MergeStage, ReportStage
from trainrun_api.train_config import TrainConfig

from trainrun_trainer.environment import ToolEnvironment
from trainrun_trainer.settings import parse
from trainrun_trainer.stages import report, tools
from trainrun_trainer.stages.hashes import NAMED_CHARACTERS, Seen, hash_of, outside
from trainrun_trainer.stages.records import Records
from trainrun_trainer.stages.references import References
from trainrun_trainer.stages.texts import data_place, texts_of
from trainrun_trainer.storage import LocalDirectory
from trainrun_trainer.units import Units


@dataclass(frozen=True)
class Work:
    """One stage, ready to be done."""

    input: str
    config: dict[str, Any]
    """With folders for references."""
    references: References
    run: Callable[[Path, Units], str]
    """Write below the folder; returns where below it the result lies."""
    place: str | None = None
    """Folder below the root that the work chooses itself, for prepared data; None: one for each attempt."""
    texts: str = ""
    """Hash of the text that it is prepared from."""


def done_before(records: Records, work: Work, env: ToolEnvironment) -> Outcome | None:
    """What the stage returns if just this is done already, its record then being the newest. Raises Fenced."""
    record = records.repeat_done(work.input, env.owner)
    return None if record is None else record.said_again()


def work_of(env: ToolEnvironment, root: LocalDirectory, seen: Seen) -> Work:
    """Read the configuration and look up its references; `seen` is used and added to. Raises ConfigError."""
    kind = env.stage.kind
    if kind == "prepare":
        return _prepare(env, root)
    config = parse(STAGE_CONFIGS[kind], env.config, "config.")
    named = config.model_dump(mode="json", exclude_defaults=True)
    references = References(root)
    references.find(named)
    made_from: dict[str, Any] = {
        "kind": kind,
        "config": references.as_hashes(named),
        "files": dict(outside(named, seen)),
    }
    resolved = parse(STAGE_CONFIGS[kind], references.as_paths(named), "config.")
    run: Callable[[Path, Units], str]
    if isinstance(resolved, EvaluateStage):
        run = partial(tools.run_evaluate, resolved)
    elif isinstance(resolved, ConsolidateStage):
        run = partial(tools.run_consolidate, resolved)
    elif isinstance(resolved, MergeStage):
        run = partial(tools.run_merge, resolved)
    else:
        assert isinstance(resolved, ReportStage)
        found = report.subjects(root, resolved.stages or ())  # whoever wrote none was given all earlier ones
        made_from["stages"] = [[name, of.config_hash, of.outputs] for name, of in found.items()]
        run = partial(report.run, root, list(found), resolved.title or env.run)
    return Work(hash_of(made_from)[:NAMED_CHARACTERS], resolved.model_dump(mode="json"), references, run)


def _prepare(env: ToolEnvironment, root: LocalDirectory) -> Work:
    named = parse(TrainConfig, env.config, "config.").data
    references = References(root)
    references.find({"data": named.model_dump(mode="json")})
    resolved = references.as_paths({"data": named.model_dump(mode="json")})
    data = parse(TrainConfig, {**env.config, **resolved}, "config.").data
    made_from = {"kind": "prepare", "config": references.as_hashes(identity(named))}

    def input_of(texts: str) -> str:
        return hash_of({**made_from, "texts": texts})[:NAMED_CHARACTERS]

    records = Records(root, env.stage.name)
    texts = texts_of(data, records, records.newest_on_any_text(input_of))

    def run(out: Path, units: Units) -> str:
        from trainrun_trainer.prepare import prepare  # as tools does

        prepare(data, root, units, texts)
        return ""

    return Work(input_of(texts.hash), resolved, references, run, data_place(data, texts), texts.hash)
