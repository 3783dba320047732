"""Builds a Run, in the order in which its parts need each other. No step is taken here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from torch.optim import AdamW
from trainrun_api.train_config import TrainConfig

from trainrun_trainer import numerics
from trainrun_trainer.base import base_hash
from trainrun_trainer.checkpoint import Checkpoints
from trainrun_trainer.claims import Claim
from trainrun_trainer.device import open_device
from trainrun_trainer.environment import Environment
from trainrun_trainer.errors import ConfigError, DataError, StorageRefused
from trainrun_trainer.evaluate import HeldOut
from trainrun_trainer.faults import Faults
from trainrun_trainer.fused import fuse
from trainrun_trainer.logs import log
from trainrun_trainer.manifest import config_hash
from trainrun_trainer.metrics import Metrics
from trainrun_trainer.model import attention_of, build_model, refuse_if_documents_leak
from trainrun_trainer.model_fit import refuse_another_tokenizer, refuse_unfit_model
from trainrun_trainer.optimizer import make_optimizer, set_step, state_tensors
from trainrun_trainer.parallel import ParallelDims, Shard, parallel_dims, parallelize
from trainrun_trainer.plan import Plan, make_plan
from trainrun_trainer.prepare import prepare
from trainrun_trainer.prepared import DataManifest, open_prepared
from trainrun_trainer.progress import ProgressWriter
from trainrun_trainer.ranks import Ranks
from trainrun_trainer.recompute import recompute_layers
from trainrun_trainer.resume import CHANGEABLE, Start, take_start
from trainrun_trainer.rows import TrainRows, open_held_out
from trainrun_trainer.state import TrainState
from trainrun_trainer.stop import StopRequests
from trainrun_trainer.storage import OpenStorage, Storage
from trainrun_trainer.tokenizer import load_tokenizer

T = TypeVar("T")


@dataclass
class Run:
    """Everything the loop uses. Only `state` changes."""

    config: TrainConfig
    ranks: Ranks
    plan: Plan
    storage: Storage
    claim: Claim
    data: DataManifest
    model: Any
    shards: list[Shard]
    optimizer: AdamW
    rows: TrainRows
    held_out: HeldOut | None
    checkpoints: Checkpoints
    metrics: Metrics
    progress: ProgressWriter
    stop_requests: StopRequests
    faults: Faults
    state: TrainState
    instants: dict[str, Any] = field(default_factory=dict)
    """Unix times of this group's start, for the recovery table."""


def join(env: Environment) -> Ranks:
    """Device and ranks. Raises ConfigError."""
    return Ranks.join(open_device(env.accelerator, env.local_rank, env.config.threads_per_worker))


def set_up(env: Environment, ranks: Ranks, open_storage: OpenStorage, started: float) -> Run:
    """Claim, data, model, optimizer, checkpoint: a Run that is ready for its next step.

    `started` is the Unix time at which this process began. Raises TrainerError.
    """
    config, device = env.config, ranks.device
    progress = ProgressWriter(env.progress_dir, env.run, env.owner.attempt, env.owner.generation, ranks)
    progress.phase("starting", total_steps=config.total_steps)
    instants: dict[str, Any] = {"process_started": started, "rendezvous_done": time.time()}

    plan = make_plan(config, env.checkpoint.interval, ranks.world_size)
    ranks.decide(lambda: refuse_unfit_model(config))
    dims = parallel_dims(config.parallel, ranks.world_size)
    storage = open_storage(env.checkpoint.path)
    start = ranks.decide(lambda: _refused_by_storage(lambda: take_start(storage, env.resume, env.owner), env))
    data = _prepare_once(env, storage if env.data_path is None else open_storage(env.data_path), ranks, start)
    rows = TrainRows(config.data, data, plan, config.seed, device)
    held_out = _held_out(config, data)

    model, vocab_size = _whole_model(config, data)
    base = _adapt(config, model, ranks)
    is_fused = fuse(model, device)
    refuse_if_documents_leak(model, vocab_size, device)
    recompute_layers(model, config.activation_checkpointing)
    shards = parallelize(model, dims, device)
    optimizer = make_optimizer(shards, config.optimizer)

    described = _describe(config, data, device, ranks, dims, attention_of(model, device), is_fused, base)
    checkpoints = Checkpoints(
        storage, ranks, start.claim, state_tensors(shards, optimizer), described,
        env.checkpoint.keep_last, env.checkpoint.keep_every_steps,
    )  # fmt: skip
    state = _load(start, checkpoints, optimizer, described)
    progress.stopwatch.lap("load")
    progress.phase("starting", step=state.step, tokens=state.tokens)
    progress.saved(checkpoints.durable, None)
    instants |= {"loaded": time.time(), "resumed_from_step": None if start.manifest is None else state.step}
    held = {"pod_index": env.pod_index, "attempt": env.owner.attempt, "generation": env.owner.generation}
    return Run(
        config, ranks, plan, storage, start.claim, data, model, shards, optimizer, rows, held_out, checkpoints,
        Metrics(storage, start.claim, ranks.rank == 0), progress, StopRequests(env.progress_dir),
        Faults(env.faults_dir, ranks.rank, ranks.world_size, held), state, instants,
    )  # fmt: skip


def _refused_by_storage(act: Callable[[], T], env: Environment) -> T:
    try:
        return act()
    except OSError as error:
        raise StorageRefused(f"checkpoint.path={env.checkpoint.path} cannot be used: {error}") from error


