"""`lowering.json` of a bundle: which rewrites its model has, and the measurement that chose them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from searchkit.errors import DamagedArtifactError

from .choice import AUTO, Lowered, Measured, Step
from .timing import Quartiles

FILE = "lowering.json"
SCHEMA = 1
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_QUARTILES = ("lower", "median", "upper")


def record(lowered: Lowered) -> dict[str, Any]:
    """The tree: rewrites in order, and how many times as fast each candidate was, as quartiles over the rounds."""
    measured = lowered.measured
    return {
        "schema": SCHEMA,
        "applied": list(lowered.applied),
        "measured": None if measured is None else _measured(measured),
    }


def _measured(measured: Measured) -> dict[str, Any]:
    info = measured.info
    return {
        "backend": info.backend,
        "version": info.version,
        "provider": info.provider,
        "device": info.device,
        "options": dict(sorted(info.options.items())),
        "cpu": measured.cpu,
        "cores": measured.cores,
        "precision": "fp32",
        "rounds": len(next(iter(measured.steps[0].times.values()))),
        "steps": [_step(step) for step in measured.steps],
        "whole": None if measured.whole is None else _ratios(measured.whole)[AUTO],
    }


def _step(step: Step) -> dict[str, Any]:
    return {"times_as_fast": _ratios(step), "kept": step.kept, "wrong": list(step.wrong)}


def _ratios(step: Step) -> dict[str, dict[str, float]]:
    names = list(step.times)[1:]
    return {name: {key: round(getattr(step.ratio(name), key), 4) for key in _QUARTILES} for name in names}


def check_record(tree: Any, *, where: str) -> dict[str, Any]:
    """A record that was read as strict JSON, once it is found to be one.

    Raises:
        DamagedArtifactError: a field is missing, surplus, or of another type.
    """
    try:
        _check(tree)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedArtifactError(
            "not the record of a lowering", where=where, got=str(error), fix="export it again"
        ) from None
    found: dict[str, Any] = tree
    return found


def _check(tree: Any) -> None:
    _fields(tree, {"schema", "applied", "measured"})
    if type(tree["schema"]) is not int or tree["schema"] != SCHEMA:
        raise ValueError(f"schema {tree['schema']!r}")
    _names(tree["applied"])
    measured = tree["measured"]
    if measured is None:
        return
    texts = ("backend", "version", "provider", "device", "cpu", "precision")
    _fields(measured, {*texts, "options", "cores", "rounds", "steps", "whole"})
    for name in texts:
        _typed(measured[name], str)
    _typed(measured["options"], dict)
    for key, value in measured["options"].items():
        _typed(key, str)
        _typed(value, str)
    _typed(measured["cores"], int)
    _typed(measured["rounds"], int)
    _typed(measured["steps"], list)
    for step in measured["steps"]:
        _fields(step, {"times_as_fast", "kept", "wrong"})
        _typed(step["times_as_fast"], dict)
        _names(step["wrong"])
        _names([*step["times_as_fast"], *([] if step["kept"] is None else [step["kept"]])])
        for ratio in step["times_as_fast"].values():
            _quartiles(ratio)
    if measured["whole"] is not None:
        _quartiles(measured["whole"])


def _fields(tree: Any, wanted: set[str]) -> None:
    _typed(tree, dict)
    if set(tree) != wanted:
        raise ValueError(f"fields {', '.join(sorted(tree))}")


def _names(found: Any) -> None:
    _typed(found, list)
    for name in found:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"a rewrite named {name!r}")


def _quartiles(tree: Any) -> Quartiles:
    _fields(tree, set(_QUARTILES))
    for value in tree.values():
        if type(value) not in (int, float) or not value > 0:
            raise ValueError(f"a ratio of {value!r}")
    return Quartiles(**tree)


def _typed(value: Any, kind: type) -> None:
    if type(value) is not kind:
        raise ValueError(f"{value!r} where {kind.__name__} belongs")


def sentence(tree: Mapping[str, Any]) -> str:
    """The record in words, for people."""
    applied = ", ".join(tree["applied"]) or "no rewrite"
    measured = tree["measured"]
    if measured is None:
        return f"{applied}, as asked for; nothing was measured"
    on = f"{measured['backend']} {measured['version']} on {measured['cpu']}, {measured['cores']} cores"
    if measured["whole"] is None or not tree["applied"]:
        return f"{applied} is faster with {on}"
    whole = measured["whole"]
    ratio = f"{whole['median']:.2f} times as fast as plain (quartiles {whole['lower']:.2f} to {whole['upper']:.2f})"
    return f"{applied}: {ratio} with {on}"
