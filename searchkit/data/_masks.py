"""How a mask file says which class a pixel is: by a number, or by a colour."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputFileError
from ..pictures import decode_picture

if TYPE_CHECKING:
    from PIL.Image import Image

NOT_ALLOWED = -1
_MAX_LISTED = 8

Colour = tuple[int, int, int]


class MaskCode(ABC):
    """The code of a data set's masks. Its `repr` says all of it: fingerprints are made from that."""

    def read(self, path: Path) -> np.ndarray:
        """The labels of a mask file: H x W, uint8.

        Raises:
            InputFileError: missing, unreadable, truncated, or holding what the code does not know.
        """
        return decode_picture(path, lambda picture: self.decode(picture, str(path)))

    @abstractmethod
    def decode(self, picture: Image, where: str) -> np.ndarray:
        """The labels of an opened mask: H x W, uint8; raises `InputFileError` for what the code does not know."""


@dataclass(frozen=True)
class IndexMasks(MaskCode):
    """Masks of one number a pixel.

    Args:
        table: for each number from 0 to 255 the label it stands for, or `NOT_ALLOWED`.
    """

    table: tuple[int, ...]

    def decode(self, picture: Image, where: str) -> np.ndarray:
        # A palette only colours the numbers for viewers; the numbers are what counts.
        if picture.mode not in ("L", "P"):
            raise InputFileError(
                "the mask does not hold one 8-bit number a pixel",
                where=where,
                got=f"mode {picture.mode}",
                allowed="greyscale or palette, 8 bits",
            )
        numbers = np.asarray(picture)
        table = np.array(self.table)
        counts = np.bincount(numbers.ravel(), minlength=256)
        wrong = np.flatnonzero((counts > 0) & (table == NOT_ALLOWED))
        if wrong.size:
            raise InputFileError(
                f"labels out of range in {counts[wrong].sum()} pixels",
                where=where,
                got=wrong[:_MAX_LISTED].tolist(),
                allowed=_ranges(np.flatnonzero(table != NOT_ALLOWED).tolist()),
            )
        return table.astype(np.uint8)[numbers]


@dataclass(frozen=True)
class ColourMasks(MaskCode):
    """Masks of one RGB colour a pixel.

    Args:
        colours: pairs of a colour and the label it stands for.
    """

    colours: tuple[tuple[Colour, int], ...]

    def decode(self, picture: Image, where: str) -> np.ndarray:
        pixels = np.asarray(picture.convert("RGB")).astype(np.uint32)
        codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
        known = sorted((red << 16 | green << 8 | blue, label) for (red, green, blue), label in self.colours)
        known_codes = np.array([code for code, _ in known], np.uint32)
        places = np.minimum(np.searchsorted(known_codes, codes), len(known) - 1)
        wrong = known_codes[places] != codes
        if wrong.any():
            strange = np.unique(codes[wrong])[:_MAX_LISTED].tolist()
            raise InputFileError(
                f"colours that stand for no class in {int(wrong.sum())} pixels",
                where=where,
                got=[(code >> 16, code >> 8 & 255, code & 255) for code in strange],
                allowed=f"the {len(known)} colours of the data set",
            )
        return np.array([label for _, label in known], np.uint8)[places]


def index_masks(classes: int, ignored: tuple[int, ...]) -> IndexMasks:
    """Masks whose numbers are the labels themselves; those in `ignored` become 255."""
    table = [number if number < classes else NOT_ALLOWED for number in range(256)]
    for number in ignored:
        table[number] = 255
    return IndexMasks(tuple(table))


def _ranges(numbers: list[int]) -> str:
    """`0 to 18, 255` for sorted numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in runs)
