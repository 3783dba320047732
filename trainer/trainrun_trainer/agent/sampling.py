"""Signs of life that do not depend on the program: CPU time, memory, network, devices. Read in a slow rhythm."""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

NETWORK_ROOT = "/sys/class"
_TICKS = float(os.sysconf("SC_CLK_TCK")) if hasattr(os, "sysconf") else 100.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

DeviceReader = Callable[[], Mapping[int, Mapping[str, Any]]]
"""Facts by local rank: device_activity (0 to 1), power_watts, memory_bytes."""


def no_devices() -> Mapping[int, Mapping[str, Any]]:
    """The reader where no accelerator can be asked."""
    return {}


def process_facts(pid: int) -> Optional[Tuple[float, int]]:
    """CPU seconds and resident bytes of a process, or None when it is gone."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as handle:
            words = handle.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return (int(words[11]) + int(words[12])) / _TICKS, int(words[21]) * _PAGE_BYTES


def network_bytes(root: str = NETWORK_ROOT) -> Optional[int]:
    """Bytes sent and received: EFA and InfiniBand hardware counters plus all interfaces but loopback."""
    total, found = 0, False
    for path in _counter_paths(root):
        try:
            with open(path) as handle:
                total += int(handle.read())
        except (OSError, ValueError):
            continue
        found = True
    return total if found else None


def _counter_paths(root: str) -> "list[str]":
    paths = []
    net = os.path.join(root, "net")
    for interface in _names(net):
        if interface != "lo":
            paths += [os.path.join(net, interface, "statistics", name) for name in ("rx_bytes", "tx_bytes")]
    fabric = os.path.join(root, "infiniband")
    for device in _names(fabric):
        ports = os.path.join(fabric, device, "ports")
        for port in _names(ports):
            counters = os.path.join(ports, port, "hw_counters")
            # EFA counts RDMA apart from messages
            names = ("rx_bytes", "tx_bytes", "rdma_read_bytes", "rdma_write_bytes", "rdma_write_recv_bytes")
            paths += [os.path.join(counters, name) for name in names]
    return paths


def _names(folder: str) -> "list[str]":
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


class Sampler:
    """Turns counters into facts by local rank. Called by one thread; `latest` may be read by others."""

    def __init__(self, read_devices: DeviceReader = no_devices, clock: Callable[[], float] = time.monotonic) -> None:
        self._read_devices = read_devices
        self._clock = clock
        self._cpu: Dict[int, Tuple[float, float]] = {}  # pid -> (instant, CPU seconds)
        self.latest: Dict[int, Dict[str, Any]] = {}

    def sample(self, pids: Mapping[int, int]) -> None:
        """Look at the workers' processes (local rank -> pid), their devices and the pod's network."""
        devices = self._read_devices()
        facts: Dict[int, Dict[str, Any]] = {}
        for local_rank, pid in pids.items():
            facts[local_rank] = {**self._process(pid), **devices.get(local_rank, {})}
        sent = network_bytes()
        if facts and sent is not None:
            facts[min(facts)]["network_bytes"] = sent  # the pod's figure, told once, so that sums are right
        self._cpu = {pid: known for pid, known in self._cpu.items() if pid in pids.values()}
        self.latest = facts

    def _process(self, pid: int) -> Dict[str, Any]:
        read = process_facts(pid)
        if read is None:
            return {}
        now, (cpu_seconds, resident) = self._clock(), read
        before = self._cpu.get(pid)
        self._cpu[pid] = (now, cpu_seconds)
        facts: Dict[str, Any] = {"memory_bytes": resident}
        if before is not None and now > before[0]:
            facts["device_activity"] = round(min(1.0, (cpu_seconds - before[1]) / (now - before[0])), 4)
        return facts
