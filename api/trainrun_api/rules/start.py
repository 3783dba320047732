"""Rules on what a run starts from: a model and a tokenizer of its own, or those of another run's result."""

from __future__ import annotations

from trainrun_api.rules.base import OK, Facts, Rule, Values, pick

_OF_RUN = "(" + pick("resume.from", "'Latest'") + " == 'Run')"


def _is_of_run(facts: Facts) -> bool:
    return facts.spec.resume.from_ == "Run"


def _one_of(place: str, name: str) -> dict[str, str]:
    """Parts of a rule at spec: exactly one of two fields, or none of them where another run gives the model."""
    first, second = f"has(self.{place}.{name})", f"has(self.{place}.path)"
    return {
        "cel": f"!has(self.config) || {_OF_RUN} || {first} != {second}",
        "got": f"{first} ? 'both {name} and path' : 'neither {name} nor path'",
        "none": f"!has(self.config) || !{_OF_RUN} || (!{first} && !{second})",
    }


def _one_model(facts: Facts) -> Values | None:
    model = facts.spec.config.model if facts.spec.config else None
    if model is None or _is_of_run(facts):
        return OK
    return _exactly_one(model.architecture, model.path, "architecture")


def _one_tokenizer(facts: Facts) -> Values | None:
    tokenizer = facts.spec.config.data.tokenizer if facts.spec.config else None
    if tokenizer is None or _is_of_run(facts):
        return OK
    return _exactly_one(tokenizer.vocab_size, tokenizer.path, "vocab_size")


def _model_of_run(facts: Facts) -> Values | None:
    model = facts.spec.config.model if facts.spec.config and _is_of_run(facts) else None
    return OK if model is None or (model.architecture is None and model.path is None) else {}


def _tokenizer_of_run(facts: Facts) -> Values | None:
    tokenizer = facts.spec.config.data.tokenizer if facts.spec.config and _is_of_run(facts) else None
    return OK if tokenizer is None or (tokenizer.vocab_size is None and tokenizer.path is None) else {}


def _exactly_one(first: object, second: object, name: str) -> Values | None:
    if (first is None) != (second is None):
        return OK
    return {"got": f"neither {name} nor path" if first is None else f"both {name} and path"}


def _tokenizer_of_folder(facts: Facts) -> Values | None:
    config = facts.spec.config
    broken = config is not None and config.model.path is not None and config.data.tokenizer.path is None
    return {} if broken else OK


def _adapted_folder(facts: Facts) -> Values | None:
    config = facts.spec.config
    if config is None or config.lora is None or config.model.path is not None or _is_of_run(facts):
        return OK
    return {}


def _chat_template(facts: Facts) -> Values | None:
    data = facts.spec.config.data if facts.spec.config else None
    if data is None or data.tokenizer.path is not None or _is_of_run(facts):
        return OK
    is_chat = any(source.instruct and source.instruct.messages_field for source in data.sources.values())
    return {} if is_chat else OK


_MODEL = _one_of("config.model", "architecture")
_TOKENIZER = _one_of("config.data.tokenizer", "vocab_size")

RULES = (
    Rule(
        id="one-model-start",
        at="spec",
        child="config.model",
        cel=_MODEL["cel"],
        message="spec.config.model has {got}; give exactly one: architecture for a random start, path for a "
        "Hugging Face folder",
        values={"got": _MODEL["got"]},
        check=_one_model,
    ),
    Rule(
        id="model-of-run",
        at="spec",
        child="config.model",
        cel=_MODEL["none"],
        message="spec.config.model names a model beside spec.resume.from=Run, which gives that run's; "
        "leave architecture and path out",
        check=_model_of_run,
    ),
    Rule(
        id="tokenizer-of-run",
        at="spec",
        child="config.data.tokenizer",
        cel=_TOKENIZER["none"],
        message="spec.config.data.tokenizer names a tokenizer beside spec.resume.from=Run, which gives that run's; "
        "leave vocab_size and path out",
        check=_tokenizer_of_run,
    ),
    Rule(
        id="one-tokenizer",
        at="spec",
        child="config.data.tokenizer",
        cel=_TOKENIZER["cel"],
        message="spec.config.data.tokenizer has {got}; give exactly one: vocab_size to train one on the run's text, "
        "path for a folder with tokenizer files",
        values={"got": _TOKENIZER["got"]},
        check=_one_tokenizer,
    ),
    Rule(
        id="tokenizer-of-pretrained-model",
        at="spec.config",
        child="data",
        cel="!has(self.model.path) || has(self.data.tokenizer.path)",
        message="spec.config.data.tokenizer.path is missing beside spec.config.model.path; a pretrained model "
        "understands only its own tokens, so give the folder of its tokenizer",
        check=_tokenizer_of_folder,
    ),
    Rule(
        id="lora-needs-pretrained-model",
        at="spec",
        child="config.lora",
        cel=f"!has(self.config) || !has(self.config.lora) || has(self.config.model.path) || {_OF_RUN}",
        message="spec.config.lora is set, but spec.config.model.path is not; adapters are trained on a pretrained "
        "model, so give its folder, or leave lora out to train all weights",
        check=_adapted_folder,
    ),
    Rule(
        id="chat-template-of-folder",
        at="spec",
        child="config.data.tokenizer",
        cel=f"!has(self.config) || has(self.config.data.tokenizer.path) || {_OF_RUN} || "
        "!self.config.data.sources.exists(k, has(self.config.data.sources[k].instruct) && "
        "has(self.config.data.sources[k].instruct.messages_field))",
        message="spec.config.data.tokenizer.path is missing beside a source with instruct.messages_field; "
        "conversations are rendered by a chat template, so give the folder of a tokenizer that has one",
        check=_chat_template,
    ),
)
