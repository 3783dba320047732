"""A stage that trains: its references, its own checkpoint store, and its record before and after. Called by rank 0.

The store's folder is named by a hash without what may change on resume, so that a raised `total_steps` goes on in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainrun_api.contract import CheckpointLayout, ExitCode, Outcome
from trainrun_api.data_config import identity
from trainrun_api.stages import TRAIN
from trainrun_api.train_config import TrainConfig

from trainrun_trainer.claims import Claim
from trainrun_trainer.corpus.texts import Texts
from trainrun_trainer.environment import Environment
from trainrun_trainer.errors import StorageRefused
from trainrun_trainer.resume import CHANGEABLE
from trainrun_trainer.settings import parse
from trainrun_trainer.stages.hashes import NAMED_CHARACTERS, Seen, checkpoint_files, hash_of, model_files, outside
from trainrun_trainer.stages.records import DONE, Records, StageRecord, now, shared_root, told
from trainrun_trainer.stages.references import References
from trainrun_trainer.stages.texts import data_place, texts_of
from trainrun_trainer.storage import LocalDirectory, OpenStorage


@dataclass(frozen=True)
class Entered:
    """What all ranks must know before they set up."""

    config: TrainConfig
    """With folders for references."""
    root: str
    texts: Texts
    folder: str
    """The stage's checkpoint store."""
    claim: Claim | None
    record: StageRecord
    started: float
    """Monotonic, of rank 0."""
    outcome: Outcome | None
    """Of a stage that is done already: nothing is to be set up."""

    def environment(self, env: Environment) -> Environment:
        """Orders as of a run that is nothing but this stage; the prepared data lies in the root."""
        checkpoint = env.checkpoint.model_copy(update={"path": self.folder})
        return replace(env, config=self.config, checkpoint=checkpoint, data_path=self.root, texts=self.texts)


def enter(env: Environment, open_storage: OpenStorage) -> Entered:
    """Look up references, find out whether all is done, take the stage's next claim. Raises TrainerError."""
    assert env.stage is not None
    root = shared_root(env.stage.root, open_storage)
    try:
        return _enter(env, root, env.stage.name)
    except OSError as error:
        raise StorageRefused(f"stage {env.stage.name}: {root.address('')} cannot be used: {error}") from error


@dataclass(frozen=True)
class _Sight:
    """What the stage is to be made from now; nothing is claimed or written yet."""

    references: References
    config: TrainConfig
    texts: Texts
    input: str
    config_hash: str
    models: Seen


def done_before(env: Environment, records: Records) -> Outcome | None:
    """What the stage returns if it is done already. Raises TrainerError, OSError."""
    record = records.repeat_done(_look(env, records).config_hash, env.owner)
    return None if record is None else record.said_again()


def _look(env: Environment, records: Records) -> _Sight:
    references = References(records.root)
    named = {**env.config.model_dump(mode="json", exclude_defaults=True), "data": identity(env.config.data)}
    references.find(named)
    seen = records.seen()
    files = dict(outside({"model": named["model"]}, seen))
    lasting = {field: value for field, value in named.items() if field not in CHANGEABLE}

    def hash_with(config: Mapping[str, Any], texts: str) -> str:
        return hash_of({"kind": TRAIN, "config": references.as_hashes(config), "files": files, "texts": texts})

    def input_of(texts: str) -> str:
        return hash_with(lasting, texts)[:NAMED_CHARACTERS]

    def resolved() -> TrainConfig:
        return parse(TrainConfig, references.as_paths(env.config.model_dump(mode="json")), "config.")

    begun = records.newest_on_any_text(input_of)
    references.keep_places(begun)
    texts = texts_of(resolved().data, records, begun)
    config_hash, short = hash_with(named, texts.hash), input_of(texts.hash)
    references.keep_places(records.newest_of(short))
    return _Sight(references, resolved(), texts, short, config_hash, seen)


def _enter(env: Environment, root: LocalDirectory, name: str) -> Entered:
    started, records = time.monotonic(), Records(root, name)
    sight = _look(env, records)
    config, texts = sight.config, sight.texts
    done = records.repeat_done(sight.config_hash, env.owner)
    if done is not None:
        return Entered(config, str(root.root), texts, "", None, done, started, done.said_again())
    claim, folder = records.begin(env.owner), f"{records.place}/{sight.input}"
    record = StageRecord(
        name=name, kind=TRAIN, input=sight.input, config_hash=sight.config_hash, folder=folder,
        **records.begun(sight.input), config=config.model_dump(mode="json"), references=sight.references.hashes,
        paths=sight.references.paths, seen=sight.models, texts=texts.hash, data=data_place(config.data, texts),
    )  # fmt: skip
    record = records.write(claim, record)
    return Entered(config, str(root.root), texts, root.address(folder), claim, record, started, None)


def leave(entered: Entered, outcome: Outcome, open_storage: OpenStorage) -> None:
    """The record of how it ended. Raises Fenced if another start has taken over, StorageRefused."""
    assert entered.claim is not None
    root = shared_root(entered.root, open_storage)
    record = replace(entered.record, seconds=entered.record.seconds + time.monotonic() - entered.started)
    try:
        if outcome.exit_code == ExitCode.DONE:
            record = replace(record, **_done(root, record.folder), outcome=told(outcome))
        Records(root, record.name).write(entered.claim, record)
    except OSError as error:
        raise StorageRefused(f"stage {record.name}: its record cannot be written: {error}") from error


def _done(root: LocalDirectory, folder: str) -> Mapping[str, Any]:
    store = LocalDirectory(root.folder(folder))
    export = f"{folder}/{CheckpointLayout.EXPORT}"
    made = model_files(root.folder(export), CheckpointLayout.EXPORT)
    return {"state": DONE, "result": export, "outputs": made | checkpoint_files(store), "ended_at": now()}
