"""Makes `agent.pyz`: agent and contract in one file that any Python >= 3.9 runs.

`python -m trainrun_trainer.agent.bundle build/agent.pyz`. Equal sources give an equal file, byte for byte.
"""

from __future__ import annotations

import os
import sys
import zipfile
from typing import Dict, List

import trainrun_api.contract

from trainrun_trainer import agent

MAIN = b"import sys\nfrom trainrun_trainer.agent.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
SHEBANG = b"#!/usr/bin/env python3\n"


def contents() -> Dict[str, bytes]:
    """Archive name -> source of everything that the agent imports."""
    files: Dict[str, bytes] = {"__main__.py": MAIN}
    agent_folder = os.path.dirname(os.path.abspath(str(agent.__file__)))
    for name in sorted(os.listdir(agent_folder)):
        if name.endswith(".py"):
            files["trainrun_trainer/agent/" + name] = _read(os.path.join(agent_folder, name))
    contract = os.path.abspath(str(trainrun_api.contract.__file__))
    files["trainrun_api/contract.py"] = _read(contract)
    files["trainrun_api/__init__.py"] = b""
    files["trainrun_trainer/__init__.py"] = b""
    return files


def write(path: str) -> None:
    """Write the archive; the folder is made if needed."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "wb") as handle:
        handle.write(SHEBANG)
        with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, source in sorted(contents().items()):
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, source)
    os.chmod(path, 0o755)  # noqa: S103  it is a program


def _read(path: str) -> bytes:
    with open(path, "rb") as handle:
        return handle.read()


def main(arguments: List[str]) -> int:
    """Write the archive to the path that was given."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m trainrun_trainer.agent.bundle PATH\n")
        return 2
    write(arguments[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
