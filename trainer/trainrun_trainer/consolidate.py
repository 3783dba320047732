"""`python -m trainrun_trainer.consolidate CHECKPOINT_PATH OUT`: a checkpoint's weights as a folder for transformers.

A checkpoint is a file for each rank, with that rank's pieces of weights and moments. Here each weight is put together
from its pieces and written before the next is read, so memory is one tensor, whatever the model and the ranks.
It only reads: no claim is taken, and the run may go on meanwhile.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from trainrun_api.contract import SCHEMA, CheckpointLayout
from trainrun_api.stage_config import ConsolidateConfig
from trainrun_api.train_config import ModelConfig, TrainConfig
from transformers import AutoConfig, AutoModelForCausalLM

from trainrun_trainer.base import LINEAGE
from trainrun_trainer.claims import read_claims
from trainrun_trainer.errors import ConfigError, NoUsableCheckpoint, TrainerError
from trainrun_trainer.families import FAMILIES
from trainrun_trainer.manifest import Invalid, read_manifest, read_whole
from trainrun_trainer.model import build_model
from trainrun_trainer.model_folder import DTYPES, Entry, make_folder, write_tensors
from trainrun_trainer.prepared import open_beside
from trainrun_trainer.resume import history
from trainrun_trainer.settings import parse
from trainrun_trainer.storage import Storage
from trainrun_trainer.stores import open_storage
from trainrun_trainer.tokenizer import load_tokenizer
from trainrun_trainer.units import NOBODY, Units

WEIGHT = "model."
"""What the names of weights begin with in a checkpoint; the rest are the optimizer's."""
WORDS_OF = {dtype: word for word, dtype in DTYPES.items()}


class Pieces:
    """The weights of one checkpoint folder, each read whole from its pieces."""

    def __init__(self, folder: Path) -> None:
        found = HuggingFaceStorageReader(str(folder)).read_metadata()
        self._tensors: dict[str, TensorStorageMetadata] = {
            name.removeprefix(WEIGHT): known
            for name, known in found.state_dict_metadata.items()
            if name.startswith(WEIGHT) and isinstance(known, TensorStorageMetadata)
        }
        self._files = {(index.fqn, tuple(index.offset or ())): info for index, info in found.storage_data.items()}

    def entries(self) -> list[Entry]:
        """All weights, by name."""
        return [
            Entry(name, WORDS_OF[known.properties.dtype], tuple(known.size))
            for name, known in sorted(self._tensors.items())
        ]

    def read(self, name: str) -> torch.Tensor:
        """One weight. Raises NoUsableCheckpoint if a piece of it is missing."""
        known = self._tensors[name]
        whole = torch.empty(known.size, dtype=known.properties.dtype)
        num_read = 0
        for chunk in known.chunks:
            key = f"{WEIGHT}{name}"
            with safe_open(self._files[key, tuple(chunk.offsets)].relative_path, "pt") as tensors:
                piece = tensors.get_tensor(key)
            place = tuple(slice(o, o + n) for o, n in zip(chunk.offsets, chunk.sizes, strict=True))
            whole[place] = piece
            num_read += piece.numel()
        if num_read != whole.numel():
            raise NoUsableCheckpoint(f"{name}: {num_read} of {whole.numel()} numbers are in the checkpoint's files")
        return whole


def run(config: ConsolidateConfig, inputs: Mapping[str, Any], units: Units = NOBODY) -> dict[str, Any]:
    """Write the folder `inputs["out"]` from the run's store `inputs["checkpoint"]`; where, of which step and tokens.

    Raises ConfigError or NoUsableCheckpoint. A consolidation that is there already is not made again.
    """
    storage = open_storage(inputs["checkpoint"])
    manifest = _choose(storage, config.step)
    out = Path(inputs["out"])
    made_from = {
        "kind": "consolidate", "step": manifest["step"], "claim": manifest["claim"],
        "state_digest": manifest["state_digest"], "max_shard_bytes": config.max_shard_bytes,
    }  # fmt: skip
    made = make_folder(out, made_from, lambda folder: _fill(folder, storage, manifest, config.max_shard_bytes, units))
    return {"model": str(out), "step": manifest["step"], "tokens": manifest["counters"]["tokens"], "manifest": made}


def kept(storage: Storage) -> list[dict[str, Any]]:
    """Manifests of the committed checkpoints that count, one for each step, ascending."""
    of_step: dict[int, dict[str, Any]] = {}
    for found in _committed(storage):
        if isinstance(found, dict):
            of_step.setdefault(found["step"], found)
    return [of_step[step] for step in sorted(of_step)]


def config_of(manifest: Mapping[str, Any]) -> TrainConfig:
    """What a checkpoint was trained by. Raises ConfigError if it holds adapters and no model."""
    place = CheckpointLayout.step_dir(manifest["step"], manifest["claim"])
    config = parse(TrainConfig, manifest["config"], f"{place}: config.")
    if config.lora is not None:
        raise ConfigError(f"{place} holds adapters, not a model; merge the run's export/ into its base model")
    return config


