"""The Pareto plot: one mark a network, a line along the front."""

from __future__ import annotations

from ..pareto import Front, Objective, Point
from .chart import FONT_PX, Axes, Labels, Scale, drawing, mark, polyline, text, text_width
from .markup import Markup, el
from .style import PLOT_STYLE

SHAPES = {"measured": "circle", "published": "diamond", "given": "square", None: "circle"}
_MEANINGS = {"measured": "mIoU measured", "published": "mIoU published", "given": "mIoU as given"}


def scatter(front: Front, x: Objective, y: Objective, width: int, title: str) -> Markup:
    """A plot of all points that have both values, as an inline SVG element `width` px wide."""
    points = [point for point in _all(front) if not point.lacks((x, y))]
    height = max(260, min(430, round(width * 0.62)))
    top = 30 + 20 * _legend_rows(front, points, width)
    axes = Axes(
        *(46, top, width - 46 - 12, height - top - 42),
        Scale.over([p.values[x] for p in points], from_zero=x is not Objective.MIOU, may_be_log=True),
        Scale.over([p.values[y] for p in points], from_zero=y is not Objective.MIOU, may_be_log=True),
    )
    parts = [*axes.x_axis(x.unit), *axes.y_axis(y.unit), axes.frame(), *_legend(front, points, width)]
    if set(front.objectives) == {x, y}:
        parts += _steps(front, axes, x, y)
    places = {id(point): axes.at(point.values[x], point.values[y]) for point in points}
    labels = Labels((axes.left + 2, axes.top + 2, axes.right - 2, axes.bottom - 2), list(places.values()))
    best = {id(point) for point in front.best}
    # What is on the front gets its name first.
    for point in sorted(points, key=lambda p: id(p) not in best):
        words = labels.put(*places[id(point)], point.label, None if id(point) in best else "muted")
        if words:
            parts.append(words)
    for point in sorted(points, key=lambda p: id(p) in best):
        class_ = "mark best" if id(point) in best else "mark beaten"
        parts.append(mark(*places[id(point)], SHAPES[point.miou_kind], class_, title=_title(point, x, y)))
    return drawing(parts, width, height, f"{title}. The table below it has all values.")


def svg_file(front: Front, x: Objective, y: Objective, title: str) -> str:
    """The plot as a file of its own, light or dark as the viewer is."""
    plot = scatter(front, x, y, 760, title)
    head, _, rest = plot.partition(">")
    return f"{head}>{el('title', title)}{el('style', Markup(PLOT_STYLE))}{rest}\n"


def _all(front: Front) -> list[Point]:
    return [*front.best, *(beaten.point for beaten in front.beaten), *front.missing]


def _title(point: Point, x: Objective, y: Objective) -> str:
    return f"{point.label}: {y.unit} {point.values[y]:.4g}, {x.unit} {point.values[x]:.4g}"


def _steps(front: Front, axes: Axes, x: Objective, y: Objective) -> list[Markup]:
    """The limit of what is reached, as a stair: between two points of the front only the worse of both is certain."""
    ordered = sorted(front.best, key=lambda p: (p.values[x], p.values[y]))
    corners: list[tuple[float, float]] = []
    for point in ordered:
        place = axes.at(point.values[x], point.values[y])
        if corners:
            # With less is better on both axes the worse corner is the other one.
            up = y.more_is_better != x.more_is_better
            corners.append((place[0], corners[-1][1]) if up else (corners[-1][0], place[1]))
        corners.append(place)
    return [polyline(corners, "front")] if len(corners) > 1 else []


def _entries(front: Front, points: list[Point]) -> list[tuple[str, str, str]]:
    kinds = [kind for kind in _MEANINGS if any(point.miou_kind == kind for point in points)]
    entries = [(SHAPES[kind], "mark best", _MEANINGS[kind]) for kind in kinds]
    shape = entries[0][0] if entries else SHAPES[None]
    if front.best:
        entries.append((shape, "mark best", "filled: front"))
    if front.beaten:
        entries.append((shape, "mark beaten", "empty: beaten"))
    return entries


def _placed(front: Front, points: list[Point], width: int) -> list[tuple[float, int, tuple[str, str, str]]]:
    """Each entry of the legend with its x and its row."""
    placed, x, row = [], 8.0, 0
    for entry in _entries(front, points):
        wide = 22 + text_width(entry[2])
        if x > 8 and x + wide > width:
            x, row = 8.0, row + 1
        placed.append((x, row, entry))
        x += wide + 10
    return placed


def _legend_rows(front: Front, points: list[Point], width: int) -> int:
    return 1 + max((row for _, row, _ in _placed(front, points, width)), default=0)


def _legend(front: Front, points: list[Point], width: int) -> list[Markup]:
    parts = []
    for x, row, (shape, class_, words) in _placed(front, points, width):
        y = 12 + 20 * row
        parts += [mark(x + 5, y, shape, class_, radius=4.5), text(x + 15, y + FONT_PX / 3, words)]
    return parts
