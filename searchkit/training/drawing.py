"""What the pictures of training and evaluation have in common: colours, sizes, lines of text, tiles and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..label_sets import LabelSet
from ..pictures import resize_picture
from ..sizes import Size
from ..svg import GREY, Colour

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
RED = (214, 39, 40)
# Dark blue: the far end of a scale that starts at white.
DEEP = (8, 48, 107)

FONT_PX, MARGIN_PX = 15, 14
# A tile is as wide as shows a pole at 1/4 of Cityscapes' width.
TILE_WIDTH_PX = 512


def typeface(size_px: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures: Pillow's own, so that they are the same on every machine."""
    found = ImageFont.load_default(size_px)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow's wheels hold FreeType"
    return found


def band(places: list[tuple[int, str]], size_px: int, colour: Colour = BLACK) -> np.ndarray:
    """A line of texts at given places from the left, as an RGB picture that is as wide as they need."""
    font = typeface(size_px)
    width = max(int(x + font.getlength(text)) for x, text in places) + MARGIN_PX
    picture = Image.new("RGB", (width, size_px + 14), WHITE)
    draw = ImageDraw.Draw(picture)
    for x, text in places:
        draw.text((x, size_px // 2 + 7), text, colour, font, anchor="lm")
    return np.asarray(picture)


def heads(texts: Sequence[str]) -> np.ndarray:
    """A line with one text over each tile of a `tiles` row."""
    places = [(MARGIN_PX + at * (TILE_WIDTH_PX + MARGIN_PX), text) for at, text in enumerate(texts)]
    return band(places, FONT_PX, GREY)


def tiles(pictures: Sequence[np.ndarray], full: Size) -> np.ndarray:
    """RGB pictures of size `full` beside each other, each `TILE_WIDTH_PX` wide."""
    size = Size(round(TILE_WIDTH_PX * full.height / full.width) or 1, TILE_WIDTH_PX)
    # Nearest neighbour only where the tile is larger: thin things would vanish from a smaller one.
    larger = size.width > full.width
    row = np.full((size.height + MARGIN_PX, tiles_width(len(pictures)), 3), 255, np.uint8)
    for at, picture in enumerate(pictures):
        start = MARGIN_PX + at * (TILE_WIDTH_PX + MARGIN_PX)
        tile = resize_picture(np.ascontiguousarray(picture), size, nearest=larger)
        row[: size.height, start : start + TILE_WIDTH_PX] = tile
    return row


def tiles_width(count: int) -> int:
    """Width in px of a `tiles` row of so many."""
    return count * TILE_WIDTH_PX + (count + 1) * MARGIN_PX


def stacked(bands: Sequence[np.ndarray], labels: LabelSet, least_width: int) -> np.ndarray:
    """Bands under each other over the legend of the classes, all as wide as the widest."""
    width = max([least_width, *(each.shape[1] for each in bands)])
    return np.concatenate([_wide(each, width) for each in (*bands, _legend(labels, width))])


def _legend(labels: LabelSet, width: int) -> np.ndarray:
    """The colours and names of the classes, in as many lines as they need."""
    font, swatch, gap = typeface(FONT_PX), 16, 8
    places, x, y = [], MARGIN_PX, 0
    for label, name in enumerate(labels.names):
        needed = swatch + gap + int(font.getlength(name)) + 2 * gap
        if x + needed > width and x > MARGIN_PX:
            x, y = MARGIN_PX, y + 26
        places.append((x, y, label, name))
        x += needed
    picture = Image.new("RGB", (width, y + 26 + MARGIN_PX), WHITE)
    draw = ImageDraw.Draw(picture)
    for x, y, label, name in places:
        draw.rectangle((x, y + 4, x + swatch, y + 4 + swatch), fill=labels.palette[label], outline=GREY)
        draw.text((x + swatch + gap, y + 12), name, BLACK, font, anchor="lm")
    return np.asarray(picture)


def _wide(picture: np.ndarray, width: int) -> np.ndarray:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
