"""The fields of a protobuf message, found without decoding it.

A decoder makes an object of every two bytes that a hostile file spends on an empty message, so a small file can fill
the memory. Walking the fields first costs no memory and stops at the first one too many. Format: the protobuf
encoding, https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_MAX_VARINT_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


class Field(NamedTuple):
    """One field of a message: its number, and where its payload lies; `is_bytes` for what has a length of its own."""

    number: int
    start: int
    end: int
    is_bytes: bool


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`, in order.

    Raises:
        ValueError: the bytes end inside a field, or are no message.
    """
    end = len(data) if end is None else end
    while start < end:
        tag, start = _varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("field number 0")
        if kind == _VARINT:
            _, stop = _varint(data, start, end)
        elif kind == _BYTES:
            length, start = _varint(data, start, end)
            stop = start + length
        elif kind in _FIXED:
            stop = start + _FIXED[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if stop > end:
            raise ValueError(f"ends inside field {number}")
        yield Field(number, start, stop, kind == _BYTES)
        start = stop


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """A number and where the next thing begins."""
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        position = start + count
        if position >= end:
            raise ValueError("ends inside a number")
        value |= (data[position] & 0x7F) << (7 * count)
        if data[position] < 0x80:
            return value, position + 1
    raise ValueError("a number of more than ten bytes")
