"""The log's tail: bounded, and without what must not be read by others."""

from __future__ import annotations

import pytest
from trainrun_trainer.agent.tail import TAIL_LINE_BYTES, TAIL_LINES, Tail, redact


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("HF_TOKEN=hf_abc", "HF_TOKEN=***"),
        ("export AWS_SECRET_ACCESS_KEY=abc/def+1 x=2", "export AWS_SECRET_ACCESS_KEY=*** x=2"),
        ('{"api_key": "abc", "step": 3}', '{"api_key": ***, "step": 3}'),
        ("password: hunter2, user: me", "password: ***, user: me"),
        ("Authorization_token: Bearer abc.def", "Authorization_token: ***"),
        ("git clone https://me:ghp_x@host/repo", "git clone https://me:***@host/repo"),
        ("DB_PASSWORD='two words' next", "DB_PASSWORD=*** next"),
        ("apiKey: 'abc'", "apiKey: ***"),
        ("token=abc", "token=***"),
        ("missing key: lm_head.weight", "missing key: lm_head.weight"),
        ("tokens=1024 loss=2.5", "tokens=1024 loss=2.5"),
        ("num_key_value_heads=4", "num_key_value_heads=4"),
        ("KeyError: 'step'", "KeyError: 'step'"),
    ],
)
def test_values_of_secret_names_are_hidden(text: str, kept: str) -> None:
    """By the name before `=` or `:`; words of training that only look like it stay."""
    assert redact(text) == kept


def test_the_tail_keeps_the_newest_lines_and_cuts_long_ones() -> None:
    """Its memory is bounded whatever a program prints."""
    tail = Tail()
    for number in range(3 * TAIL_LINES):
        tail.add(b"line %d\n" % number)
    tail.add(b"x" * (10 * TAIL_LINE_BYTES))
    text = tail.text(limit_bytes=1 << 20)
    assert text.startswith(f"line {2 * TAIL_LINES}\n")
    assert len(text.split("\n")[-1]) == TAIL_LINE_BYTES
    assert tail.text(limit_bytes=10) == "x" * 10


def test_pieces_are_joined_to_lines() -> None:
    """Output comes in pieces that know nothing of lines."""
    tail = Tail()
    for piece in (b"TOK", b"EN=ab", b"c\nnext"):
        tail.add(piece)
    assert tail.text() == "TOKEN=***\nnext"
