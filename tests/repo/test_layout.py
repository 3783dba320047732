"""The repository keeps its own rules."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
PYTHON = [p for p in TRACKED if p.endswith(".py") and (ROOT / p).exists()]
PRODUCT = [p for p in PYTHON if p.split("/")[0] in {"api", "operator", "trainer"}]


def test_operator_folder_does_not_shadow_the_standard_library() -> None:
    """`operator/__init__.py` would break every Python started in the root."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not [p for p in PYTHON if p.startswith("tests/") and p.endswith("__init__.py")]


@pytest.mark.parametrize("path", PYTHON)
def test_files_stay_readable(path: str) -> None:
    """No file over 400 lines, no product function over 70."""
    text = (ROOT / path).read_text()
    assert len(text.splitlines()) <= 400
    if path in PRODUCT:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 70, f"{path}: {node.name} is too long"


def test_no_catch_all_modules() -> None:
    """Names say what is inside."""
    assert not [p for p in PYTHON if Path(p).stem in {"utils", "helpers", "common", "manager", "misc"}]


@pytest.mark.parametrize("path", [p for p in TRACKED if p.endswith(".md") and (ROOT / p).exists()])
def test_links_between_pages_lead_somewhere(path: str) -> None:
    """A relative link names a file that exists."""
    text = re.sub(r"```.*?```", "", (ROOT / path).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert ((ROOT / path).parent / target).exists(), f"{path} links to {target}"


@pytest.mark.parametrize("path", [p for p in TRACKED if p.startswith("docs/adr/")])
def test_decisions_fit_a_screen(path: str) -> None:
    """An ADR has at most 60 lines."""
    assert len((ROOT / path).read_text().splitlines()) <= 60


def test_python_files_never_unpickle() -> None:
    """Tensors are loaded with safetensors; nothing in the product can be talked into running code."""
    for path in PRODUCT:
        source = (ROOT / path).read_text()
        assert not re.search(r"^\s*(import|from) (pickle|dill|cloudpickle|marshal|shelve)\b", source, re.MULTILINE), (
            path
        )
        assert "torch.load(" not in source or "weights_only=True" in source, path
