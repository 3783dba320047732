"""Prompt and response as pieces of text, each marked as learned or not. Pieces are tokenised apart.

So the loss can be masked by the *length* of the pieces. By token id it cannot: where the padding token is the
end-of-text token, the true end of a response would be masked, too, and the model would never learn to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainrun_api.data_config import InstructionFormat

from trainrun_trainer.errors import DataError

Piece = tuple[str, bool]
"""(text, is it learned?)"""
Render = Callable[[Sequence[Mapping[str, Any]], bool], str]
"""(messages, with the words that begin an answer) -> text."""


def instruction_prompt(instruction: str, context: str | None) -> str:
    """Everything up to the response; blank lines between the parts, no context part where there is none."""
    parts = [f"### Instruction\n{instruction}"]
    if context and context.strip():
        parts.append(f"### Context\n{context}")
    return "\n\n".join([*parts, "### Response\n"])


def pieces_of_columns(fields: Mapping[str, Any], form: InstructionFormat, where: str) -> list[Piece]:
    """Prompt and response of a row. Raises DataError, in one sentence, for a row without one of them."""
    instruction = _text(fields, form.prompt_field, where, "prompt_field")
    response = _text(fields, form.response_field, where, "response_field")
    if not response.strip():
        raise DataError(f"{where} has no response: {form.response_field!r} is blank, so there is nothing to learn")
    context = fields.get(form.context_field)
    if context is not None and not isinstance(context, str):
        raise DataError(f"{where}: {form.context_field!r} is {type(context).__name__}, expected a string or nothing")
    return [(instruction_prompt(instruction, context), False), (response, True)]


def messages_of(fields: Mapping[str, Any], form: InstructionFormat, where: str) -> list[Mapping[str, Any]]:
    """A conversation that has an answer. Raises DataError."""
    assert form.messages_field is not None
    messages = fields.get(form.messages_field)
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    ):
        raise DataError(f"{where}: {form.messages_field!r} is no list of messages with a role and a content")
    if not any(m["role"] == "assistant" and m["content"].strip() for m in messages):
        raise DataError(f"{where} has no response: no message of role assistant has text, so there is nothing to learn")
    return messages


def pieces_of_messages(messages: Sequence[Mapping[str, Any]], render: Render, where: str) -> list[Piece]:
    """A conversation by the tokenizer's chat template; the assistant's turns are learned, with what ends them."""
    pieces: list[Piece] = []
    done = ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        for text, is_learned in ((render(messages[:i], True), False), (render(messages[: i + 1], False), True)):
            if not text.startswith(done):
                raise DataError(
                    f"{where}: the chat template writes message {i + 1} over what came before it, so its response "
                    "cannot be told from its prompt; use a template that only appends"
                )
            pieces.append((text[len(done) :], is_learned))
            done = text
    return [piece for piece in pieces if piece[0]]


def _text(fields: Mapping[str, Any], name: str, where: str, setting: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise DataError(f"{where} has no string field {name!r}; set data.sources.<name>.instruct.{setting}")
    return value
