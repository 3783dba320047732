"""Merge models, tensor by tensor: only one tensor of each model is in memory.

What does not fit together is refused by name before anything is written. The result has the base's types, tokenizer,
chat template and settings, and a lineage with the hashes of its parents.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from trainrun_api.stage_config import MergeConfig

from trainrun_trainer.base import LINEAGE
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.merging import methods
from trainrun_trainer.model_folder import DTYPES, ModelFolder, make_folder, write_tensors
from trainrun_trainer.units import NOBODY, Units
from trainrun_trainer.vocabulary import Vocabulary, differing, told

TOKENIZER = "tokenizer.json"
WHOLE = 1.0
"""Share of the merged difference that ties and dare add where t is not given."""
SAME_CONFIG = ("model_type", "vocab_size", "tie_word_embeddings")
"""What must be equal before shapes are even looked at: these say best what is wrong."""


def run(config: MergeConfig, inputs: Mapping[str, Any], units: Units = NOBODY) -> dict[str, Any]:
    """Merge `inputs["models"]` (folders, base first) into the folder `inputs["out"]`; its manifest, and where it lies.

    Raises ConfigError if they do not fit. A merge that is there already is not made again.
    """
    folders = [Path(model) for model in inputs["models"]]
    try:
        weights = config.weights_of(len(folders))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    models = [ModelFolder(folder) for folder in folders]
    refuse_what_does_not_fit(models)
    parents = [model.facts() for model in models]
    made_from = {
        "kind": "merge", "config": config.model_dump(mode="json"), "weights": weights,
        "parents": [parent["files"] for parent in parents],
    }  # fmt: skip
    lineage = {"kind": "merge", "config": made_from["config"], "weights": weights, "parents": parents}

    def fill(folder: Path) -> None:
        base = models[0]
        for path in base.companions():
            shutil.copyfile(path, folder / path.name)
        entries = [base.entries[name] for name in sorted(base.entries)]
        write_tensors(
            folder, entries, lambda name: merged_tensor(config, weights, models, name), config.max_shard_bytes, units
        )
        (folder / LINEAGE).write_text(json.dumps(lineage, indent=1))

    out = Path(inputs["out"])
    manifest = make_folder(out, made_from, fill)
    return {"model": str(out), "tensors": len(models[0].entries), "manifest": manifest}


def merged_tensor(
    config: MergeConfig, weights: Sequence[float], models: Sequence[ModelFolder], name: str
) -> torch.Tensor:
    """One tensor of the result, in the base's type."""
    base, *others = (model.tensor(name) for model in models)
    if not base.is_floating_point():
        if not all(torch.equal(base, other) for other in others):
            raise ConfigError(f"{name} has whole numbers that differ between the models; such tensors cannot be merged")
        return base
    t = WHOLE if config.t is None else config.t
    if config.method == "linear":
        merged = methods.linear([base, *others], weights)
    elif config.method == "slerp":
        merged = methods.slerp(base, others[0], weights[1])
    elif config.method == "ties":
        merged = methods.ties(base, others, weights, config.density, t)
    else:
        elects = config.method == "dare-ties"
        merged = methods.dare(base, others, weights, config.drop, t, config.seed, name, elects)
    return merged.to(base.dtype)


def refuse_what_does_not_fit(models: Sequence[ModelFolder]) -> None:
    """ConfigError naming the first thing in which a model differs from the base: family, vocabulary, tensor, shape."""
    base = models[0]
    for other in models[1:]:
        for key in SAME_CONFIG:
            then, now = base.config.get(key), other.config.get(key)
            if then != now:
                raise ConfigError(
                    f"{other.path}: {key}={now}, but {base.path} has {key}={then}; only models of one family and "
                    "vocabulary can be merged"
                )
        _refuse_other_tokens(base, other)
        _refuse_other_tensors(base, other)


def _refuse_other_tokens(base: ModelFolder, other: ModelFolder) -> None:
    """Equal sizes are not enough: a token must have the same number, or rows of unlike tokens would be mixed."""
    files = [model.path / TOKENIZER for model in (base, other)]
    if not all(file.exists() for file in files):
        return
    then, now = (Vocabulary(Tokenizer.from_file(str(file)).get_vocab()) for file in files)
    differ = differing(then, now)
    if differ:
        raise ConfigError(
            f"{other.path}: its tokenizer is not that of {base.path} ({told(differ, now, then)}); merge models of one "
            "vocabulary"
        )


def _refuse_other_tensors(base: ModelFolder, other: ModelFolder) -> None:
    for name in sorted({*base.entries, *other.entries}):
        then, now = base.entries.get(name), other.entries.get(name)
        if then is None or now is None:
            there, missing = (other, base) if then is None else (base, other)
            raise ConfigError(
                f"{there.path} has a tensor {name} that {missing.path} does not have; they cannot be merged"
            )
        if then.shape != now.shape:
            raise ConfigError(
                f"{other.path}: {name} has shape {now.shape}, but {then.shape} in {base.path}; they cannot be merged"
            )
        for entry, model in ((then, base), (now, other)):
            if entry.dtype not in DTYPES:
                raise ConfigError(
                    f"{model.path}: {name} is {entry.dtype}, expected one of {', '.join(DTYPES)}; convert the model"
                )
