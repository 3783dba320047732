"""Merging: the arithmetic against mergekit, bounded memory, refusals, and what the result says of itself."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainrun_api.stage_config import MergeConfig
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.merging import methods
from trainrun_trainer.merging.__main__ import main
from trainrun_trainer.merging.merge import run
from trainrun_trainer.model_folder import ModelFolder
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests.trainer.memory import peak_kib
from tests.trainer.models import save, tiny, tokenizer
from tests.trainer.oracle import MERGEKIT, python_with

DROP, SEED = 0.6, 5
CONFIGS: dict[str, dict[str, Any]] = {
    "linear": {"weights": [0.2, 0.5, 0.6]},
    "slerp": {"t": 0.3},
    "ties": {"density": 0.4, "weights": [1.0, 0.5], "t": 0.8},
    "dare": {"drop": DROP, "seed": SEED, "weights": [0.5, 0.7]},
    "dare-ties": {"drop": DROP, "seed": SEED, "t": 0.9},
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and two models tuned from it, one of them in several files."""
    root = tmp_path_factory.mktemp("models")
    words, base = tokenizer(), tiny(0)
    save(base, words, root / "base")
    save(tiny(1, base), words, root / "one")
    save(tiny(2, base), words, root / "two", max_shard_size="200KB")
    return [root / "base", root / "one", root / "two"]


