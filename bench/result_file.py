"""Reads what `bench fps --json` wrote: one function, so that every tool refuses the same files in the same words."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from searchkit.errors import InputFileError
from searchkit.files import read_bytes

from . import _tree
from .measurement import SCHEMA, Measurement, Scalar

#: A run of every network on every backend takes half a MiB; one of ten minutes at 5000 FPS some 60.
MAX_BYTES = 256 << 20

_WHAT = "result file"
_REQUIRED = ("schema", "machine", "measurements", "failures")
_OPTIONAL = ("statistics", "complete", "note", "headline")
_FIX = "give a file that `bench fps --json` wrote"


@dataclass(frozen=True, slots=True)
class FailedCell:
    """A network, or every one on a runtime, that could not be measured, and why."""

    network: str
    backend: str
    mode: str
    precision: str
    problem: str


@dataclass(frozen=True, slots=True)
class Results:
    """One run of `bench fps`.

    Attributes:
        machine: as `machine.describe`.
        measurements: one a cell, with the raw samples; what is derived is not read but computed again.
        failures: cells that were not measured.
        complete: False where the run was interrupted; the measurements then hold the rounds that were finished.
    """

    machine: dict[str, Scalar]
    measurements: tuple[Measurement, ...]
    failures: tuple[FailedCell, ...]
    complete: bool = True


def read_results(path: str | os.PathLike[str]) -> Results:
    """The run in a file of `bench fps --json`.

    Raises:
        InputFileError: it is missing, a folder, too large, damaged, of a newer schema, or no such file.
        StorageError: the disk refused.
    """
    where = os.fspath(path)
    tree = _parsed(read_bytes(path, limit_bytes=MAX_BYTES, what=_WHAT), where)
    if not isinstance(tree, dict) or "measurements" not in tree:
        found = f"an object of {', '.join(map(str, tree))}" if isinstance(tree, dict) else type(tree).__name__
        raise InputFileError("not measurements of networks", where=where, got=found, fix=_FIX)
    _check_schema(tree, where)
    _check_keys(tree, where)
    measurements = _list(tree, "measurements", where)
    failures = _list(tree, "failures", where)
    complete: bool = _tree.decode(bool, tree.get("complete", True), f"{where}: complete")
    return Results(
        machine=_tree.decode(dict[str, Scalar], tree["machine"], f"{where}: machine"),
        measurements=tuple(
            Measurement.from_tree(item, where=f"{where}: measurements[{index}]")
            for index, item in enumerate(measurements)
        ),
        failures=tuple(
            _tree.decode(FailedCell, item, f"{where}: failures[{index}]") for index, item in enumerate(failures)
        ),
        complete=complete,
    )


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: {error.reason} at byte {error.start}"
    except json.JSONDecodeError as error:
        problem = f"not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as error:
        # Python refuses to convert a number of thousands of digits, and the two hooks refuse what is ambiguous.
        problem = str(error).partition(";")[0]
    raise InputFileError(f"damaged {_WHAT}, {problem}", where=where, fix="copy it again, or measure again")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number that JSON has")


def _check_schema(tree: dict[str, Any], where: str) -> None:
    schema = tree.get("schema", "none")
    if type(schema) is int and schema > SCHEMA:
        raise InputFileError(
            "written by a newer version of searchkit",
            where=f"{where}: schema",
            got=schema,
            allowed=str(SCHEMA),
            fix="update searchkit, or measure again with this version",
        )
    if type(schema) is not int or schema != SCHEMA:
        raise InputFileError("unknown schema", where=f"{where}: schema", got=schema, allowed=str(SCHEMA), fix=_FIX)


def _check_keys(tree: dict[str, Any], where: str) -> None:
    for key in _REQUIRED:
        if key not in tree:
            raise InputFileError("missing field", where=f"{where}: {key}", fix=_FIX)
    for key in tree:
        if key not in _REQUIRED + _OPTIONAL:
            allowed = ", ".join(_REQUIRED + _OPTIONAL)
            raise InputFileError("unknown field", where=where, got=key, allowed=allowed, fix=_FIX)


def _list(tree: dict[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(tree[key], list):
        raise InputFileError("wrong value", where=f"{where}: {key}", got=type(tree[key]).__name__, allowed="a list")
    return tree[key]
