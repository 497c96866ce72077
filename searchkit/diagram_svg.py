"""A genotype as a picture: columns are layers, rows resolutions, boxes operators; SVG that any browser shows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .cost import Cost, Stage, shrink
from .diagram import Diagram
from .diagram_layout import HEAD, LABEL_PX, LINE_PX, Course, Layout, Place, lay_out
from .genotype import Genotype
from .sizes import Size
from .svg import GREY, Colour, Point, document, hexadecimal, polygon, polyline, rectangle, text, text_width

_MARGIN, _TOP, _LEAST_WIDTH = 20, 84, 760
_ROW_NAMES_PX, _SMALL_PX = 12, 11
# Pale, so that black words can be read on them.
_FILLS: tuple[Colour, ...] = (
    (174, 199, 232),
    (255, 203, 150),
    (176, 224, 176),
    (250, 184, 182),
    (207, 192, 228),
    (219, 196, 180),
    (247, 200, 226),
    (222, 222, 145),
    (165, 224, 232),
    (200, 200, 200),
)
_ROW_FILL: Colour = (244, 244, 246)
_STRAIGHT: Colour = (60, 60, 60)
# Told apart by people who see few colours as well (Okabe and Ito), darkened on white.
_NETS: tuple[Colour, ...] = (
    (0, 90, 160),
    (200, 80, 0),
    (0, 130, 95),
    (190, 90, 150),
    (70, 150, 210),
    (150, 120, 0),
    (120, 60, 30),
)
_BAR_PX, _STAGE_PITCH, _STAGES_A_COLUMN, _STAGE_PX = 120, 18, 8, 440
# Over the words of boxes the rim that words have elsewhere would be a white spot.
_NO_RIM = ' style="stroke: none"'


def draw_genotype(genotype: Genotype, diagram: Diagram, size: Size) -> str:
    """A genotype and its diagram at an image of `size` as an SVG file; the same bytes every time.

    Raises:
        ValueError: the diagram has no box.
    """
    if not diagram.boxes:
        raise ValueError("a diagram without a box")
    layout = lay_out(diagram)
    names = {rate: _row_name(rate, size) for rate in layout.rows}
    left = _MARGIN + max(text_width(word, _ROW_NAMES_PX) for words in names.values() for word in words) + 12
    drawn = left + layout.width + _MARGIN
    heading = _heading(genotype, size)
    stages = list(genotype.stage_costs(size))
    wide = max(_LEAST_WIDTH, drawn, *(text_width(words, px) + 2 * _MARGIN for words, px in heading))
    parts = [text((_MARGIN, 36 + 24 * at), words, size_px=px) for at, (words, px) in enumerate(heading)]
    parts += _rows(layout, names, (left, _TOP), drawn)
    bent = {course.net for course in layout.courses if len(course.points) > 2}
    for course in layout.courses:
        colour = _NETS[course.net % len(_NETS)] if course.net in bent else _STRAIGHT
        parts.append(_arrow(course, (left, _TOP), colour))
    fills = _fills([box.kind for box in diagram.boxes])
    for place in layout.places.values():
        parts += _box(place, (left, _TOP), fills[place.box.kind])
    y = _TOP + layout.height + 24
    legend, y = _legend(fills, y, min(wide, 1600))
    shares, y = _stages(stages, y + 14)
    notes = [text((_MARGIN, y + 20 + 18 * at), words, size_px=_SMALL_PX) for at, words in enumerate(diagram.notes)]
    wide = max(wide, *(text_width(words, _SMALL_PX) + 2 * _MARGIN for words in ("", *diagram.notes)))
    wide = max(wide, 2 * _MARGIN + (_names_px(stages) + _STAGE_PX) * -(-len(stages) // _STAGES_A_COLUMN))
    bottom = y + 18 * len(notes) + _MARGIN
    return document([*parts, *legend, *shares, *notes], round(wide), round(bottom), heading[0][0])


def _heading(genotype: Genotype, size: Size) -> tuple[tuple[str, int], ...]:
    cost = genotype.cost(size)
    facts = (
        f"space {genotype.space}",
        f"digest {genotype.digest[:12]}",
        f"{cost.conv_macs / 1e9:.4g} GMACs at {size}",
        f"{_amount(cost.params)} parameters",
    )
    return (genotype.name, 18), (", ".join(facts), 13)


def _amount(count: float) -> str:
    """A count in three or four digits: 1.023 M, 12.4 k."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.4g} {unit}"
    return f"{count:.4g}"


def _row_name(rate: int, size: Size) -> tuple[str, str]:
    return f"1/{rate}" if rate > 1 else "1", f"{shrink(size, rate)} px"


