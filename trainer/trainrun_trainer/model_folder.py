"""A Hugging Face folder, read tensor by tensor and written tensor by tensor: memory is a tensor's, not the model's.

A file of safetensors is a header with every name, type, shape and place, and then the bytes. All of that is known
before the first tensor is computed, so the header goes first and each tensor follows as it comes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from trainrun_api.contract import SCHEMA, CheckpointLayout

from trainrun_trainer.base import INDEX, LINEAGE, tensor_files
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.storage import hash_file
from trainrun_trainer.units import NOBODY, Units

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
HEADER_ALIGNMENT = 8


@dataclass(frozen=True)
class Entry:
    """What is known of a tensor before it is read; `dtype` in the words of safetensors."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Of its data in a file."""
        size = DTYPES[self.dtype].itemsize
        for length in self.shape:
            size *= length
        return size


class ModelFolder:
    """A folder with config.json and safetensors. Raises ConfigError, naming folder and file, if it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = self._json("config.json")
        self.entries: dict[str, Entry] = {}
        self._file_of: dict[str, Path] = {}
        for file in self._files():
            self._read_header(file)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor. Its file is opened for it alone, so that no mapped page outlives it."""
        with safe_open(self._file_of[name], "pt") as tensors:
            found: torch.Tensor = tensors.get_tensor(name)
        return found

    def facts(self) -> dict[str, Any]:
        """Path, hashes of config and tensors, and its own lineage where it has one: what a child says of its parent."""
        files = ["config.json", *sorted({file.name for file in self._file_of.values()})]
        hashes = {name: hash_file(self.path / name)["xxh3"] for name in files}
        lineage = self._json(LINEAGE) if (self.path / LINEAGE).exists() else None
        return {"path": str(self.path), "files": hashes, "lineage": lineage}

    def companions(self) -> list[Path]:
        """Files that go with the tensors: tokenizer, chat template, generation settings."""
        ours = {LINEAGE, CheckpointLayout.MANIFEST, INDEX}
        return sorted(
            p for p in self.path.iterdir()
            if p.is_file() and p.suffix not in (".safetensors", ".bin", ".md") and p.name not in ours
        )  # fmt: skip

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise self._unreadable(name, error) from error
        return found

    def _files(self) -> list[Path]:
        try:
            return tensor_files(self.path)
        except (OSError, ValueError) as error:
            raise self._unreadable(INDEX, error) from error

    def _unreadable(self, name: str, error: Exception) -> ConfigError:
        return ConfigError(f"{self.path}: its {name} cannot be read ({error}); give the Hugging Face folder of a model")

    def _read_header(self, file: Path) -> None:
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():
                    part = tensors.get_slice(name)
                    self.entries[name] = Entry(name, part.get_dtype(), tuple(part.get_shape()))
                    self._file_of[name] = file
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{self.path}: {file.name} cannot be read ({error}); models are read from safetensors only"
            ) from error


def write_tensors(
    folder: Path, entries: Sequence[Entry], read: Callable[[str], torch.Tensor], max_shard_bytes: int,
    units: Units = NOBODY,
) -> list[str]:  # fmt: skip
    """Write files of at most `max_shard_bytes` (or one tensor) and their index; `read` is called once for each.

    Returns the files' names.
    """
    parts = plan_files(entries, max_shard_bytes)
    names = [f"model-{i:05d}-of-{len(parts):05d}.safetensors" for i in range(1, len(parts) + 1)]
    units.expect(len(names))
    for name, part in zip(names, parts, strict=True):
        _write_file(folder / name, part, read)
        units.done()
    index = {
        "metadata": {"total_size": sum(entry.num_bytes for entry in entries)},
        "weight_map": {entry.name: name for name, part in zip(names, parts, strict=True) for entry in part},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1))
    return names


def plan_files(entries: Iterable[Entry], max_shard_bytes: int) -> list[list[Entry]]:
    """Which tensors share a file, in their order."""
    parts: list[list[Entry]] = [[]]
    filled = 0
    for entry in entries:
        if parts[-1] and filled + entry.num_bytes > max_shard_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(entry)
        filled += entry.num_bytes
    return parts


def make_folder(out: Path, made_from: dict[str, Any], fill: Callable[[Path], None]) -> dict[str, Any]:
    """Fill a new folder whole or not at all; its manifest, which is what is returned, is written last.

    The same work done before is not done again: `made_from` (JSON) tells. Anything else at `out` is refused.
    """
    found = _finished(out)
    if found is not None and found["made_from"] == made_from:
        return found
    if out.exists():
        raise ConfigError(f"{out} exists already, made of something else; name a folder that does not, or remove it")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    files = {path.name: hash_file(path) for path in sorted(partial.iterdir())}
    manifest = {"schema": SCHEMA, "made_from": made_from, "files": files}
    (partial / CheckpointLayout.MANIFEST).write_text(json.dumps(manifest, indent=1))
    os.rename(partial, out)
    return manifest


def _finished(out: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((out / CheckpointLayout.MANIFEST).read_text())
        is_whole = all(hash_file(out / name) == facts for name, facts in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return manifest if is_whole and "made_from" in manifest else None


def _write_file(path: Path, entries: Sequence[Entry], read: Callable[[str], torch.Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [end, end + entry.num_bytes]
        }  # fmt: skip
        end += entry.num_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    with open(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            tensor = read(entry.name)
            assert tuple(tensor.shape) == entry.shape and tensor.dtype == DTYPES[entry.dtype], entry.name
            stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            del tensor
        stream.flush()
        os.fsync(stream.fileno())
