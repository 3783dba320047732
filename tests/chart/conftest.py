"""Both helms, or a skip that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chart.helm import HELM_VERSIONS, FetchError, helm, kubectl
from tests.chart.rendering import Chart


def fetched(program: Callable[[], Path]) -> Path:
    """The program; without it the layer cannot run."""
    try:
        return program()
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=HELM_VERSIONS)
def chart(request: pytest.FixtureRequest) -> Chart:
    """The chart under each helm."""
    return Chart(fetched(lambda: helm(request.param)))


@pytest.fixture(scope="session")
def kubectl_path() -> Path:
    """kubectl."""
    return fetched(kubectl)
