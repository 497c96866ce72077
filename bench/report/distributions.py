"""The raw samples of each measurement: a row of dots, the box of the middle half, whiskers to p5 and p95."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..measurement import Measurement, percentile
from .chart import Axes, Scale, drawing, line, rectangle, shortened, text
from .markup import Markup, el

_ROW_PX = 44
_MOST_DOTS, _LEAST_A_ROW = 4000, 40


def distributions(labelled: Sequence[tuple[str, Measurement]], width: int) -> Markup:
    """One row a measurement, the fastest on top, all on one axis from 0; logarithmic where they differ 25-fold."""
    rows = sorted(labelled, key=lambda pair: percentile(pair[1].samples_ms, 50))
    longest = [percentile(measurement.samples_ms, 99) for _, measurement in rows]
    shortest = [min(measurement.samples_ms) for _, measurement in rows]
    axes = Axes(
        *(12, 8, width - 30, _ROW_PX * len(rows)),
        Scale.over([*shortest, *longest], from_zero=True, may_be_log=True),
        Scale(0, 1),
    )
    parts = axes.x_axis("ms; logarithmic" if axes.x.log else "ms")
    for number, (label, measurement) in enumerate(rows):
        parts += _row(axes, 8 + number * _ROW_PX, label, measurement, dots_of(len(rows)))
    parts.append(axes.frame())
    label = f"Latencies of {len(rows)} measurements, in ms; the table has their percentiles."
    return drawing(parts, width, axes.bottom + 42, label)


def dots_of(rows: int) -> int:
    """How many samples of each row are drawn at the most, so that a page of many networks stays small."""
    return max(_LEAST_A_ROW, min(300, _MOST_DOTS // max(1, rows)))


def _row(axes: Axes, top: float, label: str, measurement: Measurement, most: int) -> list[Markup]:
    samples = measurement.samples_ms

    def x(value: float) -> float:
        return axes.left + axes.width * min(1.0, axes.x.share(value))

    middle = top + 30
    dots = "".join(
        f"M{x(value):.1f} {middle + 7 * _jitter(at):.1f}h0" for at, value in enumerate(_thinned(samples, most))
    )
    quartiles = [x(percentile(samples, percent)) for percent in (5, 25, 50, 75, 95)]
    low, left, median, right, high = quartiles
    spread = f"{label}: p50 {percentile(samples, 50):.4g} ms, p90 {percentile(samples, 90):.4g} ms, {len(samples)} runs"
    return [
        line(axes.left, top, axes.right, top, "grid"),
        text(axes.left + 6, top + 16, shortened(label, axes.width - 12)),
        el("path", d=dots, class_="samples"),
        line(low, middle, left, middle, "whisker"),
        line(right, middle, high, middle, "whisker"),
        el("g", el("title", spread), rectangle(left, middle - 8, right - left, 16, "box")),
        line(median, middle - 8, median, middle + 8, "median"),
    ]


def _thinned(samples: Sequence[float], most: int) -> list[float]:
    """Evenly spread over time, the shortest and the longest always among them."""
    if len(samples) <= most:
        return list(samples)
    step = len(samples) / (most - 2)
    kept = [samples[math.floor(at * step)] for at in range(most - 2)]
    return [min(samples), *kept, max(samples)]


def _jitter(at: int) -> float:
    """-1 to 1, spread by the golden ratio: the same on every machine."""
    return 2 * (at * 0.6180339887498949 % 1) - 1
