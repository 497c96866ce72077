"""The roofline of `bench roofline --json`: what a device allows, and what the networks attain of it."""

from __future__ import annotations

import itertools

from .chart import Axes, Labels, Scale, drawing, mark, polyline
from .content import Content
from .figure import both
from .markup import Child, Markup, el, joined, prose, table
from .roofline_file import Limited, Roofline

_HEADINGS = ("network", "device", "rates", "bound by", "limit ms", "limit FPS", "p50 ms", "attained", "predicted FPS")


def section(content: Content) -> Markup:
    """A plot and a table for each roofline file, or a sentence where there is none."""
    rooflines = [roofline for roofline in content.sources.rooflines if roofline.results]
    if not rooflines:
        return el("p", prose("Left out: no file of `bench roofline --json` with networks was given."))
    intro = (
        "No layer is faster than its multiply-accumulates at the peak rate, or its bytes at the memory's bandwidth; "
        "the limit of a network is the sum over its layers. Rates of devices that are not here are of data sheets, and "
        "what would be reached on them is predicted, not measured."
    )
    return joined([el("p", intro), *(_roofline(roofline) for roofline in rooflines)])


def _roofline(roofline: Roofline) -> Markup:
    title = " ".join(filter(None, ("Limits at", roofline.resolution, roofline.backend and f"on {roofline.backend}")))
    parts: list[Markup] = [el("h3", f"{title} ({roofline.file})")]
    measured = [result for result in roofline.results if result.measured_ms]
    # Networks measured here have one roof for each precision.
    for _, group in itertools.groupby(measured, key=lambda result: (result.gmacs_per_s, result.gbytes_per_s)):
        results = list(group)
        caption = (
            f"Slope: memory, {results[0].gbytes_per_s:.3g} GB/s; flat: arithmetic, {results[0].gmacs_per_s:.3g} "
            f"GMAC/s in {results[0].precision}. Nearer to the roof is better; whole networks, so the slope is a guide."
        )
        parts.append(both(lambda width, results=results: plot(results, width), caption))  # type: ignore[misc]
    rows = [_row(result) for result in roofline.results]
    parts.append(table("Measured beside the limit; predictions are marked as such", _HEADINGS, rows, text_columns=4))
    return joined(parts)


def plot(results: list[Limited], width: int) -> Markup:
    """Rate attained against MACs a byte, both logarithmic, under the roof."""
    roof = results[0]
    ridge = roof.gmacs_per_s / roof.gbytes_per_s
    points = [(result.intensity, result.macs / 1e6 / result.measured_ms) for result in results if result.measured_ms]
    xs = [ridge, *(x for x, _ in points)]
    x = Scale(min(xs) / 3, max(xs) * 3, log=True)
    ys = [roof.gmacs_per_s, *(y for _, y in points)]
    y = Scale(min(ys) / 2.5, max(ys) * 1.6, log=True)
    height = max(240, round(width * 0.5))
    axes = Axes(52, 26, width - 52 - 14, height - 26 - 42, x, y)
    low = max(x.low, y.low / roof.gbytes_per_s)
    corners = [(low, low * roof.gbytes_per_s), (ridge, roof.gmacs_per_s), (x.high, roof.gmacs_per_s)]
    parts = [*axes.x_axis("MACs a byte"), *axes.y_axis("GMAC/s"), axes.frame()]
    parts.append(polyline([axes.at(*corner) for corner in corners], "roof"))
    places = [axes.at(*point) for point in points]
    labels = Labels((axes.left + 2, axes.top + 2, axes.right - 2, axes.bottom - 2), places)
    for place, result in zip(places, results, strict=True):
        words = labels.put(*place, result.network)
        parts += [words] if words else []
    for place, result in zip(places, results, strict=True):
        title = f"{result.network}: {result.attained:.0%} of the limit"
        parts.append(mark(*place, "circle", "mark best", title=title))
    return drawing(parts, width, height, "Roofline of what was measured; the table has all values.")


def _row(result: Limited) -> tuple[Child, ...]:
    predicted = "; ".join(f"{family} {low:.3g} to {high:.3g}" for family, low, high in result.predicted)
    return (
        result.network,
        result.device,
        f"{result.precision}, {result.rates}",
        result.bound_by,
        f"{result.limit_ms:.4g}",
        f"{1000 / result.limit_ms:.4g}",
        f"{result.measured_ms:.4g}" if result.measured_ms else "-",
        f"{result.attained:.0%}" if result.attained else "-",
        el("span", predicted, class_="published") if predicted else "-",
    )
