"""What a measurement ran on, as far as it decides speed. No host name, no user name, no path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from .protocol import Scalar

T = TypeVar("T")

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "numpy")
_SMI_TIMEOUT_S = 10
_FACTS = {
    "driver_version": "gpu_driver",
    "clocks.sm": "gpu_sm_clock_mhz",
    "clocks.max.sm": "gpu_max_sm_clock_mhz",
    "power.limit": "gpu_power_limit_w",
    "temperature.gpu": "gpu_temperature_c",
}
_STATE = {
    "clocks.sm": "gpu_sm_clock_mhz",
    "temperature.gpu": "gpu_temperature_c",
    "power.draw": "gpu_power_w",
    "clocks_throttle_reasons.active": "gpu_throttle_reasons",
}


def describe() -> dict[str, Scalar]:
    """The machine in plain JSON values; what cannot be found out is None. Never raises.

    `load_1min` is the load average of the last minute: call this before measuring.
    """
    machine: dict[str, Scalar] = {
        "cpu": attempt(_cpu),
        "cores": attempt(_cores),
        "memory_gib": attempt(_memory_gib),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "governor": attempt(governor),
        "load_1min": attempt(lambda: round(os.getloadavg()[0], 2)),
    }
    for package in _PACKAGES:
        version = attempt(partial(importlib.metadata.version, package))
        if version:
            machine[package.replace("-", "_")] = version
    return machine | (attempt(_gpu) or {})


def line(machine: dict[str, Scalar]) -> str:
    """The machine in one line, for people."""
    parts = [
        f"{machine.get('cpu') or 'unknown CPU'}, {machine.get('cores')} cores",
        f"{machine.get('memory_gib')} GiB",
        *(str(machine[key]) for key in ("gpu", "os") if machine.get(key)),
        f"Python {machine.get('python')}",
        *(
            f"{key} {machine[key]}"
            for key in ("torch", "onnxruntime", "onnxruntime_gpu", "openvino")
            if machine.get(key)
        ),
        f"load {machine.get('load_1min')} at start",
    ]
    return "; ".join(parts)


def governor() -> str:
    """Of the first core's clock; raises where the system does not say."""
    return _GOVERNOR.read_text().strip()


def attempt(read: Callable[[], T]) -> T | None:
    """What `read` gives, or None where it raises."""
    # A description must not be what a measurement fails on, whatever a driver or a container does.
    try:
        return read()
    except Exception:
        return None


def _cpu() -> str | None:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _cores() -> int | None:
    """Those this process may use, which in a container are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _gpu() -> dict[str, Scalar]:
    """The first CUDA device that this process sees. Not run where this was written: there was no GPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    properties = torch.cuda.get_device_properties(0)
    found: dict[str, Scalar] = {
        "gpu": properties.name,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "gpu_compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }
    return found | (attempt(lambda: _smi(_FACTS)) or {})


def gpu_state() -> dict[str, Scalar]:
    """Clock, temperature and what slows the first CUDA device down, by the driver's program; empty without it.

    Numbers are numbers here; the reasons are bits, as NVML's documentation lists them.
    """
    state: dict[str, Scalar] = {}
    for key, value in _smi(_STATE).items():
        state[key] = attempt(partial(_number, str(value)))
    return {key: value for key, value in state.items() if value is not None}


def _number(text: str) -> float:
    return int(text, 16) if text.startswith("0x") else float(text)


def _smi(query: dict[str, str]) -> dict[str, Scalar]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, "-i", _smi_device(), f"--query-gpu={','.join(query)}", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True)
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    return dict(zip(query.values(), values, strict=True))


def _smi_device() -> str:
    """The first CUDA device by its UUID: the numbering of nvidia-smi is another than CUDA's."""
    import torch

    uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None) if torch.cuda.is_available() else None
    return f"GPU-{uuid}" if uuid else "0"
