"""The report in Markdown, for a README: the summary and the tables, without plots."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..measurement import Measurement
from ..pareto import Objective
from .content import Content
from .front_text import remarks_of, rows_of, value
from .fronts import PlacedFront, labels_of
from .headline import Compared, by_the_paper
from .markup import plain
from .published import figures_of
from .sources import Place
from .summary import summarise

# Besides HTML, whatever starts a link, an emphasis, code or another cell.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#&~])")


def markdown_report(content: Content) -> str:
    """Headings of the second and third level, so that it fits below a README's own."""
    parts = [f"## {text(content.title)}", "Measured figures and published ones stand apart."]
    for place in content.places:
        parts += _place(content, place)
    parts += ["### SSR against FasterSeg, published", _compared(by_the_paper())]
    if any(figures_of(name) for name in content.networks):
        parts.append("Figures of papers are in `bench/published.toml`, each with its source.")
    return "\n\n".join(parts) + "\n"


def text(words: str) -> str:
    """Words from a file, on one line, in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(plain(words).split()))


def _place(content: Content, place: Place) -> list[str]:
    found = summarise(content, place)
    measurements = place.results.measurements
    parts = [f"### {text(place.name)} ({text(place.title)})", _bullets(found.speed)]
    rows = [(f"{b.rate} a second", f"{b.ms:.4g}", b.fits, b.take) for b in found.budgets]
    parts += [_table(("pictures", "ms", "fit", "take"), rows, text_columns=4)] if rows else []
    if measurements:
        cells = [_cells(label, m) for label, m in zip(labels_of(measurements), measurements, strict=True)]
        parts.append(
            _table(("network", "input", "p50 ms", "p90 ms", "FPS", "params M", "GMACs", ""), cells, text_columns=2)
        )
    for front in content.fronts_of(place):
        parts += _front(front)
    compared = content.compared(place)
    parts += ["SSR against FasterSeg, measured:", _compared(compared)] if compared else []
    parts += ["Uncertain:", _bullets(found.doubts)] if found.doubts else []
    unknown = "\n".join(f"- {sentence}" for sentence in found.unknown)
    failures = [f"{cell.network} on {cell.backend}:{cell.mode}: {cell.problem}" for cell in place.results.failures]
    parts += ["Not measured:", "\n".join(filter(None, (unknown, _bullets(failures))))]
    return parts


def _cells(label: str, measurement: Measurement) -> tuple[str, ...]:
    statistics, facts = measurement.statistics, measurement.network
    numbers = (statistics.p50_ms, statistics.p90_ms, statistics.fps)
    sizes = (f"{facts.params / 1e6:.2f}", f"{facts.conv_macs / 1e9:.2f}")
    mark = "not steady" if measurement.warnings else ""
    return label, str(measurement.resolution), *(f"{number:.4g}" for number in numbers), *sizes, mark


def _front(front: PlacedFront) -> list[str]:
    rows = [(p.label, *(value(p, objective) for objective in Objective), became) for p, became in rows_of(front)]
    headings = ("network", *(objective.unit for objective in Objective), "place")
    return [f"Front over mIoU and latency: {text(front.title)}", _table(headings, rows), _bullets(remarks_of(front))]


def _compared(pairs: Sequence[Compared]) -> str:
    rows = [
        (pair.what, *map(str, pair.sizes), pair.where, *(f"{fps:.4g}" for fps in pair.fps), f"{pair.speed:.2f}")
        for pair in pairs
    ]
    return _table(("what", "SSR at", "FasterSeg at", "on", "FPS, SSR", "FPS, FasterSeg", "SSR / FasterSeg"), rows)


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {text(item)}" for item in items)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    rule = ["---" if column < text_columns else "---:" for column in range(len(headings))]
    lines = [list(headings), rule, *([text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
