"""Rules inside `spec.config`, and between it and the worker group."""

from __future__ import annotations

import re

from trainrun_api.rules.base import OK, Facts, Rule, Values, pick
from trainrun_api.train_config import Architecture, TrainConfig
from trainrun_api.world import fills_mesh, shares_batch

_SOURCE_NAME = "^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"
_ARCHITECTURE = "spec.config.model.architecture"
_HIDDEN = pick("hidden_size", "256")
_HEADS = pick("num_attention_heads", "4")
_KV_HEADS = pick("num_key_value_heads", "4")
_WORLD = f"({pick('workers.replicas', '1')} * {pick('workers.devicesPerWorker', '1')})"
_MICRO = pick("config.micro_batch_rows", "1")
_REPLICATE = pick("config.parallel.dp_replicate", "1")
_TP = pick("config.parallel.tp", "1")
_SHARD = "(has(self.config) && has(self.config.parallel) && has(self.config.parallel.dp_shard))"


def _architecture(config: TrainConfig | None) -> Architecture | None:
    return config.model.architecture if config else None


def _world(facts: Facts) -> int:
    return facts.spec.workers.replicas * facts.spec.workers.devices_per_worker


def _heads_divide(facts: Facts) -> Values | None:
    a = _architecture(facts.spec.config)
    if a is None or a.hidden_size % a.num_attention_heads == 0:
        return OK
    return {"hidden": a.hidden_size, "heads": a.num_attention_heads}


def _head_size_even(facts: Facts) -> Values | None:
    a = _architecture(facts.spec.config)
    if a is None or a.hidden_size % a.num_attention_heads or a.hidden_size // a.num_attention_heads % 2 == 0:
        return OK
    return {
        "hidden": a.hidden_size,
        "heads": a.num_attention_heads,
        "size": a.hidden_size // a.num_attention_heads,
    }


def _kv_heads_divide(facts: Facts) -> Values | None:
    a = _architecture(facts.spec.config)
    if a is None or a.num_attention_heads % a.num_key_value_heads == 0:
        return OK
    return {"kv": a.num_key_value_heads, "heads": a.num_attention_heads}


def _source_names(facts: Facts) -> Values | None:
    names = facts.spec.config.data.sources if facts.spec.config else {}
    return {} if any(not re.match(_SOURCE_NAME, name) for name in names) else OK


def _mix_names(facts: Facts) -> Values | None:
    if facts.spec.config is None or all(name in facts.spec.config.data.sources for name in facts.spec.config.data.mix):
        return OK
    return {}


def _mix_weight(facts: Facts) -> Values | None:
    mix = facts.spec.config.data.mix if facts.spec.config else {}
    return {} if mix and not any(weight > 0 for weight in mix.values()) else OK


def _warmup(facts: Facts) -> Values | None:
    config = facts.spec.config
    if config is None or config.schedule.warmup_steps <= config.total_steps:
        return OK
    return {"got": config.schedule.warmup_steps, "total": config.total_steps}


def _mesh(facts: Facts) -> Values | None:
    if facts.spec.config is None:
        return OK
    parallel, world = facts.spec.config.parallel, _world(facts)
    if world < 1 or fills_mesh(facts.spec.config, world):
        return OK
    shard = parallel.dp_shard or "null"
    return {"replicate": parallel.dp_replicate, "shard": shard, "tp": parallel.tp, "world": world}


def _batch(facts: Facts) -> Values | None:
    config = facts.spec.config
    if config is None:
        return OK
    world = _world(facts)
    if shares_batch(config, world):
        return OK
    ranks, micro = world // config.parallel.tp, config.micro_batch_rows
    return {"got": config.global_batch_rows, "micro": micro, "ranks": ranks, "unit": micro * ranks}


def _fewest_world(facts: Facts) -> int | None:
    """Ranks of minReplicas workers; None if that says nothing more than replicas does."""
    workers = facts.spec.workers
    if workers.min_replicas is None or workers.min_replicas >= workers.replicas:
        return None
    return workers.min_replicas * workers.devices_per_worker


