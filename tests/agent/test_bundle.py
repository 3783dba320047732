"""agent.pyz: what is put into images that are not ours."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from trainrun_trainer.agent import bundle

OLDEST = (3, 9)
"""The oldest Python that we promise to run on."""


def test_the_archive_runs_alone_in_an_empty_folder(tmp_path: Path) -> None:
    """No site packages, no environment of ours, nothing but the file: a user's command under it ends by contract."""
    archive = tmp_path / "agent.pyz"
    bundle.write(str(archive))
    empty = tmp_path / "empty"
    empty.mkdir()
    env = {
        "TRAINRUN_PROGRESS_DIR": str(tmp_path / "progress"),
        "TRAINRUN_TERMINATION_LOG": str(tmp_path / "message"),
        "TRAINRUN_AGENT_HOST": "127.0.0.1",
        "TRAINRUN_AGENT_PORT": "0",
        "TRAINRUN_RUN": "other",
    }
    command = [sys.executable, "-S", "-I", str(archive), "--", "/bin/sh", "-c", "echo from the program; exit 4"]
    done = subprocess.run(command, env=env, cwd=empty, capture_output=True, text=True, timeout=30)
    assert done.returncode == 4, done.stderr
    assert "from the program" in done.stdout
    message = json.loads((tmp_path / "message").read_text())
    assert (message["run"], message["exit_code"], message["cause"]) == ("other", 4, "ProgramError")
    assert "from the program" in message["log_tail"]


def test_how_to_use_it_is_told_when_asked_and_when_it_is_used_wrongly(tmp_path: Path) -> None:
    """Only the second is an error."""
    archive = tmp_path / "agent.pyz"
    bundle.write(str(archive))
    asked, wrong = (
        subprocess.run([sys.executable, str(archive), word], capture_output=True, text=True, timeout=30, check=False)
        for word in ("--help", "torchrun")
    )
    assert (asked.returncode, asked.stderr) == (0, "") and asked.stdout.startswith("usage: ")
    assert (wrong.returncode, wrong.stdout) == (2, "") and "'torchrun'; usage: " in wrong.stderr


def test_every_file_parses_as_the_oldest_python() -> None:
    """Syntax of a newer Python would be found only in a user's image."""
    for name, source in bundle.contents().items():
        ast.parse(source, filename=name, feature_version=OLDEST)


def test_nothing_outside_the_standard_library_is_imported() -> None:
    """The agent runs where nothing of ours is installed."""
    own = {"trainrun_api", "trainrun_trainer"}
    for name, source in bundle.contents().items():
        for node in ast.walk(ast.parse(source)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for imported in names:
                top = imported.split(".")[0]
                assert top in sys.stdlib_module_names or top in own, f"{name} imports {imported}"
                assert not imported.startswith("trainrun_trainer.") or imported.startswith("trainrun_trainer.agent")


def test_equal_sources_give_an_equal_archive(tmp_path: Path) -> None:
    """So that an image layer is cached and a digest means something."""
    first, second = tmp_path / "a.pyz", tmp_path / "b.pyz"
    bundle.write(str(first))
    bundle.write(str(second))
    assert first.read_bytes() == second.read_bytes()


def test_annotations_are_never_evaluated_with_newer_syntax() -> None:
    """`list[str] | None` is fine for 3.9 only where annotations stay strings."""
    for name, source in bundle.contents().items():
        if b"def " in source:
            assert b"from __future__ import annotations" in source, name
