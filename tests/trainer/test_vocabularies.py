"""A model is trained with its own tokens: another tokenizer is refused before the text costs time, variants are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from trainrun_api.data_config import TokenizerConfig
from trainrun_api.train_config import ModelConfig, TrainConfig
from trainrun_trainer.errors import ConfigError
from trainrun_trainer.model import build_model
from trainrun_trainer.model_fit import refuse_another_tokenizer, refuse_unfit_model
from trainrun_trainer.tokenizer import load_tokenizer, make_tokenizer
from trainrun_trainer.vocabulary import Vocabulary, differing, told

from tests.trainer.models import VOCAB, save, tiny, tokenizer
from tests.trainer.runs import Site, only_code, tiny_config

PADDED = VOCAB + 64


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        pytest.param(Vocabulary({"a": 0}), Vocabulary({"a": 0}), [], id="equal"),
        pytest.param(Vocabulary({"a": 0, "b": 1}), Vocabulary({"a": 1, "b": 0}), ["a", "b"], id="other numbers"),
        pytest.param(Vocabulary({"a": 0, "b": 1}), Vocabulary({"a": 0, "c": 1}), ["b", "c"], id="other tokens"),
        pytest.param(Vocabulary({"a": 0}), Vocabulary({"a": 0, "b": 1}), ["b"], id="fewer: words are cut otherwise"),
        pytest.param(Vocabulary({"a": 0, "<p>": 1}, {"<p>"}), Vocabulary({"a": 0}), [], id="one added"),
        pytest.param(Vocabulary({"a": 0}), Vocabulary({"a": 0, "<p>": 1}, {"<p>"}), [], id="one not added"),
        pytest.param(
            Vocabulary({"a": 0, "<p>": 1}, {"<p>"}), Vocabulary({"a": 0, "<q>": 1}, {"<q>"}), [], id="one renamed"
        ),
        pytest.param(
            Vocabulary({"a": 0, "<p>": 1}, {"<p>"}), Vocabulary({"a": 0, "<p>": 2}, {"<p>"}), ["<p>"], id="one moved"
        ),
        pytest.param(
            Vocabulary({"a": 0, "<p>": 1}, {"<p>"}), Vocabulary({"a": 0, "b": 1}), ["b"], id="in another one's place"
        ),
    ],
)  # fmt: skip
def test_a_number_must_mean_the_same_token(one: Vocabulary, other: Vocabulary, found: list[str]) -> None:
    """Only added tokens may be more, fewer or of another name; which of the two is asked makes no difference."""
    assert differing(one, other) == differing(other, one) == found


def test_two_tokens_and_their_numbers_are_told() -> None:
    """The rest is counted."""
    one, other = Vocabulary({"a": 0, "b": 1, "c": 2}), Vocabulary({"a": 1, "c": 3})
    assert told(["a", "b", "c"], one, other) == "'a' is 0, there 1; 'b' is 1, there missing; 3 tokens differ"
    assert told(["a"], one, other) == "'a' is 0, there 1; 1 token differs"


@pytest.fixture(scope="module")
def manual() -> Any:
    """As many tokens as the tests' tokenizer has, of Python's documentation instead of the Bible."""
    return make_tokenizer(TokenizerConfig(vocab_size=VOCAB), (topics[name] for name in sorted(topics)[:8]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with the Bible's tokens, and rows to spare in its embedding."""
    return save(tiny(0, vocab_size=PADDED), tokenizer(), tmp_path / "model")


def config_of(text: Path, model: Path, words: dict[str, Any]) -> TrainConfig:
    raw = tiny_config(text, model={"path": str(model)})
    raw["data"]["tokenizer"] = words
    return TrainConfig.model_validate(raw)


def words_in(folder: Path, of: Any) -> Path:
    of.save_pretrained(folder)
    return folder


def with_added(folder: Path, at: Path, *tokens: str) -> Path:
    """The tokenizer of a folder with more tokens, elsewhere."""
    words = load_tokenizer(folder)
    words.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": list(tokens)})
    return words_in(at, words)


def test_another_tokenizer_of_equal_size_is_refused(text: Path, tmp_path: Path, folder: Path, manual: Any) -> None:
    """With both fields, two tokens, and what to do."""
    other = words_in(tmp_path / "other", manual)
    with pytest.raises(ConfigError) as caught:
        refuse_another_tokenizer(config_of(text, folder, {"path": str(other)}), other)
    assert str(caught.value).startswith(
        f"config.data.tokenizer.path={other} gives another tokenizer than that in config.model.path={folder} ('"
    )
    assert str(caught.value).endswith(
        f"tokens differ), so that the model would learn noise; use config.data.tokenizer.path={folder}, or take the "
        "tokenizer out of that folder if the model was not trained with it"
    )
    differ = differing(Vocabulary.of(manual), Vocabulary.of(tokenizer()))
    assert f"; {len(differ)} tokens differ)" in str(caught.value) and repr(differ[1]) in str(caught.value)


