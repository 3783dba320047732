"""What a stage has left below `<root>/stages/<name>/`: a claim and a record for each start, and `stage.json`.

Each start takes the next claim, exclusively, as worker groups do in a checkpoint store, and writes only the record of
its own number. Readers look at the numbers, so a start that was thought dead can spoil nothing. `stage.json` is a copy
of the newest record, for people and pages.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trainrun_api.contract import SCHEMA, CheckpointLayout, Outcome, Record

from trainrun_trainer.claims import Claim, Owner, read_claims, refuse_if_fenced, try_claim
from trainrun_trainer.errors import ConfigError, StorageRefused
from trainrun_trainer.logs import log
from trainrun_trainer.stages.hashes import Seen
from trainrun_trainer.storage import LocalDirectory, Storage

RECORDS = "records"
RUNNING, DONE = "running", "done"
CLAIM_TRIES = 20
"""Two starts at once lose a few races for a number; more is no accident."""


@dataclass(frozen=True)
class StageRecord(Record):
    """One start of a stage. Places are relative to the root."""

    schema: int = SCHEMA
    name: str = ""
    kind: str = ""
    state: str = RUNNING
    claim: int = 0
    input: str = ""
    """Hash of all that the result depends on; of training without what may change on resume."""
    config_hash: str = ""
    """Of all of it: a stage is done when this is equal."""
    folder: str = ""
    result: str | None = None
    """What stage:NAME means; None while it runs."""
    outputs: dict[str, str] = field(default_factory=dict)
    """File below `folder` to its xxh3."""
    texts: str = ""
    """Hash of the text that its data is prepared from."""
    data: str | None = None
    """The prepared data that it makes or uses."""
    started_at: str = ""
    ended_at: str | None = None
    seconds: float = 0.0
    """Of its attempts, as far as they told their end."""
    outcome: dict[str, Any] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    """stage:NAME to the hash of what it meant."""
    paths: dict[str, str] = field(default_factory=dict)
    """stage:NAME to the folder that it meant."""
    seen: Seen = field(default_factory=dict)
    """Models from elsewhere."""

    def is_whole(self, root: LocalDirectory) -> bool:
        """Whether the result is still what was written; other outputs may have been tidied away."""
        below = (self.result or "").removeprefix(self.folder).lstrip("/")
        names = [name for name in self.outputs if name.startswith(below)]
        try:
            return all(root.hash(f"{self.folder}/{name}")["xxh3"] == self.outputs[name] for name in names)
        except FileNotFoundError:
            return False

    def said_again(self) -> Outcome:
        """What a repeated attempt of a done stage returns."""
        told = self.outcome or {}
        return Outcome.from_dict(
            {**told, "message": f"stage {self.name} is done already", "durable_checkpoint": told["final_checkpoint"]}
        )


def told(outcome: Outcome) -> dict[str, Any]:
    """What a repeated attempt says again."""
    facts = asdict(outcome)
    return {name: facts[name] for name in ("exit_code", "cause", "step", "target_step", "final_checkpoint")}


def now() -> str:
    """For people."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def shared_root(path: str, open_storage: Callable[[str], Storage]) -> LocalDirectory:
    """The folder that all stages share. Raises ConfigError if it is none."""
    root = open_storage(path)
    if not isinstance(root, LocalDirectory):
        raise ConfigError(f"checkpoint.path={path}: a run of several stages needs a folder that its workers share")
    return root


