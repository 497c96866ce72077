"""Frozen dataclasses to plain JSON values and back. Back is strict: nothing missing, nothing more, no other type.

Only a field that says what files older than itself mean, with `absent`, may be missing.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

from searchkit.errors import InputFileError, SearchkitError
from searchkit.sizes import Size, parse_size

_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a finite number", type(None): "null"}


def absent(value: Any) -> dict[str, Any]:
    """Metadata of a dataclass field: what a file from before the field existed means."""
    return {"absent": value}


def encode(value: Any) -> Any:
    """A dataclass, and all within it, as dicts, lists and scalars; a `Size` as `HxW`."""
    if isinstance(value, Size):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    return value


def decode(kind: Any, value: Any, where: str) -> Any:
    """A value of the annotated type `kind` out of plain JSON values.

    Raises:
        InputFileError: naming the place in the file, what was found and what is allowed.
    """
    if kind is Size:
        return _size(value, where)
    if dataclasses.is_dataclass(kind):
        return _object(kind, value, where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _either(inner, value, where)
    if origin is tuple:
        items = _checked(list, value, where, "a list")
        return tuple(decode(inner[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if origin is dict:
        entries = _checked(dict, value, where, "an object")
        return {key: decode(inner[1], item, f"{where}.{key}") for key, item in entries.items()}
    return _scalar(kind, value, where)


def _object(kind: Any, value: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    names = list(fields)
    old = {name: field.metadata["absent"] for name, field in fields.items() if "absent" in field.metadata}
    entries = _checked(dict, value, where, "an object")
    for name in (*names, *entries):
        if (name in entries) != (name in names) and not (name in old and name not in entries):
            problem = "missing field" if name in names else "unknown field"
            raise InputFileError(
                problem,
                where=f"{where}.{name}" if name in names else where,
                got=None if name in names else name,
                allowed=", ".join(names),
                fix="measure again with this version",
            )
    read = {name: decode(hints[name], entries[name], f"{where}.{name}") for name in names if name in entries}
    return kind(**old | read)


def _either(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    rest = [option for option in options if option is not type(None)]
    if len(rest) == 1:
        return decode(rest[0], value, where)
    for option in rest:
        if type(value) is option:
            return _scalar(option, value, where)
    raise _wrong(value, where, " or ".join(_WORDS[option] for option in options))


def _scalar(kind: Any, value: Any, where: str) -> Any:
    # A bool is an int to Python, and 3 is a fine way to write 3.0.
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted or (kind is float and not math.isfinite(value)):
        raise _wrong(value, where, _WORDS[kind])
    return float(value) if kind is float else value


def _size(value: Any, where: str) -> Size:
    text = _checked(str, value, where, "HEIGHTxWIDTH")
    try:
        return parse_size(text, where=where)
    except SearchkitError as error:
        raise InputFileError(error.problem, where=error.where, got=error.got, allowed=error.allowed) from None


def _checked(kind: type, value: Any, where: str, words: str) -> Any:
    if type(value) is not kind:
        raise _wrong(value, where, words)
    return value


def _wrong(value: Any, where: str, allowed: str) -> InputFileError:
    # `None` would be left out of the message.
    got = "null" if value is None else value
    return InputFileError("wrong value", where=where, got=got, allowed=allowed)
