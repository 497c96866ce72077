"""Devices that are not here: peak rates and memory bandwidth, each with its source, out of `devices.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from searchkit.errors import InputFileError, UsageError, unknown_name
from searchkit.files import read_bytes

from . import _tree

TABLE = Path(__file__).parent / "devices.toml"
SCHEMA = 1

#: Precisions that a rate can be of, and how many bytes a value takes in memory.
WIDTHS = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1}
UNITS = ("cuda cores", "tensor cores")

_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Peak:
    """A rate in one precision: 1e12 operations a second, two to a multiply-accumulate; dense."""

    precision: str
    units: str
    tera_ops: float
    source: str


@dataclass(frozen=True, slots=True)
class Device:
    """One entry of `devices.toml`; figures are of the reference board.

    Attributes:
        also: other spellings, as papers write them.
        bandwidth_gb_s: of its memory, in 1e9 bytes a second.
        source: of clock, cores, memory and bandwidth; each peak has its own.
    """

    name: str
    title: str
    also: tuple[str, ...]
    cuda_cores: int
    boost_mhz: float
    memory_gb: float
    bandwidth_gb_s: float
    source: str
    peak: tuple[Peak, ...]

    def best(self, precision: str) -> Peak:
        """The highest rate in a precision, whichever units have it.

        Raises:
            UsageError: the table has none; those it has are listed.
        """
        found = [peak for peak in self.peak if peak.precision == precision]
        if not found:
            known = dict.fromkeys(peak.precision for peak in self.peak)
            raise UsageError(
                f"no rate in this precision is known for {self.title}",
                where="--precision",
                got=precision,
                allowed=", ".join(known),
            )
        return max(found, key=lambda peak: peak.tera_ops)


@dataclass(frozen=True, slots=True)
class _File:
    schema: int
    sources: dict[str, str]
    device: tuple[Device, ...]


def read(data: bytes, where: str) -> dict[str, Device]:
    """Devices by name, out of the bytes of a `devices.toml`.

    Raises:
        InputFileError: it is not TOML, a field is missing, unknown or of another type, a figure is not above 0, a
            source is not explained, or two devices share a spelling.
    """
    tree = _toml(data, where)
    if tree.get("schema") != SCHEMA:
        raise InputFileError("another schema", where=f"{where}: schema", got=tree.get("schema"), allowed=str(SCHEMA))
    found: _File = _tree.decode(_File, tree, where)
    for index, device in enumerate(found.device):
        _check(device, found.sources, f"{where}: device[{index}]")
    _check_spellings(found.device, where)
    return {device.name: device for device in found.device}


@cache
def devices() -> dict[str, Device]:
    """Those that come with searchkit."""
    return read(read_bytes(TABLE, limit_bytes=_MAX_BYTES, what="table of devices"), TABLE.name)


def find(text: str, *, where: str = "--device") -> Device:
    """The device of a name or spelling; case, blanks and hyphens do not matter.

    Raises:
        UsageError: there is none; the nearest are named.
    """
    spellings = {_plain(spelling): device for device in devices().values() for spelling in _spellings(device)}
    if _plain(text) not in spellings:
        raise unknown_name("device", text, ["here", *devices()], where=where)
    return spellings[_plain(text)]


def _toml(data: bytes, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise InputFileError(f"not UTF-8: {error.reason} at byte {error.start}", where=where) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputFileError(f"not valid TOML: {str(error) or 'nested too deeply'}", where=where) from None


def _check(device: Device, sources: dict[str, str], where: str) -> None:
    if not _NAME.fullmatch(device.name):
        raise InputFileError("wrong name", where=f"{where}.name", got=device.name, allowed="such as gtx1080ti")
    for field in ("cuda_cores", "boost_mhz", "memory_gb", "bandwidth_gb_s"):
        _check_positive(getattr(device, field), f"{where}.{field}")
    _check_source(device.source, sources, where)
    for index, peak in enumerate(device.peak):
        place = f"{where}.peak[{index}]"
        _check_word(peak.precision, tuple(WIDTHS), f"{place}.precision")
        _check_word(peak.units, UNITS, f"{place}.units")
        _check_positive(peak.tera_ops, f"{place}.tera_ops")
        _check_source(peak.source, sources, place)
    pairs = [(peak.precision, peak.units) for peak in device.peak]
    if len(set(pairs)) != len(pairs) or "fp32" not in {precision for precision, _ in pairs}:
        raise InputFileError(
            "wrong rates", where=f"{where}.peak", allowed="each precision and units once, and fp32 among them"
        )


def _check_positive(value: float, where: str) -> None:
    if value <= 0:
        raise InputFileError("not a rate or a size", where=where, got=value, allowed="above 0")


def _check_word(value: str, words: Sequence[str], where: str) -> None:
    if value not in words:
        raise InputFileError("unknown word", where=where, got=value, allowed=", ".join(words))


def _check_source(name: str, sources: dict[str, str], where: str) -> None:
    if name not in sources:
        raise InputFileError(
            "a source that is not explained", where=f"{where}.source", got=name, allowed="a key of [sources]"
        )


def _check_spellings(found: Sequence[Device], where: str) -> None:
    seen: dict[str, str] = {"here": "this machine", "all": "every device"}
    for device in found:
        for spelling in {_plain(spelling) for spelling in _spellings(device)}:
            if spelling in seen:
                raise InputFileError(
                    "two devices share a spelling", where=where, got=spelling, allowed=f"only {seen[spelling]}"
                )
            seen[spelling] = device.name


def _spellings(device: Device) -> tuple[str, ...]:
    return (device.name, device.title, *device.also)


def _plain(text: str) -> str:
    return re.sub(r"[\s_()-]+", "", text.lower())