def _fewest_mesh(facts: Facts) -> Values | None:
    config, world = facts.spec.config, _fewest_world(facts)
    if config is None or world is None or fills_mesh(config, world):
        return OK
    shard = config.parallel.dp_shard or "null"
    sizes = {"replicate": config.parallel.dp_replicate, "shard": shard, "tp": config.parallel.tp}
    return {"got": facts.spec.workers.min_replicas, "world": world, **sizes}


def _fewest_batch(facts: Facts) -> Values | None:
    config, world = facts.spec.config, _fewest_world(facts)
    if config is None or world is None or shares_batch(config, world):
        return OK
    ranks, micro = world // config.parallel.tp, config.micro_batch_rows
    values = {"got": facts.spec.workers.min_replicas, "ranks": ranks, "rows": config.global_batch_rows}
    return {**values, "micro": micro, "unit": micro * ranks}


_RANKS = f"({_WORLD} / {_TP})"
_FEWEST = "self.workers.minReplicas"
_FEWEST_WORLD = f"({_FEWEST} * {pick('workers.devicesPerWorker', '1')})"
_FEWEST_RANKS = f"({_FEWEST_WORLD} / {_TP})"
_SAYS_NOTHING_NEW = (
    f"!has(self.config) || !has(self.workers) || !has({_FEWEST}) || {_FEWEST} >= {pick('workers.replicas', '1')}"
)

