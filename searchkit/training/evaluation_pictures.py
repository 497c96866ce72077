"""Evaluations to look at: the confusion matrix, and the worst and best samples side by side. Drawn with Pillow."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..label_sets import LabelSet
from ..pictures import resize_picture
from ..sizes import Size
from .evaluate import Seen
from .metrics import Confusion

_WHITE, _BLACK, _GREY = (255, 255, 255), (0, 0, 0), (110, 110, 110)
_WRONG, _RIGHT, _UNLABELLED = (214, 39, 40), (222, 235, 222), (0, 0, 0)
# White to dark blue; where it is darker than the middle, figures are white.
_DEEP = (8, 48, 107)

_CELL_PX, _FONT_PX, _MARGIN_PX = 44, 15, 14
# A tile is as wide as shows a pole at 1/4 of Cityscapes' width.
_TILE_WIDTH_PX = 512


def draw_confusion(confusion: Confusion, names: tuple[str, ...], *, title: str = "") -> np.ndarray:
    """The confusion matrix as an RGB picture: each row is a true class and adds up to 100 %.

    A class that the truth does not hold has an empty row. Shares under 0.5 % are coloured and not written.
    """
    matrix = confusion.matrix
    totals = matrix.sum(1)
    font, small = _font(_FONT_PX), _font(_FONT_PX - 2)
    gap = 8
    rows = [f"{name}  {_percent(total, totals.sum())}" for name, total in zip(names, totals, strict=True)]
    left = max(int(font.getlength(text)) for text in rows) + 2 * gap + _MARGIN_PX + _FONT_PX + gap
    over = max(int(font.getlength(name)) for name in names) + 2 * gap
    head = 3 * _FONT_PX + _MARGIN_PX + 2 * gap
    side = _CELL_PX * len(names)
    width = max(left + side, int(font.getlength(title)) + _MARGIN_PX) + _MARGIN_PX
    picture = Image.new("RGB", (width, head + over + side + _MARGIN_PX), _WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN_PX, _MARGIN_PX), title, _BLACK, font)
    draw.text((left, _MARGIN_PX + _FONT_PX + gap), "prediction", _GREY, font)
    _upright(picture, "truth (share of pixels)", (_MARGIN_PX, head + over), font, _GREY)
    top = head + over
    for label, (text, name) in enumerate(zip(rows, names, strict=True)):
        middle = label * _CELL_PX + _CELL_PX // 2
        draw.text((left - gap, top + middle), text, _BLACK, font, anchor="rm")
        length = int(font.getlength(name))
        _upright(picture, name, (left + middle - _FONT_PX // 2 - 1, top - gap - length), font, _BLACK)
        _draw_row(draw, matrix[label], int(totals[label]), (left, top + label * _CELL_PX), small)
    for at in range(0, side, _CELL_PX):
        draw.rectangle((left + at, top + at, left + at + _CELL_PX, top + at + _CELL_PX), outline=_BLACK)
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
        colour = tuple(round(w + (d - w) * depth) for w, d in zip(_WHITE, _DEEP, strict=True))
        box = (x + other * _CELL_PX, y, x + (other + 1) * _CELL_PX, y + _CELL_PX)
        draw.rectangle(box, fill=colour, outline=(225, 225, 225))
        if share >= 0.005:
            middle = (box[0] + _CELL_PX // 2, box[1] + _CELL_PX // 2)
            draw.text(middle, f"{100 * share:.0f}", _WHITE if depth > 0.5 else _BLACK, font, anchor="mm")


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
        bands = [band for title, rows in sections if rows for band in self._section(title, rows)]
        width = max([4 * _TILE_WIDTH_PX + 5 * _MARGIN_PX, *(band.shape[1] for band in bands)])
        legend = _legend(self._labels, width)
        return np.concatenate([_wide(band, width) for band in (*bands, legend)])

    def _section(self, title: str, rows: list[_Row]) -> list[np.ndarray]:
        heads = ("picture", "truth", "prediction", "errors: red; nothing counts where black")
        places = [(_MARGIN_PX + at * (_TILE_WIDTH_PX + _MARGIN_PX), text) for at, text in enumerate(heads)]
        bands = [_band([(_MARGIN_PX, title)], 24), _band(places, _FONT_PX, _GREY)]
        for row in rows:
            bands += [_band([(_MARGIN_PX, row.text)], _FONT_PX), row.tiles]
        return bands

    def _tiles(self, seen: Seen) -> np.ndarray:
        truth, prediction = seen.sample.labels, seen.prediction
        size = Size(round(_TILE_WIDTH_PX * truth.shape[0] / truth.shape[1]) or 1, _TILE_WIDTH_PX)
        errors = np.where((truth == prediction)[..., None], np.array(_RIGHT, np.uint8), np.array(_WRONG, np.uint8))
        errors[truth == self._labels.ignore] = _UNLABELLED
        full = Size(*truth.shape)
        pictures = (
            resize_picture(seen.sample.image, full),
            self._labels.colour(truth),
            self._labels.colour(prediction),
            errors,
        )
        # Nearest neighbour only where the tile is larger: thin errors would vanish from a smaller one.
        larger = size.width > full.width
        tiles = [resize_picture(np.ascontiguousarray(picture), size, nearest=larger) for picture in pictures]
        row = np.full((size.height + _MARGIN_PX, 4 * _TILE_WIDTH_PX + 5 * _MARGIN_PX, 3), 255, np.uint8)
        for at, tile in enumerate(tiles):
            start = _MARGIN_PX + at * (_TILE_WIDTH_PX + _MARGIN_PX)
            row[: size.height, start : start + _TILE_WIDTH_PX] = tile
        return row


def _place(row: _Row) -> tuple[float, int]:
    return row.score, row.position


def _legend(labels: LabelSet, width: int) -> np.ndarray:
    """The colours and names of the classes, in as many lines as they need."""
    font, swatch, gap = _font(_FONT_PX), 16, 8
    places, x, y = [], _MARGIN_PX, 0
    for label, name in enumerate(labels.names):
        needed = swatch + gap + int(font.getlength(name)) + 2 * gap
        if x + needed > width and x > _MARGIN_PX:
            x, y = _MARGIN_PX, y + 26
        places.append((x, y, label, name))
        x += needed
    picture = Image.new("RGB", (width, y + 26 + _MARGIN_PX), _WHITE)
    draw = ImageDraw.Draw(picture)
    for x, y, label, name in places:
        draw.rectangle((x, y + 4, x + swatch, y + 4 + swatch), fill=labels.palette[label], outline=_GREY)
        draw.text((x + swatch + gap, y + 12), name, _BLACK, font, anchor="lm")
    return np.asarray(picture)


def _band(places: list[tuple[int, str]], size_px: int, colour: tuple[int, int, int] = _BLACK) -> np.ndarray:
    """A line of texts at given places from the left."""
    font = _font(size_px)
    width = max(int(x + font.getlength(text)) for x, text in places) + _MARGIN_PX
    picture = Image.new("RGB", (width, size_px + 14), _WHITE)
    draw = ImageDraw.Draw(picture)
    for x, text in places:
        draw.text((x, size_px // 2 + 7), text, colour, font, anchor="lm")
    return np.asarray(picture)


def _wide(band: np.ndarray, width: int) -> np.ndarray:
    return np.pad(band, ((0, 0), (0, width - band.shape[1]), (0, 0)), constant_values=255)


def _upright(
    picture: Image.Image,
    text: str,
    corner: tuple[int, int],
    font: ImageFont.FreeTypeFont,
    colour: tuple[int, int, int],
) -> None:
    """Text that reads from below to above, its upper left corner at `corner`."""
    patch = Image.new("RGB", (int(font.getlength(text)) + 1, int(font.size * 4 / 3)), _WHITE)
    ImageDraw.Draw(patch).text((0, 0), text, colour, font)
    picture.paste(patch.transpose(Image.Transpose.ROTATE_90), corner)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels hold FreeType"
    return font
