"""The physical limit: no layer is faster than its arithmetic at the peak rate, or its traffic at the bandwidth.

A layer's limit is the larger of multiply-accumulates / rate and bytes / bandwidth, and a network's the sum over its
layers (Williams, Waterman, Patterson, "Roofline", CACM 2009, applied layer by layer). Its share of the limit is what a
run attained of it: limit / latency.

Not in the limit: Winograd's and FFT's savings, caches that hold a tensor between two layers (both can beat it), the
start of kernels, and work that is no multiply-accumulate (all of these fall short of it).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from .devices import Device
from .layers import Layer
from .peaks import Peaks

COMPUTE: Literal["compute"] = "compute"
MEMORY: Literal["memory"] = "memory"


@dataclass(frozen=True, slots=True)
class Roof:
    """The two rates that bound every layer.

    Attributes:
        device: as in `devices.toml`, or `here`.
        title: for tables.
        precision: that the rate is of.
        macs_per_s, bytes_per_s: multiply-accumulates and bytes a second.
        source: `measured here`, or where the figures are from.
    """

    device: str
    title: str
    precision: str
    macs_per_s: float
    bytes_per_s: float
    source: str

    @classmethod
    def of_device(cls, device: Device, precision: str) -> Roof:
        """Out of `devices.toml`; raises `UsageError` where it has no rate in this precision."""
        peak = device.best(precision)
        source = f"devices.toml: {peak.units} ({peak.source}), memory ({device.source})"
        return cls(device.name, device.title, precision, peak.tera_ops * 5e11, device.bandwidth_gb_s * 1e9, source)

    @classmethod
    def of_peaks(cls, peaks: Peaks, precision: str) -> Roof:
        """As measured here; raises `UsageError` where this precision was not."""
        title = f"this machine, {peaks.device}, {peaks.threads} threads" if peaks.device == "cpu" else "this GPU"
        return cls("here", title, precision, peaks.macs_per_s(precision), peaks.bytes_per_s, "measured here")


@dataclass(frozen=True, slots=True)
class Bound:
    """What one layer costs at least."""

    layer: Layer
    compute_ms: float
    memory_ms: float

    @property
    def limit_ms(self) -> float:
        return max(self.compute_ms, self.memory_ms)

    @property
    def by(self) -> Literal["compute", "memory"]:
        """Which of the two it is."""
        return COMPUTE if self.compute_ms >= self.memory_ms else MEMORY


@dataclass(frozen=True, slots=True)
class Limit:
    """A network under a roof, batch 1."""

    roof: Roof
    bounds: tuple[Bound, ...]

    @property
    def ms(self) -> float:
        """The least latency."""
        return sum(bound.limit_ms for bound in self.bounds)

    @property
    def fps(self) -> float:
        return 1000 / self.ms

    @property
    def memory_share(self) -> float:
        """Which part of the limit is that of layers bound by memory."""
        return sum(bound.limit_ms for bound in self.bounds if bound.by == MEMORY) / self.ms

    @property
    def by(self) -> Literal["compute", "memory"]:
        """What most of the limit is made of."""
        return MEMORY if self.memory_share > 0.5 else COMPUTE

    def largest(self, count: int) -> list[Bound]:
        """The layers that need most, largest first."""
        return sorted(self.bounds, key=lambda bound: -bound.limit_ms)[:count]

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values."""
        roof = self.roof
        return {
            "device": roof.device,
            "title": roof.title,
            "precision": roof.precision,
            "gmacs_per_s": roof.macs_per_s / 1e9,
            "gbytes_per_s": roof.bytes_per_s / 1e9,
            "rates": roof.source,
            "limit_ms": self.ms,
            "limit_fps": self.fps,
            "bound_by": self.by,
            "memory_bound_share": self.memory_share,
            "layers": [_bound_tree(bound) for bound in self.bounds],
        }


def bound(layer: Layer, roof: Roof) -> Bound:
    """One layer under a roof."""
    return Bound(layer, 1000 * layer.macs / roof.macs_per_s, 1000 * layer.bytes / roof.bytes_per_s)


def limit(layers: Iterable[Layer], roof: Roof) -> Limit:
    """All layers of a network, which run one after the other."""
    return Limit(roof, tuple(bound(layer, roof) for layer in layers))


def _bound_tree(found: Bound) -> dict[str, Any]:
    layer = found.layer
    return {
        "name": layer.name,
        "operator": layer.operator,
        "nodes": list(layer.nodes),
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "read_bytes": layer.read_bytes,
        "written_bytes": layer.written_bytes,
        "compute_ms": found.compute_ms,
        "memory_ms": found.memory_ms,
        "limit_ms": found.limit_ms,
        "bound_by": found.by,
    }