def _prepare_once(env: Environment, storage: Storage, ranks: Ranks, start: Start) -> DataManifest:
    data, texts = env.config.data, env.texts
    prepared = ranks.decide(lambda: _refused_by_storage(lambda: _prepare(env, storage, start), env))
    if ranks.rank == 0:
        return prepared
    found = open_prepared(data, storage, texts)
    if found is None or found.facts != prepared.facts:
        raise DataError(
            f"data/{prepared.data_hash} as rank 0 prepared it is not seen here; "
            "checkpoint.path must be one volume that all workers share"
        )
    return found


def _prepare(env: Environment, storage: Storage, start: Start) -> DataManifest:
    """Prepared text whose tokens are the model's; a tokenizer that lies in a folder is looked at before the text.

    A run with a checkpoint has been asked before, and no longer needs what it was asked about.
    """
    config, words = env.config, env.config.data.tokenizer.path
    if start.manifest is not None:
        return prepare(config.data, storage, texts=env.texts)
    is_prepared = open_prepared(config.data, storage, env.texts) is not None
    early = None if words is None or is_prepared else Path(words)
    if early is not None:
        refuse_another_tokenizer(config, early)
    prepared = prepare(config.data, storage, texts=env.texts)
    if early is None:
        refuse_another_tokenizer(config, prepared.folder / "tokenizer")
    return prepared


def _held_out(config: TrainConfig, data: DataManifest) -> HeldOut | None:
    if config.eval is None:
        return None
    return HeldOut(open_held_out(data), config.eval.max_rows_per_source, config.micro_batch_rows, config.precision)


def _whole_model(config: TrainConfig, data: DataManifest) -> tuple[Any, int]:
    tokenizer = load_tokenizer(data.folder / "tokenizer")
    size = max(len(tokenizer), config.data.tokenizer.vocab_size or 0)
    model = build_model(config.model, size, tokenizer.eos_token_id, config.data.row_tokens, config.dropout, config.seed)
    return model, size


def _adapt(config: TrainConfig, model: Any, ranks: Ranks) -> dict[str, str] | None:
    """Adapters into the model, if the run has them; which model that is, for manifests."""
    if config.lora is None:
        return None
    folder = config.model.path
    if folder is None:
        raise ConfigError("config.lora is set, but config.model.path is not; adapters need a pretrained model")
    from trainrun_trainer.adapters import add_adapters  # peft takes half a second that only its users shall wait

    add_adapters(model, config.lora, folder, config.seed)
    return {"path": folder, "hash": ranks.decide(lambda: base_hash(Path(folder), f"config.model.path={folder}"))}


def _describe(
    config: TrainConfig, data: DataManifest, device: Any, ranks: Ranks, dims: ParallelDims, attention: str,
    is_fused: bool, base: dict[str, str] | None,
) -> dict[str, Any]:  # fmt: skip
    resolved = config.model_dump(mode="json")
    mesh = dims.as_dict()
    return {
        "config": resolved, "config_hash": config_hash(resolved), "data_hash": data.data_hash,
        "numerics": numerics.fingerprint(
            device, ranks.world_size, mesh, config.threads_per_worker, config.precision, attention, is_fused
        ),
        "base": base, "versions": numerics.versions(),
    }  # fmt: skip


def _load(start: Start, checkpoints: Checkpoints, optimizer: AdamW, described: dict[str, Any]) -> TrainState:
    for reason in start.skipped:
        log("checkpoint-skipped", reason=reason)
    if start.manifest is None:
        return TrainState()
    _refuse_another_run(start.manifest, described)
    changed = numerics.differences(start.manifest["numerics"], described["numerics"])
    if changed:
        log("numerics-changed", message="resumed losses may differ in their last bits", changes=changed)
    state = checkpoints.load(start.manifest)
    set_step(optimizer, state.step)
    log("resumed", step=state.step, claim=start.claim.k, state_digest=start.manifest["state_digest"])
    return state


def _resolved(config: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's configuration with the defaults of later fields; as it is if a newer version wrote it."""
    try:
        return TrainConfig.model_validate(config).model_dump(mode="json")
    except ValidationError:
        return config


def _refuse_another_run(manifest: dict[str, Any], described: dict[str, Any]) -> None:
    then, now = _resolved(manifest["config"]), described["config"]
    changed = sorted(k for k in {*then, *now} - CHANGEABLE if then.get(k) != now.get(k))
    if changed:
        first = changed[0]
        raise ConfigError(
            f"config.{first} is {now.get(first)!r}, but step {manifest['step']} was trained with {then.get(first)!r}; "
            f"on resume only {', '.join(sorted(CHANGEABLE))} may change (changed: {', '.join(changed)})"
        )
    if now["total_steps"] < manifest["step"]:
        raise ConfigError(
            f"config.total_steps={now['total_steps']}, but {manifest['step']} steps are trained; raise it, or go back "
            "with resume.from=Step in a new run"
        )
    base = described["base"]
    if base is not None and base["hash"] != manifest["base"]["hash"]:
        raise ConfigError(
            f"config.model.path={base['path']} is model {base['hash']}, but the adapters of step {manifest['step']} "
            f"were trained on {manifest['base']['hash']}; restore that model, or start a new run"
        )
    if manifest["data_hash"] != described["data_hash"]:
        raise ConfigError(
            f"the data is {described['data_hash']}, but step {manifest['step']} was trained on {manifest['data_hash']}"
        )
