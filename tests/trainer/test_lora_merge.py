"""Merging adapters: peft as oracle, what is left alone, bounded memory, and what is refused before any write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from trainrun_trainer import lora_merge
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.families import FAMILIES

from tests.trainer.folders import MODELS, save_model
from tests.trainer.runs import Site

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")]


def model_of(folder: Path, kind: str, **settings: Any) -> Any:
    """Plain transformers."""
    return getattr(transformers, FAMILIES[MODELS[kind][0]].model_class).from_pretrained(folder, **settings)


def save_adapter(folder: Path, base: Path, kind: str, **settings: Any) -> Path:
    """An adapter of peft's own with random weights."""
    targets = list(FAMILIES[MODELS[kind][0]].lora_targets)
    torch.manual_seed(1)
    model = peft.get_peft_model(
        model_of(base, kind), peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, **settings)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path, kind: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The oracle."""
    model = peft.PeftModel.from_pretrained(model_of(base, kind, dtype=dtype), str(adapter)).merge_and_unload()
    return dict(model.state_dict())


@pytest.mark.parametrize(
    ("kind", "settings", "dtype"),
    [
        pytest.param("llama", {}, torch.float32, id="LoRA"),
        pytest.param("llama", {"use_dora": True}, torch.float32, id="DoRA"),
        pytest.param("llama", {"use_rslora": True}, torch.float32, id="scaled by the root"),
        pytest.param("mpt", {}, torch.bfloat16, id="bf16"),
        pytest.param("gpt_neox", {"use_dora": True}, torch.float32, id="other names in files"),
    ],
)
def test_merged_tensors_are_peft_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    """S3-13: over several files, in blocks of few rows; all other bytes, index and other files are the base's."""
    monkeypatch.setattr(lora_merge, "BLOCK_BYTES", 1000)
    whole = save_model(tmp_path / "whole", kind)
    base = tmp_path / "base"
    model_of(whole, kind).to(dtype).save_pretrained(base, max_shard_size="100KB")
    (base / "tokenizer.json").write_text("{}")
    adapter = save_adapter(tmp_path / "adapter", base, kind, **settings)
    changed = lora_merge.merge(base, adapter, tmp_path / "out")
    expected = merged_by_peft(base, adapter, kind, dtype)
    files = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(files) > 1
    different = 0
    for file in files:
        before, after = load_file(base / file), load_file(tmp_path / "out" / file)
        assert before.keys() == after.keys()
        for name, tensor in after.items():
            inside = {"embed_out.weight": "lm_head.weight"}.get(name, name)
            torch.testing.assert_close(tensor, expected[inside], rtol=8e-3 if dtype == torch.bfloat16 else 0, atol=1e-6)
            different += not torch.equal(tensor, before[name])
    assert different == changed == 2 * len(FAMILIES[MODELS[kind][0]].lora_targets)
    for name in ("model.safetensors.index.json", "config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()


def test_a_run_s_export_is_merged_into_its_base_only(text: Path, tmp_path: Path) -> None:
    """S3-14: train, merge, infer; logits are those of base and adapter, and another base is refused by its hash."""
    base = save_model(tmp_path / "base", "mistral")
    changes = {"model": {"path": str(base)}, "lora": {"r": 4}, "total_steps": 2, "eval": None}
    site = Site(text, tmp_path, changes, {"interval": 2, "keepLast": 10})
    site.finish(1)
    command = [sys.executable, "-m", "trainrun_trainer.lora_merge", str(base), str(site.store / "export")]
    done = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'out'}: 4 tensors merged\n"
    tokens = torch.arange(30)[None]
    adapted = peft.PeftModel.from_pretrained(model_of(base, "mistral"), str(site.store / "export"))
    with torch.no_grad():
        torch.testing.assert_close(
            model_of(tmp_path / "out", "mistral")(tokens).logits, adapted(tokens).logits, rtol=0, atol=1e-5
        )
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage["adapter"]["state_digest"] == site.digests()[2]
    other = save_model(tmp_path / "other", "mistral", rms_norm_eps=1e-3)
    with pytest.raises(ConfigError, match=rf"was trained on {base} .* but {other} is another model"):
        lora_merge.merge(other, site.store / "export", tmp_path / "second")


def test_memory_is_bounded_by_the_shards(tmp_path: Path) -> None:
    """S3-13: at most twice the largest file above what the program needs anyway; the model is five of them."""
    shard_bytes, width = 32 << 20, 2048
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    weight_map, tensors = {}, {}
    for number in range(5):
        name, file = f"layers.{number}.q_proj", f"model-{number}.safetensors"
        save_file({f"{name}.weight": torch.ones(shard_bytes // 4 // width, width)}, base / file)
        weight_map[f"{name}.weight"] = file
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(8, width)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(shard_bytes // 4 // width, 8)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (base / "config.json").write_text("{}")
    save_file(tensors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8}))
    program = (
        "import re, sys, torch\n"
        "from pathlib import Path\n"
        "from trainrun_trainer import lora_merge\n"
        "status = lambda name: int(re.search(rf'{name}:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "torch.addmm(torch.ones(512, 512), torch.ones(512, 8), torch.ones(8, 512))\n"
        "before = status('VmRSS')\n"
        "lora_merge.merge(*map(Path, sys.argv[1:]))\n"
        "print((status('VmHWM') - before) * 1024)\n"
    )
    arguments = [sys.executable, "-c", program, str(base), str(adapter), str(tmp_path / "out")]
    grown = int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    assert lora_merge.BLOCK_BYTES < grown <= 2 * shard_bytes


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        pytest.param({"bias": "all"}, "llama", "not peft_type=LORA, bias=all; merge with peft", id="biases"),
        pytest.param({"rank_pattern": {"q_proj": 2}}, "llama", "not rank_pattern; merge with peft", id="ranks"),
        pytest.param(
            {}, "mpt", r"it changes transformer\.blocks\.0\.attn\.Wqkv\.weight, which .* not have", id="model"
        ),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, settings: dict[str, Any], kind: str, words: str) -> None:
    """With a sentence, and nothing is written."""
    base, own = save_model(tmp_path / "base", "llama"), save_model(tmp_path / "own", kind)
    adapter = save_adapter(tmp_path / "adapter", own, kind, **settings)
    with pytest.raises(ConfigError, match=words):
        lora_merge.merge(base, adapter, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "own", "adapter"}


def test_other_shapes_and_places_are_refused(tmp_path: Path) -> None:
    """A smaller sibling of the base; a folder that is there; what is no adapter, or no tensors, at all."""
    own, wide = save_model(tmp_path / "own", "llama"), save_model(tmp_path / "wide", "llama", hidden_size=128)
    adapter = save_adapter(tmp_path / "adapter", own, "llama")
    with pytest.raises(ConfigError, match=r"is for shape \(64, 64\) .* has \(128, 128\) in F32"):
        lora_merge.merge(wide, adapter, tmp_path / "out")
    with pytest.raises(ConfigError, match="wide exists already"):
        lora_merge.merge(own, adapter, wide)
    with pytest.raises(ConfigError, match=r"its adapter_config\.json cannot be read"):
        lora_merge.merge(own, wide, tmp_path / "out")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "r": None}))
    with pytest.raises(ConfigError, match=r"has r=None, expected a number"):
        lora_merge.merge(own, adapter, tmp_path / "out")
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    (own / "model.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(ConfigError, match=r"model\.safetensors is no safetensors file .* fetch the base model again"):
        lora_merge.merge(own, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
