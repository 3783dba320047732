"""What the import contracts cannot see: accelerators are named in one module, and loading does nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import trainrun_trainer

ROOT = Path(trainrun_trainer.__file__).parent
MODULES = sorted(ROOT.glob("*.py"))
KNOW_ACCELERATORS = {"device.py", "accelerators.py"}
ACTS_AT_IMPORT = {"launcher_preload.py"}
"""The first module of the fork server: being imported there is its work."""
ACCELERATORS = {"cuda", "xla", "neuron", "mps", "xpu", "torch_neuronx", "torch_xla", "pynvml"}


def names_in(path: Path) -> set[str]:
    """Attributes, names and imported modules of a source file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found |= set(node.name.split("."))
    return found


@pytest.mark.parametrize("path", [p for p in MODULES if p.name not in KNOW_ACCELERATORS], ids=lambda p: p.name)
def test_only_the_device_module_names_accelerators(path: Path) -> None:
    """A new device means a change in one place."""
    assert not names_in(path) & ACCELERATORS


@pytest.mark.parametrize("path", [p for p in MODULES if p.name not in ACTS_AT_IMPORT], ids=lambda p: p.name)
def test_modules_do_nothing_when_they_are_imported(path: Path) -> None:
    """A fork server preloads them: at the top level are imports, definitions, constants and nothing else."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Expr, ast.If)
    for node in ast.parse(path.read_text()).body:
        assert isinstance(node, allowed), ast.unparse(node)
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), ast.unparse(node)
        if isinstance(node, ast.If):
            assert "__name__" in ast.unparse(node.test) or "TYPE_CHECKING" in ast.unparse(node.test)
