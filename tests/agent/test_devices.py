"""What is read of accelerators, against libraries and programs that answer as the real ones do."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from trainrun_trainer.agent import devices
from trainrun_trainer.agent.sampling import no_devices

from tests.agent.pods import until


class FakeNvml:
    """Answers as libnvidia-ml does: status codes, results through pointers."""

    def __init__(self, count: int, has_power: bool = True) -> None:
        self._count = count
        self._has_power = has_power

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._count
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index.value + 1
        return 0 if index.value < self._count else 2

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 4
        return 0 if uuid == b"GPU-4" else 6

    def nvmlDeviceGetUtilizationRates(self, handle: Any, busy: Any) -> int:  # noqa: N802
        busy._obj.gpu = 10 * handle.value
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> int:  # noqa: N802
        milliwatts._obj.value = 250_000
        return 0 if self._has_power else 3

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.used = 1 << 30
        return 0


@pytest.mark.parametrize(
    ("visible", "activities"),
    [("", [0.1, 0.2]), ("1", [0.2]), ("1,0", [0.2, 0.1]), ("GPU-4", [0.4]), ("0,7,1", [0.1])],
    ids=["all", "one", "order", "uuid", "until-the-first-unknown"],
)
def test_local_ranks_are_the_visible_devices_in_order(visible: str, activities: list[float]) -> None:
    """As CUDA itself counts them."""
    facts = devices.Nvml(FakeNvml(2), visible)()
    assert [facts[k]["device_activity"] for k in sorted(facts)] == activities
    assert facts[0]["memory_bytes"] == 1 << 30


def test_a_device_without_a_power_meter_has_no_power() -> None:
    """Absent, not zero."""
    facts = devices.Nvml(FakeNvml(1, has_power=False), "")()
    assert "power_watts" not in facts[0]
    assert devices.Nvml(FakeNvml(1), "")()[0]["power_watts"] == 250.0


REPORT = {
    "neuron_runtime_data": [
        {
            "pid": 7,
            "report": {
                "neuroncore_counters": {
                    "neuroncores_in_use": {
                        "3": {"neuroncore_utilization": 50.0},
                        "2": {"neuroncore_utilization": 25.0},
                    }
                },
                "memory_used": {
                    "neuron_runtime_used_bytes": {
                        "usage_breakdown": {"neuroncore_memory_usage": {"2": {"tensors": 5, "constants": 2}}}
                    }
                },
            },
        }
    ]
}


def test_neuron_reports_are_read_as_they_are_streamed() -> None:
    """Lines of JSON from a program; nonsense in between does no harm."""
    program = f"print('no json'); print('[]'); print({json.dumps(REPORT)!r}, flush=True); import time; time.sleep(600)"
    monitor = devices.NeuronMonitor([sys.executable, "-c", program])
    try:
        facts = until("the report", monitor, 20)
        assert facts == {0: {"device_activity": 0.25, "memory_bytes": 7}, 1: {"device_activity": 0.5}}
    finally:
        monitor._process.kill()
        monitor._process.wait(10)
        monitor._process.stdout.close()


def test_no_library_and_no_program_is_silence() -> None:
    """The agent must start in an image without drivers."""
    assert devices.reader("cpu") is no_devices
    assert devices.reader("neuron") is no_devices
    assert devices.NeuronMonitor(["/no/such/program"])() == {}