def test_more_tokens_than_the_model_embeds_are_refused(text: Path, tmp_path: Path, folder: Path) -> None:
    """One too many, in a folder or asked for: told at the start, and by whoever builds the model."""
    fits = with_added(folder, tmp_path / "fits", *(f"<{i}>" for i in range(63)))
    refuse_another_tokenizer(config_of(text, folder, {"path": str(fits)}), fits)
    wide = with_added(folder, tmp_path / "wide", *(f"<{i}>" for i in range(64)))
    words = rf"has {PADDED + 1} tokens but config\.model\.path={folder} embeds {PADDED}; use the tokenizer of that"
    with pytest.raises(ConfigError, match=rf"^config\.data\.tokenizer\.path={wide} {words}"):
        refuse_another_tokenizer(config_of(text, folder, {"path": str(wide)}), wide)
    refuse_unfit_model(config_of(text, folder, {"vocab_size": PADDED}))
    with pytest.raises(ConfigError, match=rf"^config\.data\.tokenizer\.vocab_size={PADDED + 1} {words}"):
        refuse_unfit_model(config_of(text, folder, {"vocab_size": PADDED + 1}))
    with pytest.raises(ConfigError, match=rf"^config\.data\.tokenizer {words}"):
        build_model(ModelConfig(path=str(folder)), PADDED + 1, 0, 64, 0.0, 0)


def without(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def renamed(folder: Path) -> None:
    """The tokenizer has a token kept in reserve, which the user's has given a name."""
    with_added(folder, folder, "<reserved>")


FITTING: dict[str, Callable[[Path], object]] = {
    "rows to spare in the embedding": lambda folder: None,
    "no tokenizer beside the model": without,
    "a token in reserve": renamed,
    "one that this image cannot load": lambda folder: (folder / "tokenizer.json").write_text("{"),
}


@pytest.mark.parametrize("case", list(FITTING))
def test_the_models_own_tokenizer_and_its_variants_are_taken(
    text: Path, tmp_path: Path, folder: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is, from a copy, and with tokens added; what cannot be compared is said and not refused."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    added = with_added(folder, tmp_path / "added", "<tool>")
    FITTING[case](folder)
    for words in (copy, added):
        refuse_another_tokenizer(config_of(text, folder, {"path": str(words)}), words)
    assert ("tokenizer-unchecked" in capsys.readouterr().err) is (case == "one that this image cannot load")


def test_a_random_start_has_no_tokens_of_its_own(text: Path, tmp_path: Path) -> None:
    """Nothing is compared."""
    config = TrainConfig.model_validate(tiny_config(text))
    refuse_unfit_model(config)
    refuse_another_tokenizer(config, tmp_path)


def test_a_run_with_another_tokenizer_reads_no_text(text: Path, tmp_path: Path, folder: Path, manual: Any) -> None:
    """Code 20 and one sentence on every rank."""
    other = words_in(tmp_path / "other", manual)
    site = Site(text, tmp_path, changes(text, folder, {"path": str(other)}))
    ended = site.run(2)
    message = only_code(ended, 20)["message"]
    assert "gives another tokenizer than that in config.model.path" in message
    assert {one.outcome["message"] for one in ended if one.outcome} == {message}
    assert not (site.store / "data").exists()


def test_a_tokenizer_of_the_runs_own_text_is_known_when_it_is_made(text: Path, tmp_path: Path, folder: Path) -> None:
    """Beside a model with another one: after the text, before any step, and the next start finds it at once."""
    site = Site(text, tmp_path, changes(text, folder, {"vocab_size": VOCAB}))
    for _ in range(2):
        message = only_code(site.run(1), 20)["message"]
        assert f"config.data.tokenizer.vocab_size={VOCAB} gives another tokenizer than that in" in message
    assert not list((site.store / "metrics").glob("*")) and not site.manifests()


def test_a_run_that_has_begun_needs_neither_tokenizer_again(
    text: Path, tmp_path: Path, folder: Path, manual: Any
) -> None:
    """Its text is prepared and its steps are taken: what becomes of the folders' tokenizers then changes nothing."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    site = Site(text, tmp_path, changes(text, folder, {"path": str(copy)}) | {"total_steps": 1})
    site.finish(1)
    shutil.rmtree(copy)
    words_in(folder, manual)
    site.changes["total_steps"] = 2
    site.finish(1)


def changes(text: Path, folder: Path, words: dict[str, Any]) -> dict[str, Any]:
    data = tiny_config(text)["data"] | {"tokenizer": words}
    return {"model": {"path": str(folder)}, "data": data, "eval": None}
