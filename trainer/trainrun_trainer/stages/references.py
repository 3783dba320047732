"""`stage:NAME` in a configuration: an output of an earlier stage, as a folder to work with and as a hash of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainrun_api.stages import SCHEME, Reference, references

from trainrun_trainer.errors import ConfigError
from trainrun_trainer.stages.hashes import hash_of
from trainrun_trainer.stages.records import Records, StageRecord
from trainrun_trainer.storage import LocalDirectory

MODEL_FIELD = re.compile(r"^(model\.path|model|baseline|models\[\d+\])$")
WANTED = {"checkpoint": "checkpoints", "checkpoints": "checkpoints", "prepared": "data"}
"""Last name of a field to what it takes; all others take a stage's result."""


@dataclass
class References:
    """All references of one configuration."""

    root: LocalDirectory
    hashes: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)

    def find(self, config: Any) -> None:
        """Look all of them up. Raises ConfigError, naming the field."""
        for reference in references(config):
            self._find(reference)

    def as_paths(self, config: Any) -> Any:
        """The configuration with folders."""
        return replaced(config, lambda text: self.paths[text])

    def as_hashes(self, config: Any) -> Any:
        """The configuration with hashes of what is in the folders."""
        return replaced(config, lambda text: f"{SCHEME}{self.hashes[text]}")

    def keep_places(self, earlier: StageRecord | None) -> None:
        """Equal content that an earlier start of the same work knows by another folder is taken from there again."""
        for text, path in ({} if earlier is None else earlier.paths).items():
            if earlier is not None and earlier.references.get(text) == self.hashes.get(text) and Path(path).exists():
                self.paths[text] = path

    def _find(self, reference: Reference) -> None:
        where, text, name, part = reference
        record = Records(self.root, name).done()
        if record is None:
            raise ConfigError(f"config.{where}={text}: stage {name} has no result here; run that stage first")
        what = "data" if record.kind == "prepare" and not part else part or "result"
        wanted = WANTED.get(where.rpartition(".")[2].partition("[")[0], "result")
        place, files = _output(record, what)
        if place is None or what != wanted:
            raise ConfigError(
                f"config.{where}={text} is the {what} of stage {name}, which is of kind {record.kind}; expected "
                f"{_wanted(wanted, name)}"
            )
        folder = self.root.root / place
        missing = [file for file in files if not (self.root.root / record.folder / file).exists()]
        if missing or not folder.is_dir():
            gone = self.root.root / record.folder / missing[0] if missing else folder
            raise ConfigError(f"config.{where}={text}: {gone} is gone; restore it, or run stage {name} again")
        if MODEL_FIELD.match(where):
            _refuse_what_is_no_model(where, text, folder)
        self.hashes[text], self.paths[text] = hash_of(files or place), str(folder)


def replaced(config: Any, change: Callable[[str], str]) -> Any:
    """The configuration with every reference changed."""
    if isinstance(config, Mapping):
        return {name: replaced(value, change) for name, value in config.items()}
    if isinstance(config, list):
        return [replaced(value, change) for value in config]
    return change(config) if isinstance(config, str) and config.startswith(SCHEME) else config


def _output(record: StageRecord, what: str) -> tuple[str | None, dict[str, str]]:
    """Where one of a stage's outputs lies, and its files that are hashed."""
    if what == "data":
        return record.data, record.outputs if record.kind == "prepare" else {}
    if what == "checkpoints":
        manifests = {name: xxh3 for name, xxh3 in record.outputs.items() if name.startswith("step-")}
        return record.folder if record.kind == "train" else None, manifests
    if record.result is None or what != "result":
        return None, {}
    below = record.result.removeprefix(record.folder).lstrip("/")
    return record.result, {name: xxh3 for name, xxh3 in record.outputs.items() if name.startswith(below)}


def _wanted(what: str, name: str) -> str:
    if what == "checkpoints":
        return f"a train stage's checkpoints, as stage:{name}/checkpoints"
    return f"prepared data, as stage:{name}/data" if what == "data" else f"a result, as stage:{name}"


def _refuse_what_is_no_model(where: str, text: str, folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"config.{where}={text}: {folder} holds adapters and no model; merge them by a stage of kind merge with "
            f"adapter: {text}, and name that one"
        )
    if not (folder / "config.json").exists():
        raise ConfigError(f"config.{where}={text}: {folder} is no model folder; name a stage that makes a model")