RULES = (
    Rule(
        id="heads-divide-hidden-size",
        at=_ARCHITECTURE,
        child=None,
        cel=f"{_HIDDEN} % {_HEADS} == 0",
        message=_ARCHITECTURE + ".hidden_size={hidden} is not divisible by num_attention_heads={heads}; "
        "use a multiple of {heads}",
        values={"hidden": _HIDDEN, "heads": _HEADS},
        check=_heads_divide,
    ),
    Rule(
        id="head-size-even",
        at=_ARCHITECTURE,
        child=None,
        cel=f"{_HIDDEN} % {_HEADS} != 0 || {_HIDDEN} / {_HEADS} % 2 == 0",
        message=_ARCHITECTURE + ".hidden_size={hidden} over num_attention_heads={heads} gives heads of size {size}, "
        "but rotary embeddings need an even size; change one of the two",
        values={"hidden": _HIDDEN, "heads": _HEADS, "size": f"{_HIDDEN} / {_HEADS}"},
        check=_head_size_even,
    ),
    Rule(
        id="kv-heads-divide-heads",
        at=_ARCHITECTURE,
        child=None,
        cel=f"{_HEADS} % {_KV_HEADS} == 0",
        message=_ARCHITECTURE + ".num_key_value_heads={kv} does not divide num_attention_heads={heads}; "
        "use a divisor of {heads}",
        values={"kv": _KV_HEADS, "heads": _HEADS},
        check=_kv_heads_divide,
    ),
    Rule(
        id="source-names",
        at="spec.config.data",
        child="sources",
        cel=f"self.sources.all(k, k.matches('{_SOURCE_NAME}'))",
        message="spec.config.data.sources has a name that is not a DNS label; use lower-case letters, digits and '-', "
        "40 characters at most",
        check=_source_names,
    ),
    Rule(
        id="mix-names-are-sources",
        at="spec.config.data",
        child="mix",
        cel="!has(self.mix) || self.mix.all(k, k in self.sources)",
        message="spec.config.data.mix names a source that spec.config.data.sources does not have; use the names of "
        "the sources",
        check=_mix_names,
    ),
    Rule(
        id="mix-has-weight",
        at="spec.config.data",
        child="mix",
        cel="!has(self.mix) || self.mix.size() == 0 || self.mix.exists(k, double(self.mix[k]) > 0.0)",
        message="spec.config.data.mix gives every source the weight 0, so there is nothing to train on; give at least "
        "one a weight above 0",
        check=_mix_weight,
    ),
    Rule(
        id="warmup-within-total",
        at="spec.config",
        child="schedule",
        cel="!has(self.schedule) || !has(self.schedule.warmup_steps) || self.schedule.warmup_steps <= self.total_steps",
        message="spec.config.schedule.warmup_steps={got} is more than spec.config.total_steps={total}; "
        "use at most {total}",
        values={"got": "self.schedule.warmup_steps", "total": "self.total_steps"},
        check=_warmup,
    ),
    Rule(
        id="mesh-fills-world",
        at="spec",
        child="config",
        cel=f"!has(self.config) || {_WORLD} < 1 || ({_SHARD} "
        f"? {_REPLICATE} * {pick('config.parallel.dp_shard', '1')} * {_TP} == {_WORLD} "
        f": {_WORLD} % ({_REPLICATE} * {_TP}) == 0)",
        message="spec.config.parallel dp_replicate={replicate} x dp_shard={shard} x tp={tp} does not fill {world} "
        "ranks (spec.workers.replicas x devicesPerWorker); "
        "make the product {world}, or leave dp_shard out and let the others divide {world}",
        values={
            "replicate": _REPLICATE,
            "shard": f"({_SHARD} ? string({pick('config.parallel.dp_shard', '1')}) : 'null')",
            "tp": _TP,
            "world": _WORLD,
        },
        check=_mesh,
    ),
    Rule(
        id="batch-over-ranks",
        at="spec",
        child="config",
        cel=f"!has(self.config) || {_WORLD} < {_TP} || self.config.global_batch_rows % ({_MICRO} * {_RANKS}) == 0",
        message="spec.config.global_batch_rows={got} is not a multiple of micro_batch_rows={micro} x {ranks} "
        "data-parallel ranks (spec.workers.replicas x devicesPerWorker / tp); use a multiple of {unit}",
        values={
            "got": "self.config.global_batch_rows",
            "micro": _MICRO,
            "ranks": _RANKS,
            "unit": f"{_MICRO} * {_RANKS}",
        },
        check=_batch,
    ),
    Rule(
        id="min-replicas-fill-mesh",
        at="spec",
        child="workers.minReplicas",
        cel=f"{_SAYS_NOTHING_NEW} || ({_SHARD} "
        f"? {_REPLICATE} * {pick('config.parallel.dp_shard', '1')} * {_TP} == {_FEWEST_WORLD} "
        f": {_FEWEST_WORLD} % ({_REPLICATE} * {_TP}) == 0)",
        message="spec.workers.minReplicas={got} makes {world} ranks (x devicesPerWorker), which spec.config.parallel "
        "dp_replicate={replicate} x dp_shard={shard} x tp={tp} does not fill; "
        "leave dp_shard out and let the others divide {world}",
        values={
            "got": _FEWEST,
            "world": _FEWEST_WORLD,
            "replicate": _REPLICATE,
            "shard": f"({_SHARD} ? string({pick('config.parallel.dp_shard', '1')}) : 'null')",
            "tp": _TP,
        },
        check=_fewest_mesh,
    ),
    Rule(
        id="min-replicas-share-batch",
        at="spec",
        child="workers.minReplicas",
        cel=f"{_SAYS_NOTHING_NEW} || {_FEWEST_WORLD} < {_TP} || "
        f"self.config.global_batch_rows % ({_MICRO} * {_FEWEST_RANKS}) == 0",
        message="spec.workers.minReplicas={got} makes {ranks} data-parallel ranks (x devicesPerWorker / tp), over "
        "which spec.config.global_batch_rows={rows} in micro-batches of {micro} does not divide; "
        "make global_batch_rows a multiple of {unit}, or use another minReplicas",
        values={
            "got": _FEWEST,
            "ranks": _FEWEST_RANKS,
            "rows": "self.config.global_batch_rows",
            "micro": _MICRO,
            "unit": f"{_MICRO} * {_FEWEST_RANKS}",
        },
        check=_fewest_batch,
    ),
)
