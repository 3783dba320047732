"""What the accelerators say about themselves, by local rank; silence where there is nobody to ask.

NVIDIA's management library is called through ctypes and Neuron's monitor is a program that prints JSON: neither needs
a package, and neither touches a device that a worker uses.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import threading
from typing import Any, Dict, List, Mapping, Optional

from trainrun_trainer.agent import proctree
from trainrun_trainer.agent.sampling import DeviceReader, no_devices

NVML = "libnvidia-ml.so.1"
NEURON_MONITOR = "neuron-monitor"


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def reader(accelerator: str) -> DeviceReader:
    """The reader for an accelerator; on a CPU the workers' CPU time is the activity."""
    if accelerator == "cuda":
        try:
            return Nvml(ctypes.CDLL(NVML), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        except OSError:
            return no_devices
    monitor = shutil.which(NEURON_MONITOR) if accelerator == "neuron" else None
    return NeuronMonitor([monitor]) if monitor else no_devices


class Nvml:
    """Activity, power and memory of the devices that this container sees; local rank k uses the k-th."""

    def __init__(self, library: Any, visible: str) -> None:
        self._library = library
        self._handles = self._open(visible) if library.nvmlInit_v2() == 0 else []

    def __call__(self) -> Mapping[int, Mapping[str, Any]]:
        """Facts by local rank; what a device does not answer is absent."""
        return {local_rank: self._facts(handle) for local_rank, handle in enumerate(self._handles)}

    def _open(self, visible: str) -> List[Any]:
        count = ctypes.c_uint()
        if self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        names = [v.strip() for v in visible.split(",") if v.strip()] or [str(i) for i in range(count.value)]
        handles: List[Any] = []
        for name in names:
            handle = ctypes.c_void_p()
            if name.isdigit():
                code = self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
            else:
                code = self._library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
            if code != 0:
                return handles  # CUDA too stops at the first device that it cannot find
            handles.append(handle)
        return handles

    def _facts(self, handle: Any) -> Dict[str, Any]:
        facts: Dict[str, Any] = {}
        busy, memory, milliwatts = _Utilization(), _Memory(), ctypes.c_uint()
        if self._library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(busy)) == 0:
            facts["device_activity"] = busy.gpu / 100.0
        if self._library.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts)) == 0:
            facts["power_watts"] = milliwatts.value / 1000.0
        if self._library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
            facts["memory_bytes"] = memory.used
        return facts


class NeuronMonitor:
    """Activity of NeuronCores as `neuron-monitor` streams it; local rank k uses the k-th core that is in use."""

    def __init__(self, command: List[str]) -> None:
        self._latest: Dict[int, Dict[str, Any]] = {}
        self._process: "Optional[subprocess.Popen[bytes]]" = None
        try:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=proctree.die_with_parent
            )
        except OSError:
            return
        threading.Thread(target=self._read, name="neuron-monitor", daemon=True).start()

    def __call__(self) -> Mapping[int, Mapping[str, Any]]:
        """Facts of the newest report."""
        return self._latest

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._latest = core_facts(json.loads(line))
            except (ValueError, AttributeError, TypeError):
                continue  # a report of another version is no reason to stop looking


def core_facts(report: Mapping[str, Any]) -> Dict[int, Dict[str, Any]]:
    """Facts by local rank from one report of neuron-monitor."""
    activity: Dict[int, float] = {}
    memory: Dict[int, int] = {}
    for runtime in report.get("neuron_runtime_data") or []:
        told = runtime.get("report") or {}
        cores = (told.get("neuroncore_counters") or {}).get("neuroncores_in_use") or {}
        for core, counters in cores.items():
            activity[int(core)] = float(counters["neuroncore_utilization"]) / 100.0
        used = (told.get("memory_used") or {}).get("neuron_runtime_used_bytes") or {}
        for core, parts in ((used.get("usage_breakdown") or {}).get("neuroncore_memory_usage") or {}).items():
            memory[int(core)] = sum(int(size) for size in parts.values())
    facts: Dict[int, Dict[str, Any]] = {}
    for local_rank, core in enumerate(sorted(activity)):
        facts[local_rank] = {"device_activity": activity[core]}
        if core in memory:
            facts[local_rank]["memory_bytes"] = memory[core]
    return facts
