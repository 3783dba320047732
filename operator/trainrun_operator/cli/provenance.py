"""`trainrun manifest` and `trainrun clone`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from trainrun_api.manifest import KIND

from trainrun_operator.local.order import Exit
from trainrun_operator.provenance.clone import BadManifestError, cloned, load
from trainrun_operator.provenance.manifest import run_manifest


def show_manifest(file: Path, store: Path) -> int:
    """Print the run manifest of a TrainingRun that `kubectl get -o json` wrote."""
    try:
        run = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
        if not isinstance(run, dict) or run.get("kind") != KIND:
            raise ValueError(f"it holds no {KIND}")
    except (OSError, ValueError) as error:
        print(f"{file} cannot be used: {error}; give the output of kubectl get trun NAME -o json", file=sys.stderr)
        return Exit.REFUSED
    if not store.is_dir():
        print(f"--store {store} is no folder; give checkpoint.path of the run as it is seen here", file=sys.stderr)
        return Exit.REFUSED
    print(json.dumps(run_manifest(run, store), indent=1))
    return Exit.SUCCEEDED


def clone(file: Path, name: str | None, path: str | None, out: Path | None) -> int:
    """Write the manifest of a run that is made again."""
    try:
        manifest = load(file)
        run = cloned(manifest, name, path)
        folder = Path(manifest.get("folder") or ".")  # relative paths of the spec begin there
        place = out or (folder if folder.is_dir() else Path()) / f"{run['metadata']['name']}.yaml"
        with open(place, "x", encoding="utf-8") as written:
            yaml.safe_dump(run, written, sort_keys=False, width=120)
    except BadManifestError as error:
        print(error, file=sys.stderr)
        return Exit.REFUSED
    except OSError as error:
        print(f"{error.filename} cannot be written: {error.strerror}; name another file with -o", file=sys.stderr)
        return Exit.REFUSED
    print(f"{place}: run it with kubectl apply -f {place}, or here with trainrun run {place}")
    return Exit.SUCCEEDED
