"""A bridge, and for each node a network namespace with one cable to it.

    10.77.0.1         the bridge: API server and DNS
    10.77.0.1<i>      node i
    10.244.<i>.0/24   pods of node i, routed by the nodes and by the machine itself, so that answers find back

Nothing is forwarded beyond the bridge: nodes and pods have no way out of this machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.nodes.machine import Unavailable, call

BRIDGE = "trainrun0"
ADDRESS = "10.77.0.1"
NETWORK = "10.77.0.0/24"
POD_RANGE = "10.244.0.0/16"
NUMBERS = range(1, 9)
"""At most so many nodes."""


@dataclass(frozen=True)
class Place:
    """A node's names and addresses in the network."""

    number: int

    @property
    def namespace(self) -> str:
        return f"trainrun-{self.number}"

    @property
    def cable(self) -> str:
        """The machine's end; the node's is called eth0."""
        return f"trainrun0-{self.number}"

    @property
    def address(self) -> str:
        return f"10.77.0.1{self.number}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"


def make_bridge() -> None:
    """Raises Unavailable if the machine has routes there already."""
    taken = [line for line in call("ip", "route").splitlines() if line.startswith(("10.77.0.", "10.244.", "10.96."))]
    if taken:
        raise Unavailable(f"the machine has a route to {taken[0].split()[0]}, where the nodes would be")
    call("ip", "link", "add", BRIDGE, "type", "bridge")
    call("ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    call("ip", "link", "set", BRIDGE, "up")


def connect(place: Place) -> None:
    """The node's namespace, its cable, its routes."""
    call("ip", "netns", "add", place.namespace)
    call("ip", "link", "add", place.cable, "type", "veth", "peer", "name", "eth0", "netns", place.namespace)
    call("ip", "link", "set", place.cable, "master", BRIDGE, "up")
    call("ip", "route", "replace", place.pods, "via", place.address)
    inside = ("ip", "-netns", place.namespace)
    call(*inside, "link", "set", "lo", "up")
    call(*inside, "address", "add", f"{place.address}/24", "dev", "eth0")
    call(*inside, "link", "set", "eth0", "up")
    call(*inside, "route", "add", "default", "via", ADDRESS)
    for other in (Place(number) for number in NUMBERS if number != place.number):
        call(*inside, "route", "add", other.pods, "via", other.address)


def set_cable(place: Place, state: str) -> None:
    """Pull it (down) or plug it in again (up)."""
    call("ip", "link", "set", place.cable, state)


def cut_pod(place: Place, address: str, *, is_cut: bool) -> None:
    """Drop whatever its node forwards from or to the pod, or forward it again; the node itself stays connected."""
    inside = ("nsenter", f"--net=/run/netns/{place.namespace}", "iptables", "--wait")
    for side in ("--source", "--destination"):
        call(*inside, "--insert" if is_cut else "--delete", "FORWARD", side, address, "--jump", "DROP")


def disconnect(place: Place) -> None:
    """Everything that `connect` made, or what is left of it."""
    call("ip", "link", "delete", place.cable, quiet=True)
    call("ip", "route", "delete", place.pods, quiet=True)
    call("ip", "netns", "delete", place.namespace, quiet=True)


def remove_all() -> None:
    """The bridge and everything that hung on it."""
    for number in NUMBERS:
        disconnect(Place(number))
    call("ip", "link", "delete", BRIDGE, quiet=True)
