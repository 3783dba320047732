"""The parts of a pod template that rules look at; the rest of PodTemplateSpec passes through unread.

Typing all of it would add 600 KB to the CRD. What we do not type, the API server checks when the PyTorchJob's
pods are created.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

ShortText = Annotated[str, StringConstraints(max_length=256)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]


class Partial(BaseModel):
    """A piece of a Kubernetes object: unknown fields are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)


class EnvVar(Partial):
    """An environment variable."""

    name: str = Field(
        min_length=1, max_length=256, description="Name; TRAINRUN_* and torchrun's own are the operator's."
    )


class Container(Partial):
    """A container; `pytorch` is merged into the worker's own, any other name adds one beside it."""

    name: str = Field(min_length=1, max_length=63, description="pytorch, or the name of a container to add.")
    image: str | None = Field(None, max_length=512, description="Image; for pytorch use spec.image.")
    command: list[Annotated[str, StringConstraints(max_length=4096)]] | None = Field(
        None, max_length=64, description="Command; for pytorch use spec.command."
    )
    args: list[Annotated[str, StringConstraints(max_length=4096)]] | None = Field(
        None, max_length=256, description="Arguments; for pytorch use spec.command."
    )
    env: list[EnvVar] | None = Field(None, max_length=256, description="Merged by name into the operator's.")


class TemplateMetadata(Partial):
    """Labels and annotations of the worker pods."""

    labels: dict[str, LabelValue] | None = Field(None, max_length=64, description="Added to the worker pods.")
    annotations: dict[str, Annotated[str, StringConstraints(max_length=16384)]] | None = Field(
        None, max_length=64, description="Added to the worker pods."
    )


class TemplateSpec(Partial):
    """Pod spec of the workers."""

    restart_policy: ShortText | None = Field(
        None, description="Not allowed here: the operator restarts whole attempts."
    )
    containers: list[Container] | None = Field(None, max_length=16, description="Merged by name.")
    init_containers: list[Container] | None = Field(None, max_length=16, description="Merged by name.")


class PodTemplate(Partial):
    """Partial PodTemplateSpec."""

    metadata: TemplateMetadata | None = Field(None, description="Labels and annotations of the worker pods.")
    spec: TemplateSpec | None = Field(None, description="Volumes, service account, tolerations, affinity ...")

    def as_dict(self) -> dict[str, Any]:
        """The template as the user wrote it."""
        return self.model_dump(by_alias=True, exclude_unset=True)
