"""`search.svg`: a search at a glance, drawn from its histories alone, as SVG that any browser shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..svg import GREY, Axes, Colour, Point, document, line, number, text
from .drawing import DEEP
from .history import Row

_LEFT, _CHART_WIDTH, _CHART_HEIGHT, _TOP, _PITCH = 76, 500, 150, 78, 232
_RIGHT, _WIDTH = 700, 1300
# Of each table so many choices are drawn, evenly spread, and this many in all.
_A_TABLE, _MOST_CHOICES = 2, 6
# Told apart by people who see few colours as well (Okabe and Ito), darkened on white; then over again.
_COLOURS: tuple[Colour, ...] = (
    (0, 90, 160),
    (200, 80, 0),
    (0, 130, 95),
    (190, 90, 150),
    (60, 60, 60),
    (70, 150, 210),
    (150, 120, 0),
    (120, 60, 30),
)


def draw_search(rows: Sequence[Row], choices: Sequence[Row]) -> str:
    """Entropy, live candidates, expected MACs and loss over the steps, and how the probabilities of a few choices went.

    Args:
        rows: of `history.jsonl`; any number, none included. Of two rows of one kind and step the later one counts.
        choices: of `choices.jsonl`.
    """
    last = max((row["step"] for row in [*rows, *choices]), default=0)
    losses = [row for row in rows if "loss" in row]
    charts = (
        ("total entropy of all choices", _series(rows, "entropy"), "nats"),
        (
            "live candidates",
            [(row["step"], sum(row["alive"].values())) for row in rows if "alive" in row],
            "candidates",
        ),
        ("expected MACs of the network", [(x, y / 1e9) for x, y in _series(rows, "expected_macs")], "GMACs"),
        ("loss of the weights; grey: of the architecture", _series(losses, "loss"), "loss"),
    )
    parts = [text((_LEFT, 34), _heading(last, rows), size_px=17)]
    for at, (heading, points, unit) in enumerate(charts):
        more = _series(losses, "architecture_loss") if unit == "loss" else []
        parts += _chart(_axes(_LEFT, at, last, [*points, *more]), heading, unit, [(points, DEEP), (more, GREY)])
    drawn = _trajectories(choices, last)
    bottom = _TOP + max(len(charts), (len(_shown(choices)) + 1) // 2 * 2) * _PITCH
    return document([*parts, *drawn], _WIDTH, bottom, _heading(last, rows))


def _series(rows: Sequence[Row], key: str) -> list[Point]:
    return sorted({row["step"]: row[key] for row in rows if key in row}.items())


def _heading(last: int, rows: Sequence[Row]) -> str:
    seen: Row | None = next((row for row in reversed(rows) if "undecided" in row), None)
    if seen is None:
        return f"{number(last)} steps"
    return f"{number(last)} steps, {number(seen['undecided'])} choices undecided, entropy {seen['entropy']:.3g} nats"


def _axes(left: float, at: int, last: int, points: Sequence[Point], *, end: float | None = None) -> Axes:
    highest = max((y for _, y in points), default=0.0)
    return Axes(left, _TOP + at * _PITCH, _CHART_WIDTH, _CHART_HEIGHT, max(last, 1), end or 1.05 * highest or 1.0)


def _chart(axes: Axes, heading: str, unit: str, curves: Sequence[tuple[Sequence[Point], Colour]]) -> list[str]:
    parts = [text((axes.left, axes.top - 9), heading), *axes.frame("step", unit)]
    if not any(points for points, _ in curves):
        middle = (axes.left + axes.width / 2, axes.top + axes.height / 2)
        return [*parts, text(middle, "nothing yet", anchor="middle", colour=GREY)]
    for points, colour in curves:
        if points:
            # One point makes no line.
            parts += [axes.curve(points, colour), *([axes.dot(points[0], colour)] if len(points) == 1 else [])]
    return parts


def _shown(choices: Sequence[Row]) -> list[tuple[str, str]]:
    """(table, choice) of those that are drawn: the most undecided kinds at the start, evenly spread over each."""
    if not choices:
        return []
    found = []
    for table, rows in choices[0]["probabilities"].items():
        names = [name for name, candidates in rows.items() if len(candidates) > 1]
        found += [
            (table, names[at * (len(names) - 1) // max(_A_TABLE - 1, 1)]) for at in range(min(_A_TABLE, len(names)))
        ]
    return list(dict.fromkeys(found))[:_MOST_CHOICES]


def _trajectories(choices: Sequence[Row], last: int) -> list[str]:
    parts = []
    for at, (table, name) in enumerate(_shown(choices)):
        candidates = list(choices[0]["probabilities"][table][name])
        axes = _axes(_RIGHT, at, last, [], end=1.0)
        curves = [
            (_path(choices, table, name, candidate), _COLOURS[index % len(_COLOURS)])
            for index, candidate in enumerate(candidates)
        ]
        parts += _chart(axes, f"probabilities: {table} {name}", "probability", curves)
        for index, candidate in enumerate(candidates[: 2 * len(_COLOURS)]):
            y = axes.top + 10 + 15 * index
            parts.append(
                line((axes.right + 8, y - 4), (axes.right + 22, y - 4), _COLOURS[index % len(_COLOURS)], width_px=2)
            )
            parts.append(text((axes.right + 27, y), candidate, size_px=11))
    return parts


def _path(choices: Sequence[Row], table: str, name: str, candidate: str) -> list[Point]:
    """The probability of a candidate as long as it lives, and 0 where it is removed."""
    points: list[Point] = []
    for row in choices:
        alive: Mapping[str, Any] = row["probabilities"][table].get(name, {})
        if candidate not in alive:
            return [*points, (row["step"], 0.0)]
        points.append((row["step"], alive[candidate]))
    return points
