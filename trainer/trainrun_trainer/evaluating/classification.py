"""Labels by their probability after a prompt: accuracy, and precision, recall and F1 of each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainrun_api.stage_config import Labels

from trainrun_trainer.errors import ConfigError, DataError
from trainrun_trainer.evaluating.records import fields_of, records, text_of
from trainrun_trainer.evaluating.scoring import Asked, Loaded

PLACE = "{text}"


def classify(loaded: Loaded, task: Labels, field: str) -> dict[str, Any]:
    """Metrics of a labelled set, with the counts that they come from, and how many texts were cut."""
    names = list(task.labels)
    truths, asked, num_cut = [], [], 0
    for record in records(task.path, field, [task.text_field, task.label_field], [], task.max_texts):
        label = str(fields_of(record, field).get(task.label_field))
        if label not in task.labels:
            raise DataError(f"{field}: {record.place} has label {label!r}, expected one of {', '.join(names)}")
        truths.append(label)
        prompt, is_cut = _prompt(loaded, task, text_of(record, task.text_field, field))
        num_cut += is_cut
        for words in task.labels.values():
            ids = loaded.encode(words)
            asked.append(Asked([*prompt, *ids], [(len(prompt), len(prompt) + len(ids))]))
    longest = max(len(one.ids) for one in asked)
    if longest > loaded.context:
        raise ConfigError(
            f"{field}.max_text_tokens={task.max_text_tokens}: with prompt and label that is {longest} tokens, but the "
            f"model's context is {loaded.context}; lower it"
        )
    logs = [answer.log_probability for answer in loaded.score(asked)]
    answers = []
    for start in range(0, len(logs), len(names)):
        of_labels = logs[start : start + len(names)]
        answers.append(names[of_labels.index(max(of_labels))])
    return {**metrics(names, truths, answers), "positive": task.positive, "cut": num_cut}


def metrics(names: Sequence[str], truths: Sequence[str], answers: Sequence[str]) -> dict[str, Any]:
    """Accuracy; per label and on average over labels precision, recall and F1, 0 where nothing can be divided."""
    pairs = list(zip(truths, answers, strict=True))
    labels = {}
    for name in names:
        hits = sum(t == a == name for t, a in pairs)
        told, true = sum(a == name for _, a in pairs), sum(t == name for t, _ in pairs)
        precision, recall = hits / max(told, 1), hits / max(true, 1)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        labels[name] = {"precision": precision, "recall": recall, "f1": f1, "texts": true, "answers": told}
    mean = {key: sum(of[key] for of in labels.values()) / len(names) for key in ("precision", "recall", "f1")}
    return {
        "accuracy": sum(t == a for t, a in pairs) / len(pairs),
        "texts": len(pairs),
        "macro": mean,
        "labels": labels,
    }


def _prompt(loaded: Loaded, task: Labels, text: str) -> tuple[list[int], bool]:
    """Tokens of the prompt; a long text is cut, never the words around it."""
    ids = loaded.encode(text)
    is_cut = len(ids) > task.max_text_tokens
    if is_cut:
        text = loaded.tokenizer.decode(ids[: task.max_text_tokens])
    return loaded.encode(task.prompt.replace(PLACE, text)), is_cut
