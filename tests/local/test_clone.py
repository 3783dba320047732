"""A run that is made again from its run manifest alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.local.conftest import marked
from tests.local.story import TRAINRUN, Story, train, write_manifest

pytestmark = pytest.mark.timeout(600)


def test_a_clone_is_equal_bit_for_bit(tmp_path: Path, workdir: Path) -> None:
    """Also though the first run was disturbed and its manifest file is gone: same data, same losses, same weights."""

    def shorter(manifest: dict[str, Any]) -> None:
        manifest["spec"]["config"]["total_steps"] = 20

    file = write_manifest(tmp_path / "here", shorter)
    code, out, err = train(file, workdir, "--fault", "kill-worker@step=7")
    assert code == 0, out + err
    run = workdir / "tiny"
    file.unlink()
    command = [*TRAINRUN, "clone", str(run / "manifest.json"), "--name", "again"]
    cloned = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert cloned.returncode == 0, cloned.stderr
    code, out, err = train(tmp_path / "here" / "again.yaml", workdir)
    assert code == 0, out + err
    first, second = Story(run), Story(workdir / "again")
    assert second.losses() == first.losses()
    assert second.digests()[20] == first.digests()[20]
    of_first, of_second = (json.loads((s.folder / "manifest.json").read_text()) for s in (first, second))
    for same in ("resolved", "data", "seeds", "versions"):
        assert of_first[same] == of_second[same] != {}, same
    assert (
        of_first["results"]["export"]["model-00001-of-00001.safetensors"]
        == (of_second["results"]["export"]["model-00001-of-00001.safetensors"])
    )
    assert marked(workdir) == []
