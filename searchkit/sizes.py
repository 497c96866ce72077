"""Input sizes: how they are written, which ones a network takes, and the nearest one where it does not.

Height always comes before width: `512x1024` is 512 rows of 1024 pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from .errors import UsageError

MAX_SIDE_PX = 8192


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def parse_size(text: str, *, where: str = "--resolution") -> Size:
    """`HxW` to a `Size`; raises `UsageError` for anything else, or for a side over 8192 px."""
    match = re.fullmatch(r"([0-9]{1,9})[xX]([0-9]{1,9})", text.strip())
    if match is None:
        raise UsageError(
            "not a resolution",
            where=where,
            got=text,
            allowed="HEIGHTxWIDTH in pixels, such as 512x1024",
        )
    size = Size(int(match[1]), int(match[2]))
    for side, value in zip(size._fields, size, strict=True):
        if not 1 <= value <= MAX_SIDE_PX:
            raise UsageError(f"{side} out of range", where=where, got=value, allowed=f"1 to {MAX_SIDE_PX} px")
    return size


@dataclass(frozen=True)
class SizeRule:
    """Which input sizes a network takes.

    Args:
        multiple: both sides must be multiples of this.
        minimum: neither side may be smaller than this.
    """

    multiple: int = 1
    minimum: int = 1

    def check(self, size: Size, *, network: str) -> None:
        """Raise `UsageError`, naming the nearest size that works, unless `size` works."""
        if all(side % self.multiple == 0 and self.minimum <= side <= MAX_SIDE_PX for side in size):
            return
        raise UsageError(
            f"{network} does not take this size",
            where="--resolution",
            got=str(size),
            allowed=f"sides that are multiples of {self.multiple}, from {self.minimum} to {MAX_SIDE_PX} px",
            fix=f"use {self.nearest(size)}",
        )

    def nearest(self, size: Size) -> Size:
        """The accepted size closest to `size`, each side on its own."""
        return Size(self._nearest_side(size.height), self._nearest_side(size.width))

    def _nearest_side(self, side: int) -> int:
        smallest = -(-self.minimum // self.multiple) * self.multiple
        largest = MAX_SIDE_PX // self.multiple * self.multiple
        rounded = (side + self.multiple // 2) // self.multiple * self.multiple
        return min(max(rounded, smallest), largest)
