"""The state that decides speed and changes meanwhile: governor, clocks, heat, and what other processes take."""

from __future__ import annotations

import os
import time
from pathlib import Path

from . import machine
from .protocol import Conditions, Scalar

_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_STAT = Path("/proc/stat")
# Of the first line of /proc/stat: user, nice, system, then idle and waiting, then interrupts and what the host stole.
_BUSY = (0, 1, 2, 5, 6, 7)


def read(*, gpu: bool) -> dict[str, Scalar]:
    """What can be read now; keys that cannot be are left out. Never raises.

    Args:
        gpu: whether the GPU is asked too, which takes some tenths of a second.
    """
    found: dict[str, Scalar | None] = {
        "governor": machine.attempt(machine.governor),
        "cpu_mhz": machine.attempt(_cpu_mhz),
        "cpu_temperature_c": machine.attempt(_temperature_c),
        "cpu_throttle_count": machine.attempt(_throttle_count),
        "load_1min": machine.attempt(lambda: round(os.getloadavg()[0], 2)),
    }
    asked = (machine.attempt(machine.gpu_state) or {}) if gpu else {}
    return {key: value for key, value in found.items() if value is not None} | asked


class Watch:
    """Reads the conditions when it is started and when it is done, and what others took of the processor meanwhile."""

    def __init__(self, *, gpu: bool = False) -> None:
        self._gpu = gpu
        self._before: dict[str, Scalar] = {}
        self._began: tuple[float, float] | None = None

    def start(self) -> None:
        """Read the state; what others take is counted from the end of this."""
        self._before = read(gpu=self._gpu)
        self._began = machine.attempt(_others_s)

    def done(self) -> Conditions:
        """The conditions since `start`; without one, those of now on both sides."""
        others = None
        if self._began is not None and (now := machine.attempt(_others_s)) is not None:
            busy, wall = now[0] - self._began[0], now[1] - self._began[1]
            others = round(max(0.0, busy) / wall, 3) if wall > 0 else None
        after = read(gpu=self._gpu)
        return Conditions(self._before or after, after, others)


def _others_s() -> tuple[float, float]:
    """Seconds of all cores that were spent on other than this process and its children, and the time of the clock."""
    fields = _STAT.read_text().splitlines()[0].split()[1:]
    busy = sum(int(fields[index]) for index in _BUSY) / os.sysconf("SC_CLK_TCK")
    own = sum(os.times()[:4])
    return busy - own, time.monotonic()


def _cpu_mhz() -> float:
    return round(int((_CPU / "cpu0/cpufreq/scaling_cur_freq").read_text()) / 1000, 1)


def _temperature_c() -> float:
    """Of the hottest zone."""
    zones = sorted(_THERMAL.glob("thermal_zone*/temp"))
    return round(max(int(zone.read_text()) for zone in zones) / 1000, 1)


def _throttle_count() -> int:
    """How often the cores slowed themselves down since the machine started."""
    counts = sorted(_CPU.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    if not counts:
        raise FileNotFoundError("this processor does not count")
    return sum(int(count.read_text()) for count in counts)