def merge(models: list[Path], out: Path, **config: Any) -> dict[str, Any]:
    return run(MergeConfig(**config), {"models": [str(m) for m in models], "out": str(out)})


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All of a folder."""
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def asked_of_mergekit(models: list[Path], root: Path) -> dict[str, dict[str, Any]]:
    """The same merges in mergekit's words. Its lambda makes up for what DARE leaves; its masks are ours."""
    base, one, two = map(str, models)
    up = 1 / (1 - DROP)

    def merge_of(method: str, weights: list[float], **parameters: Any) -> dict[str, Any]:
        others = [{"model": m, "parameters": {"weight": w}} for m, w in zip((one, two), weights, strict=True)]
        return {
            "merge_method": method, "base_model": base, "models": [{"model": base}, *others],
            "parameters": parameters, "dtype": "float32",
        }  # fmt: skip

    linear = [{"model": m, "parameters": {"weight": w}} for m, w in zip((base, one, two), (0.2, 0.5, 0.6), strict=True)]
    return {
        str(root / "linear"): {"merge_method": "linear", "models": linear, "dtype": "float32"},
        str(root / "slerp"): {
            "merge_method": "slerp", "base_model": base, "models": [{"model": base}, {"model": one}],
            "parameters": {"t": 0.3}, "dtype": "float32",
        },
        str(root / "ties"): merge_of("ties", [1.0, 0.5], density=0.4, **{"lambda": 0.8}),
        str(root / "dare"): merge_of("dare_linear", [0.5, 0.7], density=1 - DROP, rescale=False, **{"lambda": up}),
        str(root / "dare-ties"): merge_of(
            "dare_ties", [1.0, 1.0], density=1 - DROP, rescale=False, normalize=True, **{"lambda": 0.9 * up}
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def by_mergekit(three: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every merge, done by mergekit in one process of its own environment."""
    python, root = python_with(MERGEKIT), tmp_path_factory.mktemp("mergekit")
    base = ModelFolder(three[0])
    for number in range(2):
        kept = {
            n: methods.survivors(methods.lot(SEED, n, number), math.prod(e.shape), DROP).reshape(e.shape)
            for n, e in base.entries.items()
        }
        save_file(kept, root / f"{number}.safetensors")
    whole = root / "two-whole.safetensors"
    save_file(tensors(three[2]), whole)
    dare = {
        "base": f"{three[0]}/model.safetensors", "models": [f"{three[1]}/model.safetensors", str(whole)],
        "survivors": str(root),
    }  # fmt: skip
    (root / "asked.json").write_text(json.dumps({"dare": dare, "merges": asked_of_mergekit(three, root)}))
    program = Path(__file__).with_name("mergekit_merges.py")
    done = subprocess.run([python, program, root / "asked.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("method", list(CONFIGS))
def test_mergekit_makes_the_same(three: list[Path], by_mergekit: Path, tmp_path: Path, method: str) -> None:
    """Within 1e-6 in every element; and something was merged."""
    models = three[:2] if method == "slerp" else three
    merge(models, tmp_path / "out", method=method, **CONFIGS[method])
    ours, theirs, base = tensors(tmp_path / "out"), tensors(by_mergekit / method), tensors(three[0])
    assert ours.keys() == base.keys() <= theirs.keys()
    for name, tensor in ours.items():
        assert float((tensor - theirs[name]).abs().max()) <= 1e-6, name
        assert not torch.equal(tensor, base[name]), name


def test_the_result_loads_in_plain_transformers_and_knows_its_parents(three: list[Path], tmp_path: Path) -> None:
    """Several files with an index, the base's tokenizer and template, hashes of both parents; a second call is free."""
    (three[0] / "chat_template.jinja").write_text("{{ messages }}")
    merge(three[:2], tmp_path / "out", method="linear", t=0.25, max_shard_bytes=200_000)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    first, second = (AutoModelForCausalLM.from_pretrained(m).state_dict() for m in three[:2])
    for name, tensor in merged.state_dict().items():
        assert torch.allclose(tensor, 0.75 * first[name] + 0.25 * second[name], atol=1e-7), name
    words = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert words.get_vocab() == AutoTokenizer.from_pretrained(three[0]).get_vocab()
    assert words.chat_template == "{{ messages }}"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2 and index["metadata"]["total_size"] == sum(
        t.nbytes for t in tensors(tmp_path / "out").values()
    )
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert [Path(p["path"]) for p in lineage["parents"]] == three[:2]
    assert lineage["parents"][1]["files"] == ModelFolder(three[1]).facts()["files"]
    before = (tmp_path / "out" / files[0]).stat().st_ino
    merge(three[:2], tmp_path / "out", method="linear", t=0.25, max_shard_bytes=200_000)
    assert (tmp_path / "out" / files[0]).stat().st_ino == before
    with pytest.raises(ConfigError, match="exists already, made of something else"):
        merge(three[:2], tmp_path / "out", method="linear", t=0.5)


def test_the_ends_of_t_are_the_models(three: list[Path], tmp_path: Path) -> None:
    """t=0 is the base bit for bit; t=1 is the other."""
    for method in ("linear", "slerp"):
        for t, end in ((0.0, three[0]), (1.0, three[1])):
            merge(three[:2], tmp_path / f"{method}{t}", method=method, t=t)
            wanted = tensors(end)
            for name, tensor in tensors(tmp_path / f"{method}{t}").items():
                assert torch.allclose(tensor, wanted[name], atol=1e-7), (method, t, name)


def test_bf16_stays_bf16(tmp_path: Path) -> None:
    """Computed in fp32, stored in the base's type."""
    words, base = tokenizer(), tiny(0)
    save(base.to(torch.bfloat16), words, tmp_path / "base")
    save(tiny(1), words, tmp_path / "other")
    merge([tmp_path / "base", tmp_path / "other"], tmp_path / "out", method="slerp")
    name = "model.layers.0.mlp.up_proj.weight"
    merged = tensors(tmp_path / "out")[name]
    a, b = tensors(tmp_path / "base")[name], tensors(tmp_path / "other")[name]
    assert torch.equal(merged, methods.slerp(a, b, 0.5).to(torch.bfloat16))


def test_dare_is_seeded_and_keeps_the_expected_difference() -> None:
    """The same seed drops the same; another seed, tensor or model others; the mean of the difference stays."""
    base, other = torch.zeros(300, 300), torch.ones(300, 300)
    once, again, otherwise = (methods.dare(base, [other], [1.0], 0.9, 1.0, s, "w", False) for s in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, otherwise)
    assert sorted(set(once.flatten().tolist())) == [0.0, pytest.approx(10.0)]
    assert float(once.mean()) == pytest.approx(1.0, abs=0.05)
    lots = [methods.lot(1, name, number) for name, number in (("w", 0), ("v", 0), ("w", 1))]
    masks = [methods.survivors(dice, 64, 0.5) for dice in lots]
    assert len({tuple(mask.tolist()) for mask in masks}) == 3


def test_ties_by_hand() -> None:
    """Trim to half, elect by mass, average what agrees: worked out on paper."""
    base = torch.tensor([1.0, 1.0, 1.0, 1.0])
    one = base + torch.tensor([4.0, -3.0, 0.1, 0.2])
    two = base + torch.tensor([2.0, 5.0, 0.3, -0.1])
    merged = methods.ties(base, [one, two], [1.0, 1.0], 0.5, 1.0)
    assert merged.tolist() == pytest.approx([1 + 3.0, 1 + 5.0, 1.0, 1.0])
    merged = methods.ties(torch.zeros(3), [torch.tensor([1.0, -1.0, 1.0])], [1.0], 0.67, 1.0)
    assert merged.tolist() == [1.0, -1.0, 0.0], "of equal ones the first stay"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0,), (1,), (33, 17), (4, 5, 6)])
