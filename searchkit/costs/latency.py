"""Latency tables: milliseconds measured once an operator and shape, summed to predict a network.

A sum of parts is a prediction, not a measurement: launches overlap, layers fuse. FasterSeg's own student sums to 5.70
ms and ran in 6.10 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import strict_json
from ..errors import InputFileError, UsageError, nearest, unknown_name
from ..files import read_bytes

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class LatencyTable:
    """Measured latencies of operators on one device.

    Attributes:
        device, runtime, precision: what was measured on.
        batch, network_input: the batch size, and the height and width of the network input that the shapes belong to.
        source: who measured.
        entries_ms: operator key -> milliseconds.
    """

    device: str
    runtime: str
    precision: str
    batch: int
    network_input: tuple[int, int]
    source: str
    entries_ms: Mapping[str, float]

    def predict_ms(self, keys: Iterable[str]) -> float:
        """Sum of the latencies of `keys`; exactly rounded, so the order of the layers does not matter.

        Raises:
            UsageError: an operator was not measured; nothing is guessed in its place.
        """
        wanted = list(keys)
        for key in wanted:
            if key not in self.entries_ms:
                raise UsageError(
                    f"the latency table of {self.device} lacks an operator",
                    got=key,
                    allowed=f"{len(self.entries_ms)} operators, such as {nearest(key, self.entries_ms, 1)[0]}",
                    fix="measure it on that device",
                )
        return math.fsum(self.entries_ms[key] for key in wanted)


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
        entries = {str(key): float(value) for key, value in tree["entries"].items()}
        height, width = tree["network_input"]
        table = LatencyTable(
            device=tree["device"],
            runtime=tree["runtime"],
            precision=tree["precision"],
            batch=tree["batch"],
            network_input=(height, width),
            source=tree["source"],
            entries_ms=entries,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputFileError(f"not a latency table ({error!r})", where=str(path)) from None
    if tree.get("unit") != "ms" or any(value <= 0 for value in entries.values()):
        raise InputFileError("latencies must be positive milliseconds", where=f"{path}: entries", allowed='unit "ms"')
    return table
