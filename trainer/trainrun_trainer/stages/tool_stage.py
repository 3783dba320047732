"""A stage that is not training: done already, or done now into a folder of this start's own, which its record names.

A crash before the record costs the work of this start; the next one removes what it left.
"""

from __future__ import annotations

import time
from dataclasses import replace

from trainrun_api.contract import CAUSE_OF_EXIT, CheckpointLayout, ExitCode, Outcome

from trainrun_trainer.claims import refuse_if_fenced
from trainrun_trainer.corpus.texts import again_if_texts_change
from trainrun_trainer.environment import ToolEnvironment
from trainrun_trainer.errors import StorageRefused
from trainrun_trainer.stages.hashes import Seen, files_of, model_files
from trainrun_trainer.stages.records import DONE, Records, StageRecord, now, shared_root, told
from trainrun_trainer.stages.telling import StopAsked, ToldUnits
from trainrun_trainer.stages.tools import MODEL
from trainrun_trainer.stages.work import Work, done_before, work_of
from trainrun_trainer.storage import LocalDirectory, OpenStorage


def run_stage(env: ToolEnvironment, open_storage: OpenStorage) -> Outcome:
    """Do the stage, unless that was done before. Raises TrainerError and whatever crashes."""
    root = shared_root(env.stage.root, open_storage)
    records = Records(root, env.stage.name)
    try:
        return again_if_texts_change(lambda: _once(records, env))
    except OSError as error:
        raise StorageRefused(
            f"stage {env.stage.name}: {root.address(records.place)} cannot be used: {error}"
        ) from error


def _once(records: Records, env: ToolEnvironment) -> Outcome:
    units, seen = ToldUnits(env), records.seen()
    work = work_of(env, records.root, seen)
    return done_before(records, work, env) or _do(records, work, env, units, seen)


def _do(records: Records, work: Work, env: ToolEnvironment, units: ToldUnits, seen: Seen) -> Outcome:
    root, stage, started = records.root, env.stage, time.monotonic()
    claim = records.begin(env.owner)
    records.remove_leftovers(claim)
    place = work.place or f"{records.place}/{work.input}-c{claim.k}"
    record = StageRecord(
        name=stage.name, kind=stage.kind, input=work.input, config_hash=work.input, folder=place,
        **records.begun(work.input), config=work.config, references=work.references.hashes, paths=work.references.paths,
        seen=seen, texts=work.texts, data=work.place,
    )  # fmt: skip
    records.write(claim, record)
    out = root.folder(place)
    try:
        out.mkdir(parents=True, exist_ok=work.place is not None)
        below = work.run(out, units)
        root.settle(place)
    except StopAsked as asked:
        records.write(claim, replace(record, seconds=record.seconds + time.monotonic() - started))
        return _outcome(asked.code, f"stage {stage.name} was stopped, as asked; it begins anew", units)
    except OSError:
        refuse_if_fenced(records.storage, claim)  # a newer start has removed what this one was writing
        raise
    outcome = _outcome(ExitCode.DONE, f"stage {stage.name} is done", units)
    records.write(
        claim,
        replace(
            record, state=DONE, result=f"{place}/{below}".rstrip("/"), outputs=_outputs(root, place, below, stage.kind),
            ended_at=now(), seconds=record.seconds + time.monotonic() - started, outcome=told(outcome),
        ),
    )  # fmt: skip
    return outcome


def _outputs(root: LocalDirectory, place: str, below: str, kind: str) -> dict[str, str]:
    """Of a model the files that make it what it is; of prepared data its manifest, which has the hashes of the rest."""
    if kind == "prepare":
        return {CheckpointLayout.MANIFEST: root.hash(f"{place}/{CheckpointLayout.MANIFEST}")["xxh3"]}
    folder = root.folder(place)
    return model_files(folder / MODEL, MODEL) if below else files_of(folder)


def _outcome(code: int, message: str, units: ToldUnits) -> Outcome:
    return Outcome(
        exit_code=int(code), cause=CAUSE_OF_EXIT[code], message=message, step=units.finished, target_step=units.total
    )
