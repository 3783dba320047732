"""Stages of a run as they leave their folders, made by hand: a base, training on law, its evaluation, a merge sweep."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ORIGIN = datetime(2026, 11, 22, 3, 0, 0, tzinfo=UTC)
GENERAL, LAW = "perplexity, general", "perplexity, law"


def at(seconds: float) -> str:
    """A time of a record."""
    return (ORIGIN + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def write(path: Path, value: Any) -> None:
    """One JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def tensors(path: Path, **shapes: list[int]) -> None:
    """The header of a safetensors file; nobody reads on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps({n: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def record(root: Path, name: str, kind: str, seconds: tuple[float, float], **more: Any) -> Path:
    """stage.json; returns the stage's folder."""
    folder = f"stages/{name}/0123456789ab"
    write(
        root / "stages" / name / "stage.json",
        {
            "schema": 1, "name": name, "kind": kind, "state": "done", "input": f"{name}-input-hash", "folder": folder,
            "result": folder, "outputs": {}, "started_at": at(seconds[0]), "ended_at": at(seconds[1]),
            "seconds": seconds[1] - seconds[0], "outcome": {}, "config": {}, "references": {}, **more,
        },
    )  # fmt: skip
    return root / folder


def train_stage(root: Path, name: str, begin: float, losses: tuple[float, float], **more: Any) -> Path:
    """20 steps of 8 rows of 64 tokens, a quarter of a second each; returns its store."""
    result = f"stages/{name}/0123456789ab/export"
    facts = {"result": result, "config": {"global_batch_rows": 8}, **more}
    store = record(root, name, "train", (begin, begin + 30), **facts)
    write(store / "claims/1.json", {"k": 1, "run_uid": "u", "attempt": 0, "generation": 0, "parent": None})
    first, last = losses
    lines: list[dict[str, Any]] = []
    for step in range(21):
        loss = first + (last - first) * step / 20
        if step:
            seconds = {"data": 0.05, "step": 0.2, "save": 0.5}
            lines.append({"step": step, "loss": loss, "loss_hex": loss.hex(), "claim": 1, "tokens": 512 * step,
                          "seconds_by_class": seconds})  # fmt: skip
        if step % 10 == 0:
            held_out = {"law": {"perplexity": 700.0 - 30 * step}, "general": {"perplexity": 120.0 + 13 * step}}
            lines.append({"step": step, "loss": None, "loss_hex": None, "claim": 1, "eval": held_out})
    (store / "metrics").mkdir(parents=True)
    (store / "metrics/c1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(store / "export/lineage.json", {"step": 20, "state_digest": f"{name}-state-digest", "data_hash": "da7a"})
    tensors(store / "export/model-00001-of-00001.safetensors", embeddings=[100, 8], layer=[8, 8])
    return store


def evaluation(root: Path, baseline: str, model: str, *, law: float = 95.6, answer: str = "A law.") -> dict[str, Any]:
    """evaluation.json of perplexities, questions and labels."""
    outputs = {"baseline": "", "model": answer, "hosted": "A statute."}

    def labels(accuracy: float) -> dict[str, Any]:
        return {"accuracy": accuracy, "positive": None, "macro": {"precision": 0.5, "recall": 0.5, "f1": 0.5}}

    def rouge(value: float) -> dict[str, float]:
        return {"rouge1": value, "rouge2": 0.0, "rougeL": value, "exact_match": 0.25}

    return {
        "columns": {
            "baseline": {"path": f"{root}/stages/{baseline}/0123456789ab/export", "files": {"m": baseline}},
            "model": {"path": f"{root}/stages/{model}/0123456789ab/export", "files": {"m": model}},
            "hosted": {"path": "hosted.jsonl"},
        },
        "perplexity": {
            "law": {"baseline": {"perplexity": 739.0}, "model": {"perplexity": law}},
            "general": {"baseline": {"perplexity": 121.3}, "model": {"perplexity": 382.4}},
        },
        "questions": {"terms": {"baseline": rouge(0.0), "model": rouge(0.167), "hosted": rouge(0.75)}},
        "labels": {"mail": {"baseline": labels(0.5), "model": labels(0.8)}},
        "lm_eval": {},
        "samples": [
            {"set": "terms", "column": column, "number": number, "prompt": f"What is term {number}?",
             "reference": "A rule made by a parliament.", "output": text}
            for number in range(4) for column, text in outputs.items()
        ],
        "warnings": [
            "model has lost on general: perplexity 382.4 is 3.15 times that of baseline, 121.3, and 2 is allowed"
        ],
    }  # fmt: skip


def evaluate_stage(root: Path, name: str, begin: float, found: dict[str, Any]) -> None:
    """The folder of one attempt."""
    write(record(root, name, "evaluate", (begin, begin + 12)) / "evaluation.json", found)


def sweep_stage(root: Path, name: str, begin: float) -> None:
    """A merge over t: law falls, general rises."""
    lines = [{"name": "baseline", LAW: 739.0, GENERAL: 121.3}]
    lines += [{"name": f"t-{t:g}", "t": t, LAW: 739.0 - 640 * t, GENERAL: 121.3 + 260 * t * t} for t in (0.25, 0.5, 1)]
    folder = record(root, name, "merge", (begin, begin + 8), references={"stage:base": "base-hash"})
    write(folder / "curve.json", {"lines": lines, "warnings": []})


def chain(root: Path) -> list[str]:
    """The whole story; returns the stages' names."""
    train_stage(root, "base", 0, (7.0, 4.8))
    train_stage(root, "law", 40, (6.6, 4.5), references={"stage:base": "hash-of-base-outputs"})
    evaluate_stage(root, "before-and-after", 80, evaluation(root, "base", "law"))
    sweep_stage(root, "mixture", 100)
    return ["base", "law", "before-and-after", "mixture"]
