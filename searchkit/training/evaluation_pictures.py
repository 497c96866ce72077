"""Evaluations to look at: the confusion matrix, and the worst and best samples side by side. Drawn with Pillow."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..label_sets import LabelSet
from ..pictures import resize_picture
from ..sizes import Size
from ..svg import GREY, Colour
from .drawing import (
    BLACK,
    DEEP,
    FONT_PX,
    MARGIN_PX,
    RED,
    WHITE,
    band,
    heads,
    stacked,
    tiles,
    tiles_width,
    typeface,
)
from .evaluate import Seen
from .metrics import Confusion

_WRONG, _RIGHT, _UNLABELLED = RED, (222, 235, 222), BLACK
_CELL_PX = 44


def draw_confusion(confusion: Confusion, names: tuple[str, ...], *, title: str = "") -> np.ndarray:
    """The confusion matrix as an RGB picture: each row is a true class and adds up to 100 %.

    A class that the truth does not hold has an empty row. Shares under 0.5 % are coloured and not written.
    """
    matrix = confusion.matrix
    totals = matrix.sum(1)
    font, small = typeface(FONT_PX), typeface(FONT_PX - 2)
    gap = 8
    rows = [f"{name}  {_percent(total, totals.sum())}" for name, total in zip(names, totals, strict=True)]
    left = max(int(font.getlength(text)) for text in rows) + 2 * gap + MARGIN_PX + FONT_PX + gap
    over = max(int(font.getlength(name)) for name in names) + 2 * gap
    head = 3 * FONT_PX + MARGIN_PX + 2 * gap
    side = _CELL_PX * len(names)
    width = max(left + side, int(font.getlength(title)) + MARGIN_PX) + MARGIN_PX
    picture = Image.new("RGB", (width, head + over + side + MARGIN_PX), WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN_PX, MARGIN_PX), title, BLACK, font)
    draw.text((left, MARGIN_PX + FONT_PX + gap), "prediction", GREY, font)
    _upright(picture, "truth (share of pixels)", (MARGIN_PX, head + over), font, GREY)
    top = head + over
    for label, (text, name) in enumerate(zip(rows, names, strict=True)):
        middle = label * _CELL_PX + _CELL_PX // 2
        draw.text((left - gap, top + middle), text, BLACK, font, anchor="rm")
        length = int(font.getlength(name))
        _upright(picture, name, (left + middle - FONT_PX // 2 - 1, top - gap - length), font, BLACK)
        _draw_row(draw, matrix[label], int(totals[label]), (left, top + label * _CELL_PX), small)
    for at in range(0, side, _CELL_PX):
        draw.rectangle((left + at, top + at, left + at + _CELL_PX, top + at + _CELL_PX), outline=BLACK)
    return np.asarray(picture)


def _draw_row(
    draw: ImageDraw.ImageDraw,
    counts: np.ndarray,
    total: int,
    corner: tuple[int, int],
    font: ImageFont.FreeTypeFont,
) -> None:
    x, y = corner
    for other, count in enumerate(counts):
        share = float(count) / total if total else 0.0
        # The root lets small confusions be seen.
        depth = share**0.5
        colour = tuple(round(w + (d - w) * depth) for w, d in zip(WHITE, DEEP, strict=True))
        box = (x + other * _CELL_PX, y, x + (other + 1) * _CELL_PX, y + _CELL_PX)
        draw.rectangle(box, fill=colour, outline=(225, 225, 225))
        if share >= 0.005:
            middle = (box[0] + _CELL_PX // 2, box[1] + _CELL_PX // 2)
            draw.text(middle, f"{100 * share:.0f}", WHITE if depth > 0.5 else BLACK, font, anchor="mm")


@dataclass(frozen=True, order=True)
class _Row:
    score: float
    position: int
    text: str
    tiles: np.ndarray


class Sheet:
    """Collects the `count` worst and the `count` best samples by their own mIoU; give `add` to `evaluate` as `watch`.

    Only their tiles are kept, so the memory does not grow with the split. Samples without a labelled pixel are left
    out.
    """

    def __init__(self, labels: LabelSet, count: int = 3) -> None:
        self._labels = labels
        self._count = count
        self._worst: list[_Row] = []
        self._best: list[_Row] = []

    def add(self, seen: Seen) -> None:
        score = seen.mean_iou
        if score is None:
            return
        low = len(self._worst) < self._count or score < self._worst[-1].score
        high = len(self._best) < self._count or score > self._best[0].score
        if low or high:
            row = _Row(score, seen.position, f"{seen.name}   mIoU {100 * score:.1f} %", self._tiles(seen))
            if low:
                bisect.insort(self._worst, row, key=_place)
                del self._worst[self._count :]
            if high:
                bisect.insort(self._best, row, key=_place)
                del self._best[: -self._count]

    def positions(self) -> tuple[list[int], list[int]]:
        """Positions of the worst samples, worst first, and of the best, best first; none is in both."""
        worst = [row.position for row in self._worst]
        return worst, [row.position for row in reversed(self._best) if row.position not in worst]

    def draw(self) -> np.ndarray:
        """The sheet as an RGB picture: a row a sample, of picture, truth, prediction and errors."""
        known = {row.position: row for row in (*self._worst, *self._best)}
        worst, best = self.positions()
        sections = [("worst", [known[at] for at in worst]), ("best", [known[at] for at in best])]
        bands = [each for title, rows in sections if rows for each in self._section(title, rows)]
        return stacked(bands, self._labels, tiles_width(4))

    def _section(self, title: str, rows: list[_Row]) -> list[np.ndarray]:
        columns = ("picture", "truth", "prediction", "errors: red; nothing counts where black")
        bands = [band([(MARGIN_PX, title)], 24), heads(columns)]
        for row in rows:
            bands += [band([(MARGIN_PX, row.text)], FONT_PX), row.tiles]
        return bands

    def _tiles(self, seen: Seen) -> np.ndarray:
        truth, prediction = seen.sample.labels, seen.prediction
        errors = np.where((truth == prediction)[..., None], np.array(_RIGHT, np.uint8), np.array(_WRONG, np.uint8))
        errors[truth == self._labels.ignore] = _UNLABELLED
        full = Size(*truth.shape)
        pictures = (
            resize_picture(seen.sample.image, full),
            self._labels.colour(truth),
            self._labels.colour(prediction),
            errors,
        )
        return tiles(pictures, full)


def _place(row: _Row) -> tuple[float, int]:
    return row.score, row.position


def _upright(
    picture: Image.Image,
    text: str,
    corner: tuple[int, int],
    font: ImageFont.FreeTypeFont,
    colour: Colour,
) -> None:
    """Text that reads from below to above, its upper left corner at `corner`."""
    patch = Image.new("RGB", (int(font.getlength(text)) + 1, int(font.size * 4 / 3)), WHITE)
    ImageDraw.Draw(patch).text((0, 0), text, colour, font)
    picture.paste(patch.transpose(Image.Transpose.ROTATE_90), corner)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
