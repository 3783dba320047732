"""Which documents a step reads: from the order function and the data manifest, and proved by the run's own digests.

python -m trainrun_trainer.explain_step 4711 --checkpoint s3://bucket/prefix [--stage NAME] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from trainrun_api import lineage
from trainrun_api.contract import CheckpointLayout
from trainrun_api.stages import TRAIN
from trainrun_api.train_config import TrainConfig

from trainrun_trainer.claims import read_claims
from trainrun_trainer.errors import ConfigError, DataError, TrainerError
from trainrun_trainer.manifest import Invalid, read_manifest
from trainrun_trainer.packing import PADDING
from trainrun_trainer.plan import make_plan
from trainrun_trainer.prepared import DataManifest, open_beside
from trainrun_trainer.rows import U64_MASK, TrainRows, row_hash
from trainrun_trainer.stages.records import Records, shared_root
from trainrun_trainer.state import TrainState
from trainrun_trainer.storage import Storage
from trainrun_trainer.stores import open_storage

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Piece:
    """Part of a document in a row of the step."""

    position: int
    """Place in the run's row sequence."""
    source: str
    row: int
    epoch: int
    """How often the run has drawn this row before."""
    document: int
    file: str
    line: int | None
    first_token: int
    """Of the document."""
    tokens: int


@dataclass(frozen=True)
class RunData:
    """A run's configuration and data, as its newest checkpoint has them."""

    config: TrainConfig
    data: DataManifest
    rows: TrainRows

    def rows_sum(self, step: int) -> int:
        """What the ranks' sums of the step must add up to."""
        positions = self.positions(step)
        drawn = self.rows.order.rows(positions)
        return sum(row_hash(p, s, r) for p, (s, r) in zip(positions, drawn, strict=True)) & U64_MASK

    def positions(self, step: int) -> range:
        """Places of a step (1-based) in the run's row sequence."""
        rows = self.config.global_batch_rows
        return range((step - 1) * rows, step * rows)


def open_run(storage: Storage) -> RunData:
    """Raises ConfigError if the store holds no checkpoint, DataError if it has lost the data."""
    places = [place for name in storage.list("") if (place := CheckpointLayout.parse_step_dir(name))]
    for step, claim in sorted(places, key=lambda place: (place[1], place[0]), reverse=True):
        manifest = read_manifest(storage, step, claim)
        if manifest is None or isinstance(manifest, Invalid):
            continue
        config = TrainConfig.model_validate(manifest["config"])
        data = open_beside(manifest["data_hash"], storage)
        if data is None:
            raise DataError(f"{storage.address('data/' + manifest['data_hash'])}: the data of step {step} is not there")
        return RunData(config, data, TrainRows(config.data, data, make_plan(config, "auto", 1), config.seed, CPU))
    raise ConfigError(
        f"{storage.address('')} holds no valid checkpoint; give checkpoint.path of a run that has saved one"
    )


def store_of(path: str, stage: str | None) -> Storage:
    """Where the steps are: checkpoint.path itself, or the store of a stage that trains. Raises ConfigError."""
    storage = open_storage(path)
    names = storage.list(CheckpointLayout.STAGES)
    if not names:
        if stage is not None:
            raise ConfigError(f"{storage.address('')} is no run of several stages; leave --stage={stage} out")
        return storage
    root = shared_root(path, open_storage)
    newest = {name: records[-1] for name in names if (records := Records(root, name).all())}
    folders = {name: record.folder for name, record in newest.items() if record.kind == TRAIN}
    if not folders:
        raise ConfigError(f"{storage.address('')}: no stage has trained yet")
    if stage is None and len(folders) == 1:
        [stage] = folders
    choice = " or ".join(folders)
    if stage is None:
        several = f"{len(folders)} stages have trained, each with steps of its own"
        raise ConfigError(f"{storage.address('')}: {several}; give --stage {choice}")
    if stage not in folders:
        raise ConfigError(f"--stage={stage} is no stage that has trained; give --stage {choice}")
    return root.below(folders[stage])


