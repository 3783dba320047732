"""What the planner assumes is what a run has if its file does not say it."""

from __future__ import annotations

from trainrun_api.data_config import ROW_TOKENS
from trainrun_operator.cli.app import app
from trainrun_operator.planner.plan import Wish
from typer.testing import CliRunner


def test_rows_are_as_long_as_a_run_has_them() -> None:
    """In plans by size alone, and in the option's help."""
    assert Wish.row_tokens == ROW_TOKENS
    text = CliRunner().invoke(app, ["plan", "--help"], env={"COLUMNS": "200"}).output
    assert f"Tokens of a row; default: {ROW_TOKENS}." in text
