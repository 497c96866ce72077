"""`plots.svg`: a run at a glance, drawn from its history alone, as SVG that any browser shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..label_sets import LabelSet, generic_labels
from ..svg import GREY, GRID, Axes, Point, document, hexadecimal, line, number, rectangle, text
from .drawing import BLACK, DEEP, RED
from .history import Row

# The left column: three charts over the same steps.
_LEFT, _CHART_WIDTH, _CHART_HEIGHT, _TOP, _PITCH = 76, 600, 170, 78, 262
# The right column: one bar a class.
_BARS_LEFT, _BARS_WIDTH, _BAR_PITCH = 870, 250, 20
_WIDTH = 1190
_LONGEST_NAME = 20


def draw_plots(rows: Sequence[Row], labels: LabelSet | None = None) -> str:
    """Loss, learning rate and mIoU over the steps, and the IoU of each class in the last validation, as an SVG file.

    Args:
        rows: of `history.jsonl`; any number, none included. Of two rows of one kind and step the later one counts.
        labels: names and colours of the classes; generic ones if None.
    """
    losses, rates = _series(rows, "loss"), _series(rows, "lr")
    validations = {row["step"]: row for row in rows if "miou" in row}
    last = max((row["step"] for row in rows), default=0)
    # A validation without a labelled pixel has no mIoU.
    mious = [(step, 100 * row["miou"]) for step, row in sorted(validations.items()) if row["miou"] is not None]
    # The first of the greatest, as those weights are kept.
    best = max(mious, key=lambda point: (point[1], -point[0]), default=None)
    parts = [text((_LEFT, 34), _heading(last, best), size_px=17)]
    unit, rates = _scaled(rates)
    charts = (
        ("loss: mean of the steps since the last point", losses, "loss", None),
        ("learning rate", rates, f"learning rate{unit}", None),
        ("mIoU: validations; ring: the best", mious, "mIoU in %", 100.0),
    )
    for at, (heading, points, name, limit) in enumerate(charts):
        highest = max((y for _, y in points), default=0.0)
        y_end = limit or 1.05 * highest or 1.0
        axes = Axes(_LEFT, _TOP + at * _PITCH, _CHART_WIDTH, _CHART_HEIGHT, max(last, 1), y_end)
        parts += _chart(axes, heading, name, points, _stage_ends(rows))
        if limit:
            parts += [axes.dot(point, DEEP) for point in points]
            parts += [axes.dot(best, RED, radius_px=6, filled=False)] if best else []
    bars, bottom = _bars(validations, best, labels)
    height = max(_TOP + 2 * _PITCH + _CHART_HEIGHT, int(bottom)) + 46
    return document([*parts, *bars], _WIDTH, height, _heading(last, best))


def _series(rows: Sequence[Row], key: str) -> list[Point]:
    return sorted({row["step"]: row[key] for row in rows if key in row}.items())


def _scaled(points: list[Point]) -> tuple[str, list[Point]]:
    """Small values as multiples of a power of ten, which goes to the axis's name: there is little room at a tick."""
    highest = max((y for _, y in points), default=0.0)
    if not 0 < highest < 0.1:
        return "", points
    power = math.floor(math.log10(highest))
    return f" in 1e{power}", [(x, y * 10.0**-power) for x, y in points]


def _heading(last: int, best: Point | None) -> str:
    found = f"best mIoU {best[1]:.1f} % at step {number(best[0])}" if best else "no mIoU yet"
    return f"{number(last)} steps, {found}"


def _stage_ends(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """(number of a stage, step at which the one before it ended), from the second stage on."""
    stages = {row["step"]: row["stage"] for row in rows}
    ends = {stages[step]: step for step in sorted(stages)}
    return [(stage + 2, ends[stage]) for stage in sorted(ends) if stage + 1 in ends]


def _chart(
    axes: Axes, heading: str, name: str, points: Sequence[Point], stage_ends: Sequence[tuple[int, int]]
) -> list[str]:
    parts = [line((axes.left, axes.top - 13), (axes.left + 22, axes.top - 13), DEEP, width_px=1.5)]
    parts.append(text((axes.left + 29, axes.top - 9), heading))
    parts += axes.frame("step", name)
    if points:
        # One point makes no line.
        parts += [axes.curve(points, DEEP), *([axes.dot(points[0], DEEP)] if len(points) == 1 else [])]
    else:
        middle = (axes.left + axes.width / 2, axes.top + axes.height / 2)
        parts.append(text(middle, "nothing yet", anchor="middle", colour=GREY))
    for stage, step in stage_ends:
        x, _ = axes.at((step, 0))
        parts.append(line((x, axes.top), (x, axes.bottom), GREY, dashed=True))
        parts.append(text((x + 4, axes.top + 14), f"stage {stage}", colour=GREY, size_px=11))
    return parts


def _bars(validations: dict[int, Row], best: Point | None, labels: LabelSet | None) -> tuple[list[str], float]:
    """The right column, and where it ends."""
    if not validations:
        return [text((_BARS_LEFT, _TOP - 9), "IoU a class: no validation yet", colour=GREY)], _TOP
    step = max(validations)
    shares = validations[step]["iou"]
    labels = labels or generic_labels(len(shares))
    marks = validations[int(best[0])]["iou"] if best else [None] * len(shares)
    height = _BAR_PITCH * len(shares)
    axes = Axes(_BARS_LEFT, _TOP, _BARS_WIDTH, height, 100.0, 1.0)
    parts = [text((axes.left, axes.top - 26), f"IoU a class: validation at step {number(step)}")]
    if best:
        parts.append(line((axes.left + 5, axes.top - 19), (axes.left + 5, axes.top - 7), BLACK, width_px=2))
        parts.append(text((axes.left + 13, axes.top - 9), f"best validation, step {number(best[0])}"))
    for share in (0, 20, 40, 60, 80, 100):
        x, _ = axes.at((share, 0))
        parts += [line((x, axes.top), (x, axes.bottom + 5), GRID)]
        parts += [text((x, axes.bottom + 18), number(share), anchor="middle")]
    parts.append(text((axes.right, axes.bottom + 33), "IoU in %", anchor="end", colour=GREY))
    for at, (name, colour, share, mark) in enumerate(zip(labels.names, labels.palette, shares, marks, strict=True)):
        top = axes.top + at * _BAR_PITCH
        parts.append(text((axes.left - 8, top + 14), _short(name), anchor="end"))
        if share is None:
            parts.append(text((axes.left + 6, top + 14), "-", colour=GREY))
        else:
            length = axes.width * share
            parts.append(rectangle((axes.left, top + 3), (length, 14), fill=hexadecimal(colour), stroke=GREY))
            parts.append(text((axes.right + 44, top + 14), f"{100 * share:.1f}", anchor="end"))
        if mark is not None:
            x = axes.left + axes.width * mark
            parts.append(line((x, top + 1), (x, top + 19), BLACK, width_px=2))
    parts.append(line((axes.left, axes.top), (axes.left, axes.bottom), BLACK))
    return parts, axes.bottom


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "\u2026"
