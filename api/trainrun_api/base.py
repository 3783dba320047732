"""The two base classes of the API's models: strict for what users write, lenient for what we wrote."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Strict(BaseModel):
    """Written by a user in snake_case: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StrictCamel(BaseModel):
    """Written by a user in Kubernetes' camelCase: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class LenientCamel(BaseModel):
    """Written by some version of the operator: frozen, unknown fields kept."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)
