"""Markdown of rows: an arm a line, each figure the mean over seeds with its 95 % t interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import Row
from ._coefficients import mean_interval

Value = Callable[[dict[str, Any]], "float | None"]

#: What the figures of a table are; to stand below it.
LEGEND = "Means over seeds ± half of the 95 % t interval."


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        value: of a row's values; None where the row has none.
        factor, digits: how it is shown.
        less: the arm whose value with the same seed is subtracted first.
    """

    heading: str
    value: Value
    factor: float = 1.0
    digits: int = 1
    less: str | None = None


def percent(heading: str, key: str, *, less: str | None = None) -> Column:
    """A share, shown in percent."""
    return Column(heading, lambda values: values.get(key), 100.0, 1, less)


def number(heading: str, key: str, *, factor: float = 1.0, digits: int = 1) -> Column:
    """A number."""
    return Column(heading, lambda values: values.get(key), factor, digits)


def table(rows: Sequence[Row], arms: Sequence[str], columns: Sequence[Column], *, first: str = "arm") -> str:
    """Arms that have rows, in order; a cell that not every seed has a value for says of how many it is."""
    lines = [_line([first, *(column.heading for column in columns)]), _line(["---"] * (len(columns) + 1))]
    for arm in arms:
        own = [row for row in rows if row.arm == arm]
        if own:
            lines.append(_line([arm, *(_cell(column, own, rows) for column in columns)]))
    failures = [f"{row.arm}, seed {row.seed}, failed: {row.failed}" for row in rows if row.failed]
    return "\n".join([*lines, "", LEGEND, *failures]) + "\n"


def shown(values: Sequence[float], factor: float = 1.0, digits: int = 1) -> str:
    """Mean ± half of the interval; the mean alone where all are equal or there is one; a dash for none."""
    if not values:
        return "-"
    mean, half = mean_interval([factor * value for value in values])
    return f"{mean:.{digits}f}" if half is None or half == 0 else f"{mean:.{digits}f} ± {half:.{digits}f}"


def _cell(column: Column, own: Sequence[Row], rows: Sequence[Row]) -> str:
    found = []
    for row in own:
        value = column.value(row.values)
        if value is not None and column.less is not None:
            other = next((r for r in rows if (r.arm, r.seed) == (column.less, row.seed)), None)
            base = column.value(other.values) if other else None
            value = None if base is None else value - base
        if value is not None:
            found.append(float(value))
    text = shown(found, column.factor, column.digits)
    return text if len(found) in (0, len(own)) else f"{text} ({len(found)} of {len(own)})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