def _rows(layout: Layout, names: dict[int, tuple[str, str]], at: Point, right: float) -> list[str]:
    """A band behind each row, its resolution on the left."""
    parts = []
    for rate, (top, bottom) in layout.rows.items():
        corner, size = (_MARGIN / 2, at[1] + top), (right - _MARGIN, bottom - top)
        parts.append(rectangle(corner, size, fill=hexadecimal(_ROW_FILL), stroke=_ROW_FILL))
        middle = at[1] + (top + bottom) / 2
        for line, words in enumerate(names[rate]):
            place = (_MARGIN, middle - 4 + 16 * line)
            parts.append(text(place, words, size_px=_ROW_NAMES_PX - line, colour=GREY if line else (0, 0, 0)))
    return parts


def _arrow(course: Course, at: Point, colour: Colour) -> str:
    points = [(x + at[0], y + at[1]) for x, y in course.points]
    (before, x), (from_y, y) = zip(*points[-2:], strict=True)
    label = course.arrow.label
    if before == x:
        back = -HEAD if y > from_y else HEAD
        parts = [polyline([*points[:-1], (x, y + back * 0.8)], colour, width_px=1.3)]
        parts.append(polygon([(x, y), (x - 3.5, y + back), (x + 3.5, y + back)], colour))
        place = (x + 4, (y + from_y) / 2 + 3)
        return "\n".join([*parts, *([text(place, label, size_px=LABEL_PX, colour=colour)] if label else [])])
    parts = [polyline([*points[:-1], (x - HEAD * 0.8, y)], colour, width_px=1.3)]
    parts.append(polygon([(x, y), (x - HEAD, y - 3.5), (x - HEAD, y + 3.5)], colour))
    if label:
        # On the line, whose place the words' rim takes.
        parts.append(text((x - HEAD - 4, y + 3), label, anchor="end", size_px=LABEL_PX, colour=colour))
    return "\n".join(parts)


def _box(place: Place, at: Point, fill: Colour) -> list[str]:
    left, top = place.left + at[0], place.top + at[1]
    parts = [rectangle((left, top), (place.width, place.height), fill=hexadecimal(fill), stroke=GREY)]
    lines = place.box.lines
    # Of words of 11 px the middle is 4 px over their base line.
    first = top + place.height / 2 + 4 - 7 * (len(lines) - 1)
    for at_line, words in enumerate(lines):
        middle = (left + place.width / 2, first + 14 * at_line)
        parts.append(text(middle, words, anchor="middle", size_px=LINE_PX, more=_NO_RIM))
    return parts


def _fills(kinds: Sequence[str]) -> dict[str, Colour]:
    """A colour for each kind: the same in all pictures, but where two kinds of one picture would have the same."""
    found: dict[str, Colour] = {}
    for kind in sorted(set(kinds)):
        start = hashlib.sha256(kind.encode()).digest()[0]
        order = [_FILLS[(start + step) % len(_FILLS)] for step in range(len(_FILLS))]
        found[kind] = next((colour for colour in order if colour not in found.values()), order[0])
    return {kind: found[kind] for kind in kinds}


def _legend(fills: dict[str, Colour], y: float, width: float) -> tuple[list[str], float]:
    """What each colour means, and where it ends."""
    parts, x = [], float(_MARGIN)
    for kind, fill in fills.items():
        words = kind.replace("_", " ")
        needed = 34 + text_width(words)
        if x + needed > width and x > _MARGIN:
            x, y = float(_MARGIN), y + 22
        parts.append(rectangle((x, y), (16, 14), fill=hexadecimal(fill), stroke=GREY))
        parts.append(text((x + 22, y + 11), words))
        x += needed
    return parts, y + 22


def _stages(stages: Sequence[Stage], y: float) -> tuple[list[str], float]:
    """What each stage costs as a bar and in words, and where it ends."""
    total, names_px = Cost.of(stages), _names_px(stages)
    parts = [text((_MARGIN, y + 12), "share of the MACs by stage")]
    y += 22
    for at, stage in enumerate(stages):
        left = _MARGIN + (names_px + _STAGE_PX) * (at // _STAGES_A_COLUMN)
        top = y + _STAGE_PITCH * (at % _STAGES_A_COLUMN)
        share = stage.conv_macs / total.conv_macs if total.conv_macs else 0.0
        bar = (left + names_px, top + 3)
        words = f"{share:.1%}, {stage.conv_macs / 1e9:.3g} GMACs, {_amount(stage.params)} parameters"
        parts.append(text((left, top + 13), stage.name, size_px=_SMALL_PX))
        parts.append(rectangle(bar, (_BAR_PX, 11), fill=hexadecimal(_ROW_FILL), stroke=_ROW_FILL))
        parts.append(rectangle(bar, (_BAR_PX * share, 11), fill=hexadecimal(_FILLS[0]), stroke=_FILLS[0]))
        parts.append(text((bar[0] + _BAR_PX + 8, top + 13), words, size_px=_SMALL_PX))
    return parts, y + _STAGE_PITCH * min(len(stages), _STAGES_A_COLUMN)


def _names_px(stages: Sequence[Stage]) -> float:
    return 10 + max(text_width(stage.name, _SMALL_PX) for stage in stages)
