"""What the limit is worth as a prediction: held against the (device, FPS) pairs that papers and repositories print.

The pairs come from `published.toml`, the rates from `devices.toml`, and the layers of each network at its published
resolution from `published_layers.json`, so that nothing has to be exported to state an error. `count` writes that file
anew; a test holds it to the networks.

A family of runtimes (PyTorch, TensorRT) attains a typical share of the limit: the geometric mean over its pairs. Each
pair is predicted from the pairs of the other networks alone, and what that misses by is the error that is stated.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from searchkit.errors import InputFileError, SearchkitError, UsageError
from searchkit.files import read_bytes
from searchkit.sizes import Size, parse_size

from . import _tree
from .devices import find
from .layers import Layer
from .roofline import Limit, Roof, limit

PUBLISHED = Path(__file__).parent / "published.toml"
LAYERS = Path(__file__).parent / "published_layers.json"
SCHEMA = 1
#: The tensor contract of the counted layers: most published figures are of logits at the input's resolution.
IO = "logits"
FAMILIES = ("PyTorch", "TensorRT")
OTHER = "other or not stated"

_MAX_BYTES = 4 << 20
_MAX_WORK_APART = 0.25


@dataclass(frozen=True, slots=True)
class Pair:
    """One published FPS with the device that it was taken on.

    Attributes:
        of: the paper or person that printed it.
        device: as in `devices.toml`.
        family: of `FAMILIES`, or `OTHER`.
        gmacs: work that is printed beside it, None where none is.
    """

    network: str
    of: str
    resolution: Size
    device: str
    software: str | None
    family: str
    fps: float
    gmacs: float | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Counted:
    """The layers of a network at one resolution: multiply-accumulates and bytes of each, float32, fused."""

    network: str
    digest: str
    resolution: Size
    layers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _File:
    schema: int
    io: str
    counted: tuple[Counted, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A pair beside its limit.

    Attributes:
        share: published FPS over the limit's.
        predicted_fps: from the pairs of the other networks of its family; None where there are too few.
    """

    pair: Pair
    limit_fps: float
    share: float
    predicted_fps: float | None

    @property
    def error(self) -> float | None:
        """Predicted over published."""
        return None if self.predicted_fps is None else self.predicted_fps / self.pair.fps

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values."""
        figures = {"limit_fps": self.limit_fps, "share": self.share}
        held = {"predicted_fps": self.predicted_fps, "predicted_over_published": self.error}
        return asdict(self.pair) | {"resolution": str(self.pair.resolution)} | figures | held


@dataclass(frozen=True, slots=True)
class Family:
    """What the runtimes of a family attain.

    Attributes:
        share: geometric mean of published over limit.
        typical_error, worst_error: factors by which a prediction misses, geometric mean and largest; 1 is exact.
        devices: that the pairs were taken on.
    """

    name: str
    pairs: int
    networks: int
    share: float
    typical_error: float
    worst_error: float
    devices: tuple[str, ...]


def pairs(data: bytes | None = None, where: str = "published.toml") -> tuple[list[Pair], list[str]]:
    """The pairs of a `published.toml`, and a line for each that is left out, with the reason.

    Raises:
        InputFileError: it is no such file.
    """
    if data is None:
        data = read_bytes(PUBLISHED, limit_bytes=_MAX_BYTES, what="published figures")
    try:
        entries = tomllib.loads(data.decode())["network"]
        found = [(network["name"], entry) for network in entries for entry in network.get("published", ())]
        kept, left_out = [], []
        for name, entry in found:
            if not {"fps", "device", "size"} <= set(entry):
                continue
            pair = _pair(name, entry, where)
            if isinstance(pair, Pair):
                kept.append(pair)
            else:
                left_out.append(pair)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputFileError(f"not a file of published figures: {str(error)[:120]}", where=where) from None
    return kept, left_out


def _pair(name: str, entry: dict[str, Any], where: str) -> Pair | str:
    try:
        device = find(entry["device"]).name
    except UsageError:
        return f"{name}, {entry['of']}: which device `{entry['device']}` is, is not known"
    fps = entry["fps"]
    if not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise InputFileError("not a rate", where=f"{where}: {name}", got=fps, allowed="above 0 FPS")
    software = entry.get("software")
    family = next((family for family in FAMILIES if family in (software or "")), OTHER)
    work = entry["gflops"] if entry.get("counts") == "mac" else None
    size = parse_size(entry["size"], where=f"{where}: {name}")
    return Pair(name, entry["of"], size, device, software, family, float(fps), work, entry.get("note"))


@cache
def counted() -> dict[tuple[str, Size], Counted]:
    """What `published_layers.json` holds."""
    return read_counted(read_bytes(LAYERS, limit_bytes=_MAX_BYTES, what="counted layers"), LAYERS.name)


def read_counted(data: bytes, where: str) -> dict[tuple[str, Size], Counted]:
    """By network and resolution. Raises `InputFileError` for anything that `count` did not write."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"not valid JSON: {str(error)[:120]}", where=where) from None
    found: _File = _tree.decode(_File, tree, where)
    if (found.schema, found.io) != (SCHEMA, IO):
        raise InputFileError("another schema", where=where, got=(found.schema, found.io), allowed=f"{SCHEMA}, {IO}")
    for entry in found.counted:
        if not entry.layers or any(len(row) != 2 or min(row) < 0 or row[1] == 0 for row in entry.layers):
            raise InputFileError(
                "wrong layers", where=f"{where}: {entry.network}", allowed="[MACs, bytes] of one or more layers"
            )
    return {(entry.network, entry.resolution): entry for entry in found.counted}


