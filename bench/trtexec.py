"""Times that TensorRT's `trtexec --exportTimes` writes: a JSON list with one object a query, all values milliseconds.

Two styles are known. Up to TensorRT 7 transfers are `inMs` and `outMs`; from 8 on they are `h2dMs` and `d2hMs`. Older
writers add `endToEndMs` and keep the warm-up in the list, later ones leave both out. A file says neither which network
nor which machine it was, nor whether a CUDA graph was used: trtexec 11 turned that on by default and transfers off.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from searchkit.errors import InputFileError, UsageError, shown

#: Kernels alone, and transfers with them. Only the first means the same whatever trtexec's defaults were.
COLUMNS = ("computeMs", "latencyMs")
MAX_BYTES = 64 << 20
#: trtexec's own default for `--warmUp`.
WARMUP_MS = 200.0

_COMPUTE = ("startComputeMs", "endComputeMs", "computeMs", "latencyMs")
_STYLES = {
    "TensorRT 8 and later": (*_COMPUTE, "startH2dMs", "endH2dMs", "startD2hMs", "endD2hMs", "h2dMs", "d2hMs"),
    "TensorRT 7 and before": (*_COMPUTE, "startInMs", "endInMs", "startOutMs", "endOutMs", "inMs", "outMs"),
}
_OPTIONAL = ("startEnqMs", "endEnqMs", "endToEndMs")
# Values are printed with six significant digits.
_ROUNDING = 0.01
_ROUNDING_MS = 0.01
_FIX = "export the times again with `trtexec --exportTimes=FILE`"


@dataclass(frozen=True, slots=True)
class Trace:
    """The times of one run of trtexec.

    Attributes:
        column: which of `COLUMNS` `samples_ms` holds.
        style: which writer, in words.
        transfers: whether copies to and from the device were made, which `latencyMs` holds and `computeMs` does not.
        dropped: queries of the warm-up that the file had.
        unknown: fields of the file that are not known here and were not used.
    """

    samples_ms: tuple[float, ...]
    column: str
    style: str
    transfers: bool
    dropped: int
    unknown: tuple[str, ...]


def is_trace(data: bytes) -> bool:
    """Whether a file may be trtexec's: it begins as a list, and no result of `bench` does."""
    return data.lstrip()[:1] == b"["


def parse(data: bytes, *, where: str, column: str = COLUMNS[0]) -> Trace:
    """Read the bytes of a file of `--exportTimes`; queries that started in the first 200 ms are left out.

    Raises:
        UsageError: no such column.
        InputFileError: not such a file, damaged, or without a query behind the warm-up; says which query and field.
    """
    if column not in COLUMNS:
        raise UsageError("unknown column", where="--column", got=column, allowed=", ".join(COLUMNS))
    queries = _decoded(data, where)
    style = _style(queries[0], where)
    required = _STYLES[style]
    for index, query in enumerate(queries):
        _check(query, required, f"{where}: query {index}")
    kept = [query for query in queries if query["startComputeMs"] >= WARMUP_MS]
    if not kept:
        raise InputFileError(
            "no query behind the warm-up",
            where=where,
            got=f"{len(queries)} queries, the last at {queries[-1]['startComputeMs']} ms",
            allowed=f"some that start after {WARMUP_MS:g} ms",
            fix="give trtexec a longer --duration",
        )
    copies = required[-2:]
    return Trace(
        samples_ms=tuple(float(query[column]) for query in kept),
        column=column,
        style=style,
        transfers=any(query[name] > 0 for query in kept for name in copies),
        dropped=len(queries) - len(kept),
        unknown=tuple(sorted({name for query in queries for name in query} - set(required) - set(_OPTIONAL))),
    )


def _decoded(data: bytes, where: str) -> list[dict[str, Any]]:
    try:
        tree = json.loads(data, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputFileError(f"not the JSON that trtexec writes: {reason}", where=where, fix=_FIX) from None
    if not isinstance(tree, list) or not tree:
        got = "an empty list" if tree == [] else type(tree).__name__
        raise InputFileError("no queries", where=where, got=got, allowed="a list with one or more", fix=_FIX)
    for index, query in enumerate(tree):
        if not isinstance(query, dict):
            raise InputFileError("not a query", where=f"{where}: query {index}", got=query, allowed="an object")
    return tree


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a time")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {shown(twice)} stands twice in one query")
    return found


def _style(query: dict[str, Any], where: str) -> str:
    """By the fields that only one style has."""
    scores = {style: sum(name in query for name in names[len(_COMPUTE) :]) for style, names in _STYLES.items()}
    style = max(scores, key=lambda name: scores[name])
    if not scores[style]:
        raise InputFileError(
            "not times of trtexec", where=where, got=sorted(query), allowed=", ".join(next(iter(_STYLES.values())))
        )
    return style


def _check(query: dict[str, Any], required: tuple[str, ...], where: str) -> None:
    for name in required:
        if name not in query:
            raise InputFileError("missing field", where=f"{where}.{name}", allowed=", ".join(required), fix=_FIX)
    for name, value in query.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            got = "null" if value is None else value
            raise InputFileError("not a time", where=f"{where}.{name}", got=got, allowed="finite milliseconds")
    incoming, outgoing = required[-2:]
    for name in ("computeMs", "latencyMs", incoming, outgoing):
        least = 0 if name in (incoming, outgoing) else math.ulp(0)
        if query[name] < least:
            words = "0 ms or more" if least == 0 else "above 0 ms"
            raise InputFileError("not a duration", where=f"{where}.{name}", got=query[name], allowed=words)
    parts = query[incoming] + query["computeMs"] + query[outgoing]
    if abs(query["latencyMs"] - parts) > _ROUNDING * parts + _ROUNDING_MS:
        raise InputFileError(
            "a latency that is not the sum of its parts",
            where=f"{where}.latencyMs",
            got=query["latencyMs"],
            allowed=f"{incoming} + computeMs + {outgoing} = {parts:.6g}",
            fix=_FIX,
        )
