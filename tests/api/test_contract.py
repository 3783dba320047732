"""The contract between operator, agent and trainer: bounded, forgiving to neighbours, and old enough for any image."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainrun_api import contract
from trainrun_api.contract import (
    CAUSE_OF_EXIT,
    PHASE_ALLOWANCE_SECONDS,
    PHASES,
    SCHEMA,
    TERMINATION_MESSAGE_LIMIT_BYTES,
    UNDERSTOOD_SCHEMAS,
    CheckpointLayout,
    ExitCode,
    Outcome,
    Progress,
    ProgressFile,
    TerminationMessage,
    most_telling,
)

SOURCE = Path(contract.__file__).read_text(encoding="utf-8")


def test_exit_codes_are_those_of_the_design() -> None:
    """Codes are append-only: images built with an older version keep meaning the same."""
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "ERROR": 1,
        "STOPPED": 10,
        "TIME_LIMIT": 11,
        "BAD_CONFIG": 20,
        "BAD_DATA": 21,
        "DEVICE_OUT_OF_MEMORY": 22,
        "DEVICE_SUSPECT": 30,
        "NUMERICAL_FAULT": 31,
        "NO_CHECKPOINT": 40,
        "STORAGE_REFUSED": 41,
    }
    assert set(CAUSE_OF_EXIT) == {int(code) for code in ExitCode}
    assert len(set(CAUSE_OF_EXIT.values())) == len(ExitCode)


def test_source_is_python_39_and_standard_library_only() -> None:
    """The agent takes this module into images with an old Python and no packages."""
    tree = ast.parse(SOURCE, feature_version=(3, 9))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


texts = st.text(max_size=6000)


@given(
    log=texts,
    message=texts,
    cause=st.sampled_from(sorted(CAUSE_OF_EXIT.values())),
    step=st.none() | st.integers(0, 10**8),
)
def test_termination_message_never_exceeds_the_kubelets_limit(
    log: str, message: str, cause: str, step: int | None
) -> None:
    """Whatever a program printed: valid JSON, bounded in bytes, the verdict's fields untouched."""
    record = TerminationMessage(exit_code=31, cause=cause, step=step, target_step=7, message=message, log_tail=log)
    text = record.to_bounded_json()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT_BYTES
    back = TerminationMessage.from_dict(json.loads(text))
    assert (back.exit_code, back.cause, back.step, back.target_step) == (31, cause, step, 7)


def test_bounding_keeps_the_end_of_the_log_and_the_start_of_the_message() -> None:
    """The last log lines and the first words of a message say most."""
    record = TerminationMessage(message="first " + "m" * 900, log_tail="l" * 9000 + " last")
    back = TerminationMessage.from_dict(json.loads(record.to_bounded_json()))
    assert back.message == record.message
    assert back.log_tail.endswith(" last")
    assert len(back.log_tail) > 2000


def test_short_message_is_not_cut() -> None:
    """Nothing is lost below the limit."""
    record = TerminationMessage(message="all is well", log_tail="line 1\nline 2")
    assert TerminationMessage.from_dict(json.loads(record.to_bounded_json())) == record


@pytest.mark.parametrize(
    "record", [Progress(step=3), TerminationMessage(step=3), Outcome(step=3)], ids=lambda r: type(r).__name__
)
def test_records_of_neighbouring_versions_are_read(record: contract.Record) -> None:
    """A newer writer's fields are ignored, an older one's missing fields take defaults."""
    raw = json.loads(record.to_json())
    assert type(record).from_dict({**raw, "field_of_the_future": [1]}) == record
    assert type(record).from_dict({}) == type(record)()


def test_own_and_previous_schema_are_understood() -> None:
    """Upgrade and rollback work in mid-run."""
    assert UNDERSTOOD_SCHEMAS == (SCHEMA - 1, SCHEMA)


def test_records_refuse_what_json_cannot_carry() -> None:
    """A NaN loss must be left out by its writer, not written as an unreadable token."""
    with pytest.raises(ValueError, match="JSON"):
        Progress(loss=float("nan")).to_json()


def test_every_phase_has_an_allowance() -> None:
    """The stall rule never meets a phase that it cannot judge."""
    assert set(PHASE_ALLOWANCE_SECONDS) == set(PHASES)


@pytest.mark.parametrize(
    ("codes", "telling"),
    [
        ([], 0),
        ([0, 0], 0),
        ([1], 1),
        ([1, 31], 31),
        ([1, 31, 22], 31),
        ([10, 1], 10),
        ([137, 1], 137),
        ([1, 137, 40], 40),
    ],
)
def test_most_telling_code(codes: list[int], telling: int) -> None:
    """A contract code beats 1 and signals; among equals the earliest."""
    assert most_telling(codes) == telling


@given(step=st.integers(0, 10**9), claim=st.integers(0, 10**6))
def test_checkpoint_names_round_trip(step: int, claim: int) -> None:
    """A folder's name says its step and its claim."""
    assert CheckpointLayout.parse_step_dir(CheckpointLayout.step_dir(step, claim)) == (step, claim)


@pytest.mark.parametrize(
    "name", ["", "step-", "step-1", "step-1-c", "step--c1", "step-1-cx", "step-1-c1.tmp", "export", "step-a-c1"]
)
def test_other_names_are_no_checkpoints(name: str) -> None:
    """Strangers in the folder are ignored."""
    assert CheckpointLayout.parse_step_dir(name) is None


def test_file_names_are_stable() -> None:
    """Readers of older stores depend on them."""
    assert ProgressFile.rank(3) == "rank3.json"
    assert CheckpointLayout.claim(7) == "claims/7.json"
    assert CheckpointLayout.metrics(7) == "metrics/c7.jsonl"
    assert CheckpointLayout.timeline(7) == "metrics/c7.timeline.json"