def count(wanted: Iterable[tuple[str, Size]], progress: Callable[[str], None]) -> list[Counted]:
    """Export each network at its resolution and count its layers; some seconds each.

    Raises:
        UsageError: a network does not take its resolution.
    """
    from deploy.deployable import Deployable
    from searchkit.networks import resolve

    from .layers import layers_of

    found = []
    for name, size in dict.fromkeys(wanted):
        progress(f"{name} at {size}")
        network = resolve(name)
        layers = layers_of(Deployable(network, size, IO).onnx)
        rows = tuple((layer.macs, layer.bytes) for layer in layers)
        found.append(Counted(network.name, network.digest, size, rows))
    return found


def counted_text(entries: Sequence[Counted]) -> str:
    """What `read_counted` reads, a line a network."""
    lines = ",\n".join(json.dumps(_tree.encode(entry)) for entry in entries)
    return f'{{"schema": {SCHEMA}, "io": "{IO}", "counted": [\n{lines}\n]}}\n'


def limit_of(entry: Counted, roof: Roof) -> Limit:
    """Of counted layers; their names are not kept."""
    return limit((Layer("", "", (), macs, 0, moved, 0) for macs, moved in entry.layers), roof)


def hold() -> tuple[list[Held], list[Family], list[str]]:
    """Every pair beside its limit, what each family attains, and what is left out."""
    found, left_out = pairs()
    rows: list[tuple[Pair, float]] = []
    for pair in found:
        entry = counted().get((pair.network, pair.resolution))
        problem = _unlike(pair, entry)
        if entry is None or problem:
            left_out.append(f"{pair.network}, {pair.of}: {problem}")
            continue
        rows.append((pair, limit_of(entry, Roof.of_device(find(pair.device), "fp32")).fps))
    held = [Held(pair, fps, pair.fps / fps, _predicted(pair, fps, rows)) for pair, fps in rows]
    return held, [_family(name, held) for name in FAMILIES], left_out


def _unlike(pair: Pair, entry: Counted | None) -> str:
    """Why a pair is not one of the network that is built here; empty where nothing speaks against it."""
    if entry is None:
        return f"not counted at {pair.resolution}, which the network here may not take"
    ours = sum(macs for macs, _ in entry.layers) / 1e9
    if pair.gmacs is not None and abs(pair.gmacs / ours - 1) > _MAX_WORK_APART:
        return f"measured on another network: it prints {pair.gmacs:g} GMACs, the network here has {ours:.1f}"
    return ""


def _predicted(pair: Pair, limit_fps: float, rows: Sequence[tuple[Pair, float]]) -> float | None:
    others = [p.fps / fps for p, fps in rows if p.family == pair.family and p.network != pair.network]
    return limit_fps * _mean(others) if others and pair.family in FAMILIES else None


def _family(name: str, held: Sequence[Held]) -> Family:
    mine = [entry for entry in held if entry.pair.family == name]
    errors = [max(entry.error, 1 / entry.error) for entry in mine if entry.error is not None]
    if not errors:
        raise SearchkitError(f"no pairs of two networks on {name} are left", where=PUBLISHED.name)
    devices = tuple(dict.fromkeys(entry.pair.device for entry in mine))
    networks = len({entry.pair.network for entry in mine})
    shares = [entry.share for entry in mine]
    return Family(name, len(mine), networks, _mean(shares), _mean(errors), max(errors), devices)


def _mean(values: Sequence[float]) -> float:
    """Geometric: a ratio and its inverse weigh the same."""
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))
