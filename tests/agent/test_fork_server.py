"""The fork server: everything imported, nothing started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from trainrun_trainer.accelerators import START_METHOD

from tests.agent.pods import started


def test_the_fork_server_has_imported_all_and_touched_nothing(tmp_path: Path) -> None:
    """One thread, no CUDA, no driver mapped; and the preload really happened (a fork server swallows ImportError)."""
    facts_path = tmp_path / "facts.json"
    launcher = [sys.executable, "-m", "trainrun_trainer.launcher", "--entry", "tests.agent.inspecting_worker:run"]
    env = {"TEST_FACTS": str(facts_path), "TRAINRUN_CONFIG": json.dumps({"lora": {"r": 8}})}
    with started(tmp_path, launcher, **env) as (pod,):
        assert pod.wait() == 0
        facts = json.loads(facts_path.read_text())
    assert not facts["launcher_is_parent"]
    assert facts["threads"] == 1
    assert facts["libcuda"] == facts["nvidia_files"] == []
    assert facts["cuda_initialized"] is False
    assert facts["nvml_based_check"] == facts["own_store"] == "1"
    wanted = {"torch", "transformers.models.llama.modeling_llama", "peft", "trainrun_trainer.worker"}
    assert wanted <= set(facts["preloaded"])


def test_only_proven_accelerators_use_the_fork_server() -> None:
    """Neuron's runtime is started anew in each worker."""
    assert START_METHOD == {"cpu": "forkserver", "cuda": "forkserver", "neuron": "spawn"}
