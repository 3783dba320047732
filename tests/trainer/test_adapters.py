"""LoRA and DoRA: what is trained, what is kept, exact resume, and the way to peft and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F  # noqa: N812 - torch's own name
from torch.utils.flop_counter import FlopCounterMode
from trainrun_api.train_config import LoraConfig, ModelConfig
from trainrun_trainer.adapters import add_adapters
from trainrun_trainer.attention import register
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.families import FAMILIES
from trainrun_trainer.fused import fuse
from trainrun_trainer.model import build_model, forward
from transformers import LlamaConfig, LlamaForCausalLM

from tests.trainer.folders import MODELS, VOCABULARY, save_model
from tests.trainer.runs import Site, only_code, was_killed

pytestmark = pytest.mark.timeout(300)
LLAMA_3_8B = {
    "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(folder: Path, **lora: Any) -> Any:
    """A model with adapters, as a run builds it."""
    model = build_model(ModelConfig(path=str(folder)), VOCABULARY, 0, 64, 0.0, 0)
    add_adapters(model, LoraConfig(**lora), str(folder), 7)
    return model


def trained(model: Any) -> dict[str, torch.Tensor]:
    """What requires a gradient."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def site_of(text: Path, root: Path, kind: str, **lora: Any) -> Site:
    """A run of 6 steps with adapters on a folder of its own."""
    base = save_model(root.parent / f"{root.name}-base", kind)
    changes = {"model": {"path": str(base)}, "lora": {"r": 4, **lora}, "total_steps": 6, "eval": None}
    return Site(text, root, changes, {"interval": 3, "keepLast": 10})