def pieces_of(run: RunData, step: int) -> Iterator[Piece]:
    """The documents of a step, in the order of its rows."""
    names = run.data.source_names
    positions = run.positions(step)
    drawn = run.rows.order.rows(positions)
    wanted: dict[int, set[int]] = {}
    for source, row in drawn:
        wanted.setdefault(source, set()).update(run.rows.sources[source].segments(row)[:, 0].tolist())
    entries = {source: _entries(run.data, names[source], documents) for source, documents in wanted.items()}
    for position, (source, row) in zip(positions, drawn, strict=True):
        segments = run.rows.sources[source].segments(row)
        ends = [*segments[1:, 1].tolist(), run.config.data.row_tokens]
        epoch = run.rows.order.epoch(position)
        for (document, start, offset), end in zip(segments.tolist(), ends, strict=True):
            if document != PADDING:
                entry = entries[source][document]
                yield Piece(
                    position, names[source], row, epoch, document, entry["file"], entry["line"], offset, end - start
                )


def digests(storage: Storage) -> dict[int, str]:
    """rows_digest of each step that the run reports, along its claims."""
    claims = read_claims(storage)
    lines = {}
    for claim in claims:
        try:
            text = storage.get(CheckpointLayout.metrics(claim["k"])).decode()
        except FileNotFoundError:
            continue
        lines[claim["k"]] = lineage.read_lines(text)
    merged, _ = lineage.merge_metrics(claims, lines)
    return {line["step"]: line["rows_digest"] for line in merged if line.get("rows_digest")}


def first_difference(run: RunData, reported: dict[int, str]) -> int | None:
    """First step whose rows were not those of the order function; None: all that is reported was read exactly so.

    With the order's own property (each row floor or ceil times in any prefix) that is the proof of exactly once per
    epoch, whatever restarts and worker counts there were.
    """
    state = TrainState()
    for step in range(1, max(reported, default=0) + 1):
        state = state.after_step(0, run.rows_sum(step))
        if step in reported and reported[step] != state.rows_digest:
            return step
    return None


def proof(run: RunData, reported: dict[int, str]) -> dict[str, Any]:
    """The verdict over all reported steps, and how often each source's rows were used."""
    steps = max(reported, default=0)
    used: dict[tuple[int, int], int] = {}
    for drawn in run.rows.order.rows(range(steps * run.config.global_batch_rows)):
        used[drawn] = used.get(drawn, 0) + 1
    usage = {}
    for number, name in enumerate(run.data.source_names):
        counts = [used.get((number, row), 0) for row in range(run.rows.sources[number].num_rows)]
        usage[name] = {"rows": len(counts), "fewest": min(counts, default=0), "most": max(counts, default=0)}
    return {"steps": len(reported), "first_difference": first_difference(run, reported), "usage": usage}


def _entries(data: DataManifest, source: str, documents: set[int]) -> dict[int, dict[str, Any]]:
    found = {}
    with open(data.folder / source / "documents.jsonl", encoding="utf-8") as index:
        for number, line in enumerate(index):
            if number in documents:
                found[number] = json.loads(line)
    return found


def explain(path: str, step: int, stage: str | None = None) -> dict[str, Any]:
    """Everything about one step, of that stage in a run of several. Raises TrainerError."""
    if step < 1:
        raise ConfigError(f"step {step}: steps count from 1")
    storage = store_of(path, stage)
    run = open_run(storage)
    return {
        "step": step, "data_hash": run.data.data_hash, "pieces": [asdict(piece) for piece in pieces_of(run, step)],
        "proof": proof(run, digests(storage)),
    }  # fmt: skip


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """For people."""
    yield f"step {found['step']} reads, from data {found['data_hash']}:"
    for piece in found["pieces"]:
        line = "" if piece["line"] is None else f", line {piece['line']}"
        last = piece["first_token"] + piece["tokens"] - 1
        yield (
            f"  {piece['source']} row {piece['row']} (use {piece['epoch'] + 1}): {piece['file']}{line}, "
            f"document {piece['document']}, tokens {piece['first_token']} to {last}"
        )
    proved = found["proof"]
    if proved["first_difference"] is not None:
        yield f"NOT as ordered: step {proved['first_difference']} read other rows than the order function says"
        return
    yield f"proved: the {proved['steps']} steps that the run reports read exactly the rows of the order function"
    for name, usage in proved["usage"].items():
        yield f"  {name}: each of {usage['rows']} rows was read {usage['fewest']} to {usage['most']} times"


def main() -> None:
    """Print it; exit code 1 and one sentence if it cannot be told."""
    parser = argparse.ArgumentParser(prog="trainrun explain-step")
    parser.add_argument("step", type=int)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--stage")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    try:
        found = explain(asked.checkpoint, asked.step, asked.stage)
    except (TrainerError, OSError) as error:
        sys.exit(str(error))
    print(json.dumps(found) if asked.json else "\n".join(lines_of(found)))


if __name__ == "__main__":
    main()