def test_pieces_make_the_same_as_the_whole(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: Any) -> None:
    """Bit for bit, with many differences of one size, of which the first stay."""
    dice = torch.Generator().manual_seed(1)
    base, one, two = (torch.randn(shape, generator=dice).mul(4).round().div(4).to(dtype) for _ in range(3))

    def results() -> list[torch.Tensor]:
        trimmed = [methods.ties(base, [one, two], [1.0, 0.5], density, 0.7) for density in (0.1, 0.5, 0.9, 1.0)]
        return trimmed + [methods.dare(base, [one, two], [1.0, 0.5], 0.5, 0.7, 3, "w", elects) for elects in (0, 1)]

    whole = results()
    for piece in (7, 64):
        monkeypatch.setattr(methods, "PIECE", piece)
        assert all(torch.equal(a, b) for a, b in zip(results(), whole, strict=True))


def other_vocabulary(root: Path) -> None:
    changed = PreTrainedTokenizerFast.from_pretrained(root / "base")
    state = json.loads(changed.backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    first, second = list(vocab)[300:302]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    save(tiny(1), tokenizer(), root / "other")
    file = root / "other" / "tokenizer.json"
    file.write_text(json.dumps(state))


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "vocabulary": ({"vocab_size": 520}, "vocab_size=520, but .*vocab_size=512; only models of one family"),
    "shape": ({"intermediate_size": 128}, r"mlp.down_proj.weight has shape \(64, 128\), but \(64, 172\)"),
    "layers": ({"num_hidden_layers": 3}, "has a tensor model.layers.2.* does not have"),
    "tied": ({"tie_word_embeddings": False}, "tie_word_embeddings=False, but"),
}


@pytest.mark.parametrize("case", list(REFUSALS))
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, case: str) -> None:
    """One sentence, before anything is written."""
    changes, words = REFUSALS[case]
    save(tiny(0), tokenizer(), tmp_path / "base")
    save(tiny(1, **changes), tokenizer(), tmp_path / "other")
    with pytest.raises(ConfigError, match=words):
        merge([tmp_path / "base", tmp_path / "other"], tmp_path / "out", method="slerp")
    assert not list(tmp_path.glob("*out*"))


def test_tokens_of_other_numbers_are_refused_by_name(tmp_path: Path) -> None:
    """Equal sizes, but two tokens have changed places."""
    save(tiny(0), tokenizer(), tmp_path / "base")
    other_vocabulary(tmp_path)
    with pytest.raises(ConfigError, match=r"is not that of .* \('.+' is 30\d, there 30\d; .*; 2 tokens differ\)"):
        merge([tmp_path / "base", tmp_path / "other"], tmp_path / "out", method="linear")


@pytest.mark.parametrize(
    ("config", "count", "words"),
    [
        pytest.param({"method": "slerp"}, 3, "slerp of 3 model", id="slerp of three"),
        pytest.param({"method": "ties"}, 1, "at least 2 models", id="one"),
        pytest.param({"method": "linear", "t": 0.5}, 3, "t is between two", id="t of three"),
        pytest.param({"method": "linear", "weights": [1.0]}, 2, "needs 2, not all 0", id="too few weights"),
        pytest.param({"method": "ties", "weights": [0.0]}, 2, "needs 1, not all 0", id="no weight"),
        pytest.param({"method": "slerp", "weights": [1.0, 1.0]}, 2, "slerp only t", id="slerp by weights"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config: dict[str, Any], count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MergeConfig(**config).weights_of(count)


def test_the_command_merges_and_refuses_in_one_sentence(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--method", "ties", "--density", "0.3", *map(str, three), str(tmp_path / "out")])
    assert capsys.readouterr().out == f"{tmp_path}/out: 20 tensors of 3 models merged\n"
    for arguments, words in (
        (["--method", "mix", *map(str, three), str(tmp_path / "no")], "--method: Input should be 'linear'"),
        (["--method", "slerp", str(tmp_path), str(three[0]), str(tmp_path / "no")], "its config.json cannot be read"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert words in str(ended.value) and "\n" not in str(ended.value)


MERGED = """
from trainrun_api.stage_config import MergeConfig
from trainrun_trainer.merging.merge import run

def work(size):
    models = [str(root / f"{size}{i}") for i in range(2)]
    run(MergeConfig(method="ties"), {"models": models, "out": str(root / f"{size}-out")})
"""


def test_memory_is_a_few_tensors_whatever_the_models_size(tmp_path: Path) -> None:
    """Two models of 160 MB in tensors of 4 MB: less than 80 MB more than after a small merge, not the models' 320."""
    for size, count in (("small", 1), ("large", 40)):
        for number in range(2):
            folder = tmp_path / f"{size}{number}"
            folder.mkdir()
            (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 512}')
            torch.manual_seed(number)
            save_file({f"layer{i:02}": torch.randn(1024, 1024) for i in range(count)}, folder / "model.safetensors")
    assert peak_kib(MERGED, tmp_path) < 80_000