@pytest.mark.parametrize("is_fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("sizes", [(256, 688, 6, 4), (640, 1728, 9, 10)], ids=["7M", "50M"])
def test_a_step_takes_two_thirds_of_the_operations(sizes: tuple[int, int, int, int], is_fused: bool) -> None:
    """S3-16: why adapters are faster, counted and not timed (bench/lora_speed.py): of a frozen matrix's three products
    one is not needed, the gradient of its weights. Operations of all matrix products and attention, as torch counts."""

    def operations(has_adapters: bool) -> int:
        hidden, inner, layers, heads = sizes
        shape: dict[str, Any] = {
            "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": 4096,
        }  # fmt: skip
        model = LlamaForCausalLM(LlamaConfig(**shape)).train()
        register()
        model.set_attn_implementation(FAMILIES["llama"].attention)
        if has_adapters:
            add_adapters(model, LoraConfig(r=8), "base", 0)
        assert not is_fused or fuse(model, torch.device("cpu"))
        tokens = torch.arange(64).view(1, -1)
        with FlopCounterMode(display=False) as counter:
            logits = forward(model, tokens, tokens)
            F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
        return int(counter.get_total_flops())

    assert operations(has_adapters=False) > 1.45 * operations(has_adapters=True)


@pytest.mark.parametrize(("targets", "number"), [([], 6_815_744), (EVERY, 41_943_040)], ids=["q and v", "all linear"])
def test_trained_parameters_of_llama_3_8b(targets: list[str], number: int) -> None:
    """S3-16: to the unit, without any memory."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_3_8B))
        add_adapters(model, LoraConfig(r=16, target_modules=targets), "base", 0)
    assert sum(p.numel() for p in trained(model).values()) == number
    assert sum(p.numel() for p in model.parameters()) == number + 8_030_261_248


@pytest.mark.parametrize("use_dora", [False, True], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("kind", sorted(MODELS))
def test_adapters_begin_as_nothing(tmp_path: Path, kind: str, use_dora: bool) -> None:
    """S3-01: in every family the first step is the base model's; only adapters are trained, from the seed alone."""
    folder = save_model(tmp_path, kind)
    tokens, places = torch.arange(10)[None], torch.arange(10)[None]
    plain = build_model(ModelConfig(path=str(folder)), VOCABULARY, 0, 64, 0.0, 0)
    torch.rand(3)
    model = adapted(folder, use_dora=use_dora)
    torch.testing.assert_close(forward(model, tokens, places), forward(plain, tokens, places), rtol=0, atol=2e-6)
    assert {name.split(".lora_")[1].split(".")[0] for name in trained(model)} == (
        {"A", "B", "magnitude_vector"} if use_dora else {"A", "B"}
    )
    again = trained(adapted(folder, use_dora=use_dora))
    assert all(torch.equal(tensor, again[name]) for name, tensor in trained(model).items())
    targets = FAMILIES[MODELS[kind][0]].lora_targets
    assert len(trained(model)) == 2 * len(targets) * (3 if use_dora else 2)


def test_an_unknown_module_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """peft would leave it out without a word beside one that it finds; embeddings are none."""
    folder = save_model(tmp_path, "falcon 7b")
    for wrong in ("q_proj", "word_embeddings", "lm_head"):
        with pytest.raises(ConfigError, match=f"{wrong} is no linear module of a falcon layer; use some of dense, den"):
            adapted(folder, target_modules=["query_key_value", wrong])


@pytest.mark.parametrize(
    ("world_size", "kind", "lora"),
    [
        pytest.param(1, "llama", {"dropout": 0.2}, id="LoRA with dropout"),
        pytest.param(2, "llama", {"target_modules": EVERY}, id="LoRA on 2 ranks"),
        pytest.param(2, "gpt_neox", {"use_dora": True}, id="DoRA on 2 ranks in bf16"),
    ],
)
def test_resume_is_bit_identical(text: Path, tmp_path: Path, world_size: int, kind: str, lora: dict[str, Any]) -> None:
    """Killed after the first save; at the end losses and digests are those of an undisturbed run."""
    site, undisturbed = (site_of(text, tmp_path / name, kind, **lora) for name in ("killed", "undisturbed"))
    for one in (site, undisturbed):
        one.changes["precision"] = "bf16" if "use_dora" in lora else "fp32"
    was_killed(site.run(world_size, "kill_in_slot", on_rank=0, nth=12 // world_size * 4), 0)
    site.finish(world_size)
    assert site.resumed_from() == 3
    undisturbed.finish(world_size)
    assert site.losses() == undisturbed.losses()
    assert site.digests() == undisturbed.digests()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("use_dora", [False, True], ids=["LoRA", "DoRA"])
def test_adapters_are_kept_alone_and_peft_loads_them(text: Path, tmp_path: Path, use_dora: bool) -> None:
    """A checkpoint holds adapters and their moments; the export is the adapter folder that peft itself would write."""
    site = site_of(text, tmp_path / "run", "falcon 40b", use_dora=use_dora)
    site.finish(2)
    [file, *others] = (site.store / "step-6-c1").glob("*.safetensors")
    names = set()
    for path in [file, *others]:
        with safe_open(path, "pt") as tensors:
            names |= set(tensors.keys())
    assert all(".lora_" in name for name in names)
    folder = Path(site.changes["model"]["path"])
    base = build_model(ModelConfig(path=str(folder)), VOCABULARY, 0, 64, 0.0, 0)
    model = peft.PeftModel.from_pretrained(base, str(site.store / "export"))
    model.save_pretrained(str(tmp_path / "theirs"))
    ours, theirs = (load_file(f / "adapter_model.safetensors") for f in (site.store / "export", tmp_path / "theirs"))
    assert ours.keys() == theirs.keys() and len(names) == 3 * len(ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(tensor.abs().max() > 0 for name, tensor in ours.items() if "lora_B" in name)
    assert f"lora_merge {folder} THIS_FOLDER OUT" in (site.store / "export" / "README.md").read_text()
    lineage = json.loads((site.store / "export" / "lineage.json").read_text())
    assert lineage["base"] == site.manifests()["step-6-c1"]["base"] and lineage["base"]["path"] == str(folder)


def test_another_base_model_is_refused(text: Path, tmp_path: Path) -> None:
    """By its tensors, not by its path; on the same one the run goes on, with another number of ranks too."""
    site = site_of(text, tmp_path / "run", "llama")
    site.changes["total_steps"] = 2
    site.finish(1)
    site.changes["total_steps"] = 3
    site.finish(2)
    assert site.resumed_from() == 2
    site.changes["total_steps"] = 4
    weights = Path(site.changes["model"]["path"]) / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] += 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    message = only_code(site.run(2), 20)["message"]
    assert "but the adapters of step 3 were trained on" in message and "restore that model" in message


def test_a_random_start_has_no_adapters(site: Site) -> None:
    """Where no rule of the API stands before."""
    site.changes["lora"] = {}
    assert "adapters need a pretrained model" in only_code(site.run(1), 20)["message"]