def tokenizer_of(manifest: Mapping[str, Any], storage: Storage) -> Path:
    """The folder of a checkpoint's tokenizer. Raises ConfigError."""
    place = CheckpointLayout.step_dir(manifest["step"], manifest["claim"])
    data = open_beside(manifest["data_hash"], storage)
    if data is None:
        raise ConfigError(f"{place}: data/{manifest['data_hash']}, which has its tokenizer, is gone; restore it")
    return data.folder / "tokenizer"


def _committed(storage: Storage) -> Iterator[dict[str, Any] | Invalid]:
    """Manifests along the newest claim's chain, newest first."""
    for stored in history(storage, read_claims(storage)):
        found = read_manifest(storage, stored.step, stored.claim)
        if found is not None:
            yield found


def _choose(storage: Storage, step: int | None) -> dict[str, Any]:
    for found in _committed(storage):
        if isinstance(found, Invalid):
            if step is None:
                raise NoUsableCheckpoint(f"{found.reason}; name an older step")
            continue
        if step is None or found["step"] == step:
            problem = read_whole(storage, found)
            if problem is not None:
                raise NoUsableCheckpoint(f"{problem.reason}; name another step")
            return found
    steps = [found["step"] for found in kept(storage)]
    wanted = "any step" if step is None else f"step {step}"
    raise NoUsableCheckpoint(f"{storage.address('')}: no checkpoint of {wanted}; there are {steps or 'none'}")


def _fill(folder: Path, storage: Storage, manifest: dict[str, Any], max_shard_bytes: int, units: Units) -> None:
    place = CheckpointLayout.step_dir(manifest["step"], manifest["claim"])
    config, tokenizer_folder = config_of(manifest), tokenizer_of(manifest, storage)
    tokenizer = load_tokenizer(tokenizer_folder)
    model = _empty_model(config, max(len(tokenizer), config.data.tokenizer.vocab_size or 0), tokenizer.eos_token_id)
    pieces = Pieces(storage.read_folder(place))
    entries = pieces.entries()
    _refuse_another_model(place, model, entries)
    saved_as = FAMILIES[model.config.model_type].saved_names
    own_name = {saved: own for own, saved in saved_as.items()}
    saved = [replace(entry, name=saved_as.get(entry.name, entry.name)) for entry in entries]
    write_tensors(folder, saved, lambda name: pieces.read(own_name.get(name, name)), max_shard_bytes, units)
    model.config.architectures = [type(model).__name__]
    (folder / "config.json").write_text(model.config.to_json_string())
    shutil.copytree(tokenizer_folder, folder, dirs_exist_ok=True)
    lineage = {
        "schema": SCHEMA, "kind": "consolidate", "claims": read_claims(storage),
        **{key: manifest[key] for key in ("step", "state_digest", "data_hash", "run_uid", "config")},
    }  # fmt: skip
    (folder / LINEAGE).write_text(json.dumps(lineage, indent=1))


def _empty_model(config: TrainConfig, vocab_size: int, end_of_text: int) -> Any:
    """The model without memory for its weights: names, shapes and settings."""
    model: ModelConfig = config.model
    with torch.device("meta"):
        if model.path is None:
            return build_model(model, vocab_size, end_of_text, config.data.row_tokens, config.dropout, config.seed)
        try:
            settings = AutoConfig.from_pretrained(model.path, local_files_only=True, dtype="float32")
        except (OSError, ValueError) as error:
            raise ConfigError(f"config.model.path={model.path}: its config.json cannot be read ({error})") from error
        return AutoModelForCausalLM.from_config(settings)  # type: ignore[no-untyped-call]


def _refuse_another_model(place: str, model: Any, entries: Sequence[Entry]) -> None:
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found = {entry.name: entry.shape for entry in entries}
    wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ConfigError(f"{place}: {name} has shape {found.get(name)}, but the model's is {wanted.get(name)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Consolidate and say what was made; exit code 1 and one sentence if it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m trainrun_trainer.consolidate", description="Make a model folder of a checkpoint."
    )
    parser.add_argument("checkpoint", help="checkpoint.path of the run")
    parser.add_argument("out", help="folder to be made; plain transformers loads it")
    parser.add_argument("--step", type=int, help=ConsolidateConfig.model_fields["step"].description)
    parser.add_argument("--max-shard-bytes", type=int, help="largest safetensors file")
    asked = parser.parse_args(arguments)
    raw = {key: getattr(asked, key) for key in ("step", "max_shard_bytes") if getattr(asked, key) is not None}
    try:
        made = run(parse(ConsolidateConfig, raw, "--"), {"checkpoint": asked.checkpoint, "out": asked.out})
    except (TrainerError, OSError) as error:
        sys.exit(str(error))
    files = [name for name in made["manifest"]["files"] if name.endswith(".safetensors")]
    print(f"{made['model']}: step {made['step']}, {made['tokens']} tokens trained, {len(files)} files")


if __name__ == "__main__":
    main()
