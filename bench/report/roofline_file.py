"""What a file of `bench roofline --json` holds, as far as the report shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from searchkit.errors import InputFileError

SCHEMA = 1


@dataclass(frozen=True)
class Limited:
    """One network under one roof.

    Attributes:
        gmacs_per_s, gbytes_per_s: the roof.
        macs, bytes: of all layers.
        limit_ms: no run can be faster.
        bound_by: "compute" or "memory".
        measured_ms: p50; None for a device that is not here.
        predicted: per family of frameworks, the FPS expected there, lowest and highest.
    """

    network: str
    device: str
    precision: str
    rates: str
    gmacs_per_s: float
    gbytes_per_s: float
    macs: float
    bytes: float
    limit_ms: float
    bound_by: str
    measured_ms: float | None
    predicted: tuple[tuple[str, float, float], ...]

    @property
    def intensity(self) -> float:
        """MACs a byte."""
        return self.macs / self.bytes

    @property
    def attained(self) -> float | None:
        """The limit over what was measured."""
        return self.limit_ms / self.measured_ms if self.measured_ms else None


@dataclass(frozen=True)
class Roofline:
    """One file."""

    file: str
    resolution: str
    backend: str
    machine: str
    results: tuple[Limited, ...]


def parse_roofline(tree: dict[str, Any], file: str) -> Roofline:
    """A file's content.

    Raises:
        InputFileError: another schema, or a field that is missing, of the wrong type or out of range.
    """
    if type(tree.get("schema")) is not int or tree["schema"] != SCHEMA:
        raise InputFileError(
            "unknown schema of a roofline", where=file, got=tree.get("schema", "none"), allowed=str(SCHEMA)
        )
    try:
        here, elsewhere = tree.get("here") or {}, tree.get("elsewhere") or {}
        results = [_limited(entry) for part in (here, elsewhere) for entry in part.get("results", [])]
        machine = str(here.get("machine", {}).get("cpu") or "")
        return Roofline(file, str(tree.get("resolution", "")), str(here.get("backend", "")), machine, tuple(results))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        got = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise InputFileError(
            "damaged roofline", where=file, got=got, fix="make it again with `bench roofline --json`"
        ) from None


def _limited(entry: dict[str, Any]) -> Limited:
    limit = entry["limit"]
    layers = limit["layers"]
    measured = entry.get("measured_p50_ms")
    return Limited(
        network=_text(entry["network"]),
        device=_text(limit["title"]),
        precision=_text(limit["precision"]),
        rates=_text(limit["rates"]),
        gmacs_per_s=_positive(limit["gmacs_per_s"]),
        gbytes_per_s=_positive(limit["gbytes_per_s"]),
        macs=_positive(sum(layer["macs"] for layer in layers)),
        bytes=_positive(sum(layer[f"{kind}_bytes"] for layer in layers for kind in ("weight", "read", "written"))),
        limit_ms=_positive(limit["limit_ms"]),
        bound_by=_text(limit["bound_by"]),
        measured_ms=None if measured is None else _positive(measured),
        predicted=tuple(
            (_text(one["family"]), _positive(one["low_fps"]), _positive(one["high_fps"]))
            for one in entry.get("predicted", [])
        ),
    )


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not text")
    return value


def _positive(value: Any) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{value!r} is not a number above 0")
    return float(value)
