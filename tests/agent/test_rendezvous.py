"""The launcher is given an address: names come late, and go when a node is not Ready for a moment."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from trainrun_trainer.agent import rendezvous
from trainrun_trainer.agent.rendezvous import find_endpoint
from trainrun_trainer.launcher_group import local_address

V4, V6 = (socket.AF_INET, 0, 0, "", ("10.1.2.3", 0)), (socket.AF_INET6, 0, 0, "", ("fd00::7", 0, 0, 0))


def go_on() -> bool:
    return False


@pytest.mark.parametrize(
    ("endpoint", "addresses", "host", "found"),
    [
        ("worker-0:29500", [V4, V6], "worker-0", "10.1.2.3:29500"),
        ("worker-0:29500", [V6], "worker-0", "[fd00::7]:29500"),
        ("[fd00::7]:29500", [V6], "fd00::7", "[fd00::7]:29500"),
    ],
)
def test_a_name_becomes_an_address(endpoint: str, addresses: list[Any], host: str, found: str) -> None:
    """Brackets as they belong to IPv6."""
    asked: list[str] = []

    def resolve(name: str) -> list[Any]:
        asked.append(name)
        return addresses

    assert find_endpoint(endpoint, 1.0, go_on, resolve) == (found, None)
    assert asked == [host]


def test_a_name_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pod is not Ready yet."""
    monkeypatch.setattr(rendezvous, "POLL_SECONDS", 0.001)
    answers: list[Any] = [OSError("not known"), OSError("not known"), [V4]]

    def resolve(name: str) -> list[Any]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer  # type: ignore[no-any-return]

    assert find_endpoint("worker-0:29500", 60.0, go_on, resolve) == ("10.1.2.3:29500", None)


def test_a_name_that_never_comes_is_told() -> None:
    """And nothing is told of a wait that was ended."""

    def resolve(name: str) -> list[Any]:
        raise OSError("not known")

    found = find_endpoint("worker-0:29500", 0.0, go_on, resolve)
    assert found.endpoint == "worker-0:29500"
    assert "'worker-0' cannot be resolved" in str(found.problem)
    assert find_endpoint("worker-0:29500", 60.0, lambda: True, resolve) == ("worker-0:29500", None)
    assert find_endpoint("", 60.0, go_on, resolve) == ("", None)


def test_the_launcher_asks_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the address it finds its own without one: a name that was there a moment ago may be gone."""
    inner = socket.getaddrinfo

    def numeric(host: Any, port: Any, *args: Any, **named: Any) -> Any:
        return inner(host, port, *args, **{**named, "flags": socket.AI_NUMERICHOST})

    endpoint = find_endpoint("localhost:29500", 5.0, go_on).endpoint
    monkeypatch.setattr(socket, "getaddrinfo", numeric)
    assert local_address(endpoint) in ("127.0.0.1", "::1")
    with pytest.raises(socket.gaierror):
        local_address("localhost:29500")
