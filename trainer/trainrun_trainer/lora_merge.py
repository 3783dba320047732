"""`python -m trainrun_trainer.lora_merge BASE ADAPTER OUT`: an adapter merged into its base model, in bounded memory.

Each safetensors file of the base is read and written once, tensor by tensor and of adapted tensors a block of rows at a
time: row r of the merged matrix needs row r of the base and of B, and the whole of the small A. So memory is a few
blocks, whatever the model's size. Headers are copied, so that OUT has the base's files, names, types and index.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from trainrun_api.contract import SCHEMA, CheckpointLayout

from trainrun_trainer.base import LINEAGE, TensorEntry, base_hash, read_header, tensor_files
from trainrun_trainer.errors import ConfigError, TrainerError
from trainrun_trainer.export import lineage_of
from trainrun_trainer.units import NOBODY, Units

BLOCK_BYTES = 4 << 20
"""Read at once. About ten of these are in memory: bytes, numbers of 32 bits, and what the allocator keeps."""
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
UNDERSTOOD = re.compile(r"^base_model\.model\.(.+)\.(lora_A|lora_B|lora_magnitude_vector)(\.weight)?$")
BEYOND = (
    "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "layer_replication",
    "target_parameters", "trainable_token_indices", "use_qalora", "use_bdlora", "arrow_config", "kasa_config",
)  # fmt: skip
"""Settings of peft that change what an adapter means, and that nothing here makes."""


class Adapter:
    """A peft folder: which base tensors it changes, and how."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self._read_config()
        scale_by = self.config["r"] ** 0.5 if self.config.get("use_rslora") else self.config["r"]
        self.scale = float(self.config["lora_alpha"]) / scale_by
        self._file: Any
        try:
            self._file = safe_open(folder / "adapter_model.safetensors", "pt")
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{folder}: its adapter_model.safetensors cannot be read ({error})") from error
        self._keys: dict[str, dict[str, str]] = {}
        for key in sorted(self._file.keys()):
            match = UNDERSTOOD.match(key)
            if match is None:
                raise ConfigError(
                    f"{folder}: tensor {key} is no part of a linear LoRA or DoRA adapter; merge with peft"
                )
            self._keys.setdefault(f"{match[1]}.weight", {})[match[2]] = key

    def _read_config(self) -> dict[str, Any]:
        try:
            config: dict[str, Any] = json.loads((self.folder / "adapter_config.json").read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder}: its adapter_config.json cannot be read ({error})") from error
        beyond = [name for name in BEYOND if config.get(name)]
        if config.get("init_lora_weights") not in (None, True, False, "gaussian"):
            beyond.append("init_lora_weights")  # others change the base weights as well
        if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or beyond:
            wrong = ", ".join(beyond) or f"peft_type={config.get('peft_type')}, bias={config.get('bias')}"
            raise ConfigError(
                f"{self.folder}: only plain LoRA and DoRA can be merged here, not {wrong}; merge with peft"
            )
        for name in ("r", "lora_alpha"):
            if not isinstance(config.get(name), (int, float)):
                raise ConfigError(
                    f"{self.folder}: adapter_config.json has {name}={config.get(name)}, expected a number"
                )
        return config

    @property
    def names(self) -> set[str]:
        """Base tensors that change."""
        return set(self._keys)

    def shape(self, name: str) -> tuple[int, ...]:
        """What the base tensor must be; ConfigError if a part of its adapter is missing."""
        parts = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if self.config.get("use_dora") else set())
        keys = self._keys[name]
        if keys.keys() != parts:
            raise ConfigError(f"{self.folder}: the adapter of {name} has {sorted(keys)}, expected {sorted(parts)}")
        a, b = (self._file.get_slice(keys[part]).get_shape() for part in ("lora_A", "lora_B"))
        return (b[0], a[1])

    def merge(self, name: str, blocks: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Blocks of rows of a base tensor, in order, with the adapter in them."""
        keys = self._keys[name]
        a, b = (self._file.get_tensor(keys[part]).float() for part in ("lora_A", "lora_B"))
        magnitude = self._file.get_tensor(keys["lora_magnitude_vector"]).float() if len(keys) == 3 else None
        row = 0
        for block in blocks:
            rows = slice(row, row + len(block))
            merged = torch.addmm(block.float(), b[rows], a, alpha=self.scale)
            if magnitude is not None:
                merged *= (magnitude[rows] / torch.linalg.norm(merged, dim=1))[:, None]
            row += len(block)
            yield merged.to(block.dtype)


def merge(base: Path, adapter_folder: Path, out: Path, units: Units = NOBODY) -> int:
    """Write OUT whole or not at all; the number of tensors that changed. ConfigError before anything is written."""
    adapter = Adapter(adapter_folder)
    if out.exists():
        raise ConfigError(f"{out} exists already; name a folder that does not, or remove it")
    hashed = base_hash(base, str(base))
    lineage = lineage_of(adapter_folder)
    trained_on = (lineage or {}).get("base") or {"hash": hashed}
    if trained_on["hash"] != hashed:
        raise ConfigError(
            f"{adapter_folder} was trained on {trained_on['path']} ({trained_on['hash']}), but {base} is another model "
            f"({hashed}); give the base that it was trained on"
        )
    files = tensor_files(base)
    _refuse_what_does_not_fit(adapter, base, {entry.name: entry for file in files for entry in read_header(file)[1]})
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    units.expect(len(files))
    for file in files:
        _merge_file(adapter, file, partial / file.name)
        units.done()
    ours = {LINEAGE, CheckpointLayout.MANIFEST}
    for path in base.iterdir():
        if path.is_file() and path.suffix not in (".safetensors", ".bin") and path.name not in ours:
            shutil.copyfile(path, partial / path.name)
    told = {"schema": SCHEMA, "base": {"path": str(base), "hash": hashed}, "adapter": lineage}
    (partial / LINEAGE).write_text(json.dumps(told, indent=1))
    os.rename(partial, out)
    return len(adapter.names)


def _refuse_what_does_not_fit(adapter: Adapter, base: Path, entries: dict[str, TensorEntry]) -> None:
    for name in sorted(adapter.names):
        entry = entries.get(name)
        if entry is None:
            raise ConfigError(
                f"{adapter.folder}: it changes {name}, which {base} does not have; give its own base model"
            )
        if entry.shape != adapter.shape(name) or entry.dtype not in DTYPES:
            raise ConfigError(
                f"{adapter.folder}: its adapter of {name} is for shape {adapter.shape(name)} in {', '.join(DTYPES)}, "
                f"but {base} has {entry.shape} in {entry.dtype}; give its own base model"
            )


def _merge_file(adapter: Adapter, source: Path, target: Path) -> None:
    header, entries = read_header(source)
    with open(source, "rb") as reader, open(target, "wb") as writer:
        writer.write(header)
        for entry in entries:
            reader.seek(len(header) + entry.start)
            if entry.name in adapter.names:
                for block in adapter.merge(entry.name, _blocks(reader, entry)):
                    writer.write(block.view(torch.uint8).numpy().data)
            else:
                for size in _sizes(entry.end - entry.start, BLOCK_BYTES):
                    writer.write(reader.read(size))
        writer.flush()
        os.fsync(writer.fileno())


def _blocks(reader: BinaryIO, entry: TensorEntry) -> Iterator[torch.Tensor]:
    row_bytes = (entry.end - entry.start) // entry.shape[0]
    for size in _sizes(entry.end - entry.start, max(1, BLOCK_BYTES // row_bytes) * row_bytes):
        held = bytearray(size)
        reader.readinto(held)  # type: ignore[attr-defined] # as every file opened for bytes
        yield torch.frombuffer(held, dtype=DTYPES[entry.dtype]).view(-1, entry.shape[1])


def _sizes(total: int, most: int) -> Iterator[int]:
    for start in range(0, total, most):
        yield min(most, total - start)


def main() -> None:
    """Merge and say what was done; exit code 1 and one sentence if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m trainrun_trainer.lora_merge", description="Merge an adapter.")
    for name, text in (
        ("base", "Hugging Face folder of the model that the adapter was trained on"),
        ("adapter", "folder with adapter_config.json and adapter_model.safetensors, such as a run's export/"),
        ("out", "folder to be made; plain transformers loads it"),
    ):
        parser.add_argument(name, type=Path, help=text)
    asked = parser.parse_args()
    try:
        changed = merge(asked.base, asked.adapter, asked.out)
    except (TrainerError, OSError) as error:
        sys.exit(str(error))
    print(f"{asked.out}: {changed} tensors merged")


if __name__ == "__main__":
    main()
