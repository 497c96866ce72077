"""Latency tables: milliseconds measured once an operator and shape, summed to predict a network.

A sum of parts is a prediction, not a measurement: launches overlap, layers fuse. FasterSeg's own student sums to 5.70
ms and ran in 6.10 ms. A table that was measured here says by how much sums of its entries miss whole networks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import strict_json
from ..errors import InputFileError, UsageError, nearest, unknown_name
from ..files import read_bytes, write_text
from ..sizes import Size
from .expected import Operator

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Additivity:
    """Sums of entries against whole networks that were measured in the same run.

    Attributes:
        networks: how many, sampled from the space.
        pearson: correlation of sum and measurement.
        ratio: sum over measurement, the median; `ratio_low` and `ratio_high` are the least and the greatest.
        sums_ms, measured_ms: of each network, what the table's entries sum to and what was measured. A correlation is
            of networks that lie so far apart.
        sampling: how they were drawn, in words.
    """

    networks: int
    pearson: float
    ratio: float
    ratio_low: float
    ratio_high: float
    sums_ms: tuple[float, ...] | None = None
    measured_ms: tuple[float, ...] | None = None
    sampling: str | None = None


@dataclass(frozen=True)
class LatencyTable:
    """Measured latencies of operators on one device.

    Attributes:
        device, runtime, precision: what was measured on, such as a CPU's or GPU's model, `onnxruntime`, `fp32`.
        batch, network_input: the batch size, and the height and width of the network input that the shapes belong to.
        source: who measured.
        entries_ms: operator key -> milliseconds.
        runtime_version, driver, threads, date, protocol: of the measurement; None where the table does not say. The
            version of a published table stands in `runtime`.
        conditions: what else was found out about machine and clocks.
        additivity: None where it was not measured.
    """

    device: str
    runtime: str
    precision: str
    batch: int
    network_input: tuple[int, int]
    source: str
    entries_ms: Mapping[str, float]
    runtime_version: str | None = None
    driver: str | None = None
    threads: int | None = None
    date: str | None = None
    protocol: str | None = None
    conditions: Mapping[str, str | int | float | None] | None = None
    additivity: Additivity | None = None

    def price(self, operator: Operator) -> float:
        """Milliseconds of one operator; the price to search by.

        Raises:
            UsageError: it was not measured; nothing is guessed in its place.
        """
        found = self.entries_ms.get(operator.key)
        if found is None:
            raise self._lacks(operator.key)
        return found

    def predict_ms(self, keys: Iterable[str]) -> float:
        """Sum of the latencies of `keys`; exactly rounded, so the order of the layers does not matter.

        Raises:
            UsageError: an operator was not measured; nothing is guessed in its place.
        """
        wanted = list(keys)
        for key in wanted:
            if key not in self.entries_ms:
                raise self._lacks(key)
        return math.fsum(self.entries_ms[key] for key in wanted)

    def check_size(self, size: Size) -> None:
        """Raise `UsageError` unless the table is of networks at this input size: no other's shapes are in it."""
        if tuple(self.network_input) != tuple(size):
            raise UsageError(
                "the latency table is of another input size",
                where="--latency-table",
                got=str(Size(*self.network_input)),
                allowed=str(size),
                fix=f"measure one with `bench latency-table --resolution {size}`, or set the budget's resolution",
            )

    def check_place(self, device: str | None, runtime_version: str | None, *, other_device: bool = False) -> None:
        """Raise `UsageError` where the table was measured on another device, or with another version of its runtime.

        Args:
            device: this one's model, named as `bench latency-table` names it.
            runtime_version: of the table's runtime that is installed here; None where it is not.
            other_device: it is known and meant, as where a network is searched here for a vehicle.
        """
        differences = []
        if device != self.device:
            differences.append(f"{self.device}, not {device or 'a device that is known'}")
        if runtime_version != self.runtime_version:
            theirs = " ".join(filter(None, (self.runtime, self.runtime_version)))
            differences.append(f"{theirs}, not {runtime_version or 'installed here'}")
        if differences and not other_device:
            raise UsageError(
                "the latency table is of another device or runtime",
                where="--latency-table",
                got="; ".join(differences),
                fix="measure one here with `bench latency-table`, or say --other-device if that one is meant",
            )

    def to_json(self) -> str:
        """The file of the table; `load_table` reads it."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        tree: dict[str, Any] = {"schema": 1, "unit": "ms"} | known
        entries = tree.pop("entries_ms")
        return json.dumps(tree | {"entries": dict(sorted(entries.items()))}, indent=1) + "\n"

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(path, self.to_json())

    def _lacks(self, key: str) -> UsageError:
        near = nearest(key, self.entries_ms, 1)
        return UsageError(
            f"the latency table of {self.device} lacks an operator",
            got=key,
            allowed=f"{len(self.entries_ms)} operators" + (f", such as {near[0]}" if near else ""),
            fix="measure it on that device",
        )


def shipped_tables() -> list[str]:
    """Names of the tables that come with searchkit."""
    return sorted(path.stem for path in TABLES.glob("*.json"))


def load_table(name: str) -> LatencyTable:
    """A shipped table by name, or one from a JSON file.

    Raises:
        UsageError: no such table.
        InputFileError: the file is not a latency table.
    """
    path = Path(name) if name.endswith(".json") else TABLES / f"{name}.json"
    if path.parent == TABLES and name not in shipped_tables():
        raise unknown_name("latency table", name, shipped_tables())
    tree = strict_json.loads(read_bytes(path, limit_bytes=strict_json.MAX_BYTES, what="latency table"), where=str(path))
    try:
        table = _table(tree)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputFileError(f"not a latency table ({error!r})", where=str(path)) from None
    entries = table.entries_ms.values()
    if tree.get("unit") != "ms" or any(not 0 < value < math.inf for value in entries):
        raise InputFileError("latencies must be positive milliseconds", where=f"{path}: entries", allowed='unit "ms"')
    return table


def _table(tree: Any) -> LatencyTable:
    height, width = tree["network_input"]
    optional = ("runtime_version", "driver", "threads", "date", "protocol", "conditions")
    additivity = tree.get("additivity")
    return LatencyTable(
        device=tree["device"],
        runtime=tree["runtime"],
        precision=tree["precision"],
        batch=tree["batch"],
        network_input=(height, width),
        source=tree["source"],
        entries_ms={str(key): float(value) for key, value in tree["entries"].items()},
        **{name: tree.get(name) for name in optional},
        additivity=_additivity(additivity) if additivity else None,
    )


def _additivity(tree: dict[str, Any]) -> Additivity:
    lists = {name: tuple(map(float, tree[name])) for name in ("sums_ms", "measured_ms") if tree.get(name)}
    return Additivity(**tree | lists)