class Records:
    """The records of one stage."""

    def __init__(self, root: LocalDirectory, name: str) -> None:
        self.root, self.name = root, name
        self.place = f"{CheckpointLayout.STAGES}/{name}"
        self.storage = root.below(self.place)

    def all(self) -> list[StageRecord]:
        """Of all starts, the oldest first."""
        found = []
        for file in self.storage.list(RECORDS):
            try:
                found.append(StageRecord.from_dict(json.loads(self.storage.get(f"{RECORDS}/{file}"))))
            except (ValueError, TypeError, AttributeError) as error:
                place = self.storage.address(f"{RECORDS}/{file}")
                raise StorageRefused(f"{place} is no record of a stage ({error}); restore or remove it") from error
        return sorted(found, key=lambda record: record.claim)

    def done(self) -> StageRecord | None:
        """Of the newest start, if that is done: what later stages may use."""
        newest = max((int(claim["k"]) for claim in read_claims(self.storage)), default=0)
        return next((r for r in reversed(self.all()) if r.claim == newest and r.state == DONE), None)

    def done_before(self, config_hash: str) -> StageRecord | None:
        """The newest one that did just this, if nothing has been written into its folder since."""
        folders = set()
        for record in reversed(self.all()):
            if record.state == DONE and record.config_hash == config_hash and record.folder not in folders:
                return record
            folders.add(record.folder)
        return None

    def newest_of(self, input_hash: str) -> StageRecord | None:
        """Of the newest start with that input, done or not."""
        return next((record for record in reversed(self.all()) if record.input == input_hash), None)

    def newest_on_any_text(self, input_of: Callable[[str], str]) -> StageRecord | None:
        """Of the newest start whose input is `input_of(its text)`."""
        return next((record for record in reversed(self.all()) if record.input == input_of(record.texts)), None)

    def seen(self) -> Seen:
        """What the newest start knew of models from elsewhere."""
        return next((dict(record.seen) for record in reversed(self.all())), {})

    def begun(self, input_hash: str) -> dict[str, Any]:
        """When the first start with that input began, and the time that went into them so far."""
        earlier = self.newest_of(input_hash)
        return {"started_at": earlier.started_at, "seconds": earlier.seconds} if earlier else {"started_at": now()}

    def begin(self, owner: Owner) -> Claim:
        """Take the next number. Raises Fenced if a later attempt has been here."""
        for _ in range(CLAIM_TRIES):
            claim = try_claim(self.storage, read_claims(self.storage), owner, None)
            if claim is not None:
                return claim
        raise StorageRefused(f"{self.place}: other starts of this stage keep taking the next claim")

    def write(self, claim: Claim, record: StageRecord) -> StageRecord:
        """This start's own record, and the copy. Raises Fenced if another start has taken over."""
        refuse_if_fenced(self.storage, claim)
        record = replace(record, claim=claim.k)
        self.storage.put(f"{RECORDS}/{claim.k}.json", record.to_json().encode())
        self.publish()
        return record

    def publish(self) -> None:
        """Make `stage.json` the newest record; again if a newer one came meanwhile, as for a start that slept."""
        told = None
        while (newest := next(reversed(self.all()), None)) != told:
            assert newest is not None
            self.storage.put(CheckpointLayout.STAGE_RECORD, newest.to_json().encode())
            told = newest

    def repeat(self, done: StageRecord, owner: Owner) -> StageRecord:
        """A done record becomes the newest one, if it is not."""
        if self.done() == done:
            self.publish()
            return done
        return self.write(self.begin(owner), done)

    def repeat_done(self, config_hash: str, owner: Owner) -> StageRecord | None:
        """The record of a start that did just this and whose result is whole, the newest one now. Raises Fenced."""
        found = self.done_before(config_hash)
        if found is None or not found.is_whole(self.root):
            return None
        log("stage-done-already", stage=self.name, claim=found.claim)
        return self.repeat(found, owner)

    def remove_leftovers(self, claim: Claim) -> None:
        """Output folders of earlier starts that did not end; never one that a newer start may be writing."""
        kept = {record.folder for record in self.all() if record.state == DONE}
        for name in self.storage.list(""):
            _, mark, number = name.rpartition("-c")
            is_older = bool(mark) and number.isdigit() and int(number) < claim.k
            if is_older and f"{self.place}/{name}" not in kept:
                refuse_if_fenced(self.storage, claim)
                self.storage.delete(name)
