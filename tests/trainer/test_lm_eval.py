"""lm-evaluation-harness as a stage of an evaluation, and as the oracle of our own scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import yaml
from trainrun_api.stage_config import Labels, LmEval, Tasks
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.evaluating.classification import classify
from trainrun_trainer.evaluating.lm_eval import run_suites
from trainrun_trainer.evaluating.scoring import Asked, Loaded

from tests.trainer.models import save, tiny, tokenizer
from tests.trainer.oracle import LM_EVAL, python_with

LABELS = {"a": " first", "b": " second"}


def task_files(folder: Path) -> list[str]:
    """Two tasks on pages of Python's documentation: rolling likelihood, and a choice of two words."""
    pages = [topics[name][:200].strip() for name in sorted(topics)[:8]]
    rows = ({"text": page, "label": "ab"[i % 2], "gold": i % 2} for i, page in enumerate(pages))
    data = folder / "pages.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
    }  # fmt: skip
    tasks = {
        "pages": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "word_perplexity"}],
        },
        "kinds": {
            "output_type": "multiple_choice", "doc_to_text": "{{text}}\n\nLabel:", "doc_to_target": "{{gold}}",
            "doc_to_choice": [words.strip() for words in LABELS.values()], "metric_list": [{"metric": "acc"}],
        },
    }  # fmt: skip
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **shared, **task}))
    return list(tasks)


def test_its_numbers_are_ours(tmp_path: Path) -> None:
    """Perplexity per word and accuracy, from the same model and texts, offline."""
    python = python_with(LM_EVAL)
    save(tiny(3), tokenizer(), tmp_path / "model")
    task = LmEval(python=str(python), tasks=task_files(tmp_path), include_path=str(tmp_path))
    found = run_suites(task, tmp_path / "model", tmp_path / "out", "cpu")
    loaded = Loaded.open(tmp_path / "model", Tasks())
    texts = [json.loads(line)["text"] for line in (tmp_path / "pages.jsonl").read_text().splitlines()]
    begin = loaded.tokenizer.bos_token_id
    asked = [Asked([begin, *ids], [(1, len(ids) + 1)]) for ids in map(loaded.encode, texts)]
    total = sum(answer.log_probability for answer in loaded.score(asked))
    words = sum(len(text.split()) for text in texts)
    assert math.log(found["pages word_perplexity"]) == pytest.approx(-total / words, rel=1e-5)
    labels = Labels(path=str(tmp_path / "pages.jsonl"), labels=LABELS)
    assert found["kinds acc"] == classify(loaded, labels, "x")["accuracy"]


def test_what_it_says_when_it_fails_is_passed_on(tmp_path: Path) -> None:
    """A Python without lm_eval, and none at all."""
    task = LmEval(python="/nowhere/python", tasks=["pages"], include_path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"lm_eval\.python=/nowhere/python cannot be run"):
        run_suites(task, tmp_path, tmp_path / "out", "cpu")
    silent = task.model_copy(update={"python": "/bin/false"})
    with pytest.raises(ConfigError, match="ended with 1"):
        run_suites(silent, tmp_path, tmp_path / "out", "cpu")
    hanging = tmp_path / "hangs"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    with pytest.raises(ConfigError, match=r"did not end within lm_eval\.timeout_seconds=1; raise it"):
        run_suites(task.model_copy(update={"python": str(hanging), "timeout_seconds": 1}), tmp_path, tmp_path, "cpu")
