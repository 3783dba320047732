"""Pods that have a node but whose container does not start: whose fault it is, and how long to be patient."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainrun_operator.core.observed import PodFacts
from trainrun_operator.core.situation import Situation
from trainrun_operator.core.verdict import Finding

IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "ImageInspectError",
        "SignatureValidationFailed",
    }
)
CONTAINER_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"}
)
"""Waiting reasons of kubelet 1.33 that a healthy start never shows."""

HOPELESS_REASONS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_HOPELESS_TEXT = re.compile(
    r"not found|denied|unauthorized|manifest unknown|does not exist|no such image", re.IGNORECASE
)

REGISTRY_PATIENCE_SECONDS = 900.0
"""A registry that does not answer may come back."""
CONFIG_PATIENCE_SECONDS = 60.0
"""A Secret or ConfigMap of the same release may be applied a moment later."""


@dataclass(frozen=True)
class Trouble:
    """The first pod whose container does not start."""

    is_image: bool
    patient_until: datetime
    facts: dict[str, object]
    finding: Finding


def trouble(situation: Situation) -> Trouble | None:
    """What keeps a container of the attempt from starting; None: nothing."""
    for pod in situation.living:
        if pod.waiting_reason in IMAGE_REASONS | CONTAINER_REASONS:
            return _describe(pod)
    return None


def _describe(pod: PodFacts) -> Trouble:
    is_image = pod.waiting_reason in IMAGE_REASONS
    error = f"{pod.waiting_reason}: {pod.waiting_message}".rstrip(": ")
    since = pod.scheduled_at or pod.created_at
    patience = REGISTRY_PATIENCE_SECONDS if is_image else CONFIG_PATIENCE_SECONDS
    if is_image and (pod.waiting_reason in HOPELESS_REASONS or _HOPELESS_TEXT.search(pod.waiting_message)):
        patience = 0.0
    if is_image:
        finding = Finding("ImageUnavailable", "Certain", f"Pod {pod.name} cannot pull image {pod.image} ({error}).")
    else:
        finding = Finding("ContainerUncreatable", "Certain", f"Pod {pod.name} cannot create its container ({error}).")
    facts: dict[str, object] = {"pod": pod.name, "image": pod.image, "error": error}
    return Trouble(is_image, since + timedelta(seconds=patience), facts, finding)
