"""What a user writes, as one of the frozen models, or one sentence that names the wrong field."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trainrun_trainer.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], raw: Any, where: str) -> M:
    """`raw` as that model. Raises ConfigError with `where` before the path of the first wrong field."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":  # a sentence of ours about several fields; the value is in it
            place = f"{where}{field}".rstrip(".")
            raise ConfigError(f"{place}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])) from error
        raise ConfigError(f"{where}{field}: {first['msg']}, got {first['input']!r}") from error
