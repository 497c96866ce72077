"""JSON as a promise: one document, one meaning, bounded cost.

Python's own decoder accepts NaN, infinities, duplicate keys (the last wins), a number of any length, nesting until the
stack overflows, and lone surrogates. Each of these lets two readers see two different networks in one file, or stops a
reader for good, so each is refused here with its own message. What passes is also bounded in size, depth and count.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any

from .errors import InputFileError, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_STRING_BYTES = 256
MAX_INTEGER = 2**31

# Matches a whole string literal, so that brackets inside strings are not counted as nesting. Nothing is tried twice,
# and a string without an end is taken to the end of the file: else 1 MiB of escaped quotes would take an hour.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
# Control characters, and the invisible marks that turn or break a line of text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_MAX_PATH_SHOWN = 120


class Spelling(str):
    """Text for `got` in a message that is shown as it is: a value as JSON has it (`true`, `null`), or a count."""

    def __repr__(self) -> str:
        return str(self)

    @classmethod
    def of(cls, value: Any) -> Spelling:
        return cls(json.dumps(value))


class _Refused:
    """Stands in the decoded tree where something was refused, so that the walk can say at which path."""

    def __init__(self, problem: str, got: object, allowed: str, fix: str) -> None:
        self.problem, self.got, self.allowed, self.fix = problem, got, allowed, fix


def loads(data: bytes, *, where: str, string_bytes: int = MAX_STRING_BYTES) -> Any:
    """Decode one JSON document.

    Args:
        data: the bytes of the file.
        where: the file's name, for messages.
        string_bytes: how long a string may be, in UTF-8.

    Raises:
        InputFileError: naming the file, the path inside it, what was found and what is allowed.
    """
    text = _decode(data, where)
    _check_depth(text, where)
    try:
        tree = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise InputFileError(
            f"not valid JSON: {error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}",
            where=where,
            fix="correct the file with a JSON-aware editor",
        ) from None
    _walk(tree, "", where, [0], string_bytes)
    return tree


def canonical(tree: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, ASCII, no NaN. Digests are taken of this."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def member(path: str, key: str) -> str:
    """The path of `key` in the object at `path`; a key that is not a plain name is quoted, and cut if it is long."""
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{shown(Spelling.of(key))}]"
    return f"{path}.{key}" if path else key


def place(where: str, path: str) -> str:
    """A file and a path inside it, for messages; a long path loses its middle."""
    if len(path) > _MAX_PATH_SHOWN:
        half = _MAX_PATH_SHOWN // 2
        path = f"{path[:half]}...{path[-half:]}"
    return f"{where}: {path}" if path else where


def _decode(data: bytes, where: str) -> str:
    if not data:
        raise InputFileError("file is empty", where=where, fix="check that this is the file you meant")
    if len(data) > MAX_BYTES:
        raise InputFileError(
            "file too long",
            where=where,
            got=Spelling(f"{len(data)} bytes"),
            allowed=f"at most {MAX_BYTES} bytes",
            fix="check that this is the file you meant",
        )
    if data.startswith(b"\xef\xbb\xbf"):
        raise InputFileError("starts with a byte-order mark", where=where, fix="save the file as UTF-8 without BOM")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"not UTF-8: {error.reason} at byte {error.start}", where=where, fix="save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise InputFileError(
            f"holds a NUL byte at byte {data.index(0)}, as UTF-16 and binary files do",
            where=where,
            fix="save the file as UTF-8",
        )
    return text


def _check_depth(text: str, where: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        token = match[0]
        depth += (token in "[{") - (token in "]}")
        if depth > MAX_DEPTH:
            raise InputFileError(
                "nested too deeply",
                where=where,
                got=Spelling(f"more than {MAX_DEPTH} levels at character {match.start()}"),
                allowed=f"at most {MAX_DEPTH} levels",
                fix="flatten the document",
            )


def _object(pairs: list[tuple[str, Any]]) -> Any:
    decoded: dict[str, Any] = {}
    for key, value in pairs:
        if key in decoded:
            decoded[key] = _Refused(
                "duplicate key", Spelling.of(key), "each key once in an object", "delete all but one of them"
            )
        else:
            decoded[key] = value
    return decoded


def _integer(text: str) -> Any:
    allowed = f"integers from {-MAX_INTEGER} to {MAX_INTEGER}"
    if text == "-0":
        return _Refused("negative zero", Spelling(text), allowed, "write 0")
    if len(text) > 12 or abs(int(text)) > MAX_INTEGER:
        return _Refused("integer out of range", Spelling(text), allowed, "use a smaller number")
    return int(text)


def _float(text: str) -> Any:
    value = float(text)
    if math.isinf(value):
        return _Refused("number overflows to infinity", Spelling(text), "finite numbers", "use a smaller number")
    return value


def _constant(text: str) -> Any:
    return _Refused(f"{text} is not JSON", Spelling(text), "finite numbers", "write a finite number, or null")


def _walk(value: Any, path: str, where: str, count: list[int], string_bytes: int) -> None:
    count[0] += 1
    if count[0] > MAX_VALUES:
        raise InputFileError(
            "too many values",
            where=where,
            got=Spelling(f"more than {MAX_VALUES}"),
            allowed=f"at most {MAX_VALUES}",
            fix="check that this is the file you meant",
        )
    if isinstance(value, _Refused):
        raise InputFileError(
            value.problem,
            where=place(where, path),
            got=value.got,
            allowed=value.allowed,
            fix=value.fix,
        )
    if isinstance(value, str):
        _check_string(value, path, where, string_bytes)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _walk(item, f"{path}[{index}]", where, count, string_bytes)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_string(key, f"{path}.<key>" if path else "<key>", where, string_bytes)
            _walk(item, member(path, key), where, count, string_bytes)


def _check_string(value: str, path: str, where: str, string_bytes: int) -> None:
    got = Spelling.of(value)
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise InputFileError(
            "string holds a lone surrogate",
            where=place(where, path),
            got=got,
            fix="remove the escape \\ud800 to \\udfff",
        ) from None
    if size > string_bytes:
        raise InputFileError(
            "string too long",
            where=place(where, path),
            got=Spelling(f"{size} bytes"),
            allowed=f"at most {string_bytes} bytes of UTF-8",
            fix="shorten it",
        )
    if _CONTROL.search(value):
        raise InputFileError(
            "string holds a control character",
            where=place(where, path),
            got=got,
            fix="remove the character",
        )
    if unicodedata.normalize("NFC", value) != value:
        raise InputFileError(
            "string is not in Unicode normal form NFC",
            where=place(where, path),
            got=got,
            fix="save it in form NFC",
        )
