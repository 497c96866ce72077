"""The table of `bench fps`: which rows in which order, and how they read for people, in Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from .measurement import Measurement, Ratio, Statistics, latency_ratio

if TYPE_CHECKING:
    from rich.table import Table

REFERENCE = "fasterseg"
MARK = "!"

_PRECISION = "precision"
_TEXT_COLUMNS = ("network", _PRECISION, "backend", "")

_HEADINGS = (
    "network",
    "params M",
    "conv GMACs",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "FPS",
    "time / FasterSeg",
    _PRECISION,
    "backend",
    "",
)
_CSV_COLUMNS = (
    *("network", "digest", "resolution", "io", "params", "conv_macs"),
    *("runs", "p50_ms", "p90_ms", "p99_ms", "mean_ms", "min_ms", "std_ms", "fps"),
    *("latency_over_fasterseg", "quartile_low", "quartile_high"),
    *("backend", "mode", "precision", "version", "provider", "device", "warnings"),
)


@dataclass(frozen=True)
class Row:
    """One measurement, its statistics, and its latency over FasterSeg's on the same runtime, if measured."""

    measurement: Measurement
    statistics: Statistics
    ratio: Ratio | None

    def to_tree(self) -> dict[str, object]:
        """What was derived, as JSON values; nothing here is a raw sample."""
        ratio = self.ratio
        return {
            "network": self.measurement.network.name,
            "backend": self.measurement.session.backend,
            "mode": self.measurement.mode,
            "precision": self.measurement.precision,
            "device": self.measurement.session.device,
            **asdict(self.statistics),
            "latency_over_fasterseg": ratio.median if ratio else None,
            "latency_over_fasterseg_quartiles": [ratio.low, ratio.high] if ratio else None,
        }


def rows_of(measurements: Sequence[Measurement], *, by_latency: bool = True) -> list[Row]:
    """A row a measurement: runtimes in the order given, each sorted by median latency, or all in the order given."""
    rows = [Row(m, m.statistics, _ratio(m, measurements)) for m in measurements]
    if by_latency:
        runtimes = list(dict.fromkeys(_runtime(m) for m in measurements))
        rows.sort(key=lambda row: (runtimes.index(_runtime(row.measurement)), row.statistics.p50_ms))
    return rows


def rich_table(rows: Sequence[Row]) -> Table:
    """For a terminal; with the names that are shipped at most 100 columns wide if all is in one precision.

    A precision that all have in common stands in the line above the table.
    """
    from rich import box
    from rich.table import Table

    with_precision = len({row.measurement.precision for row in rows}) > 1
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in _headings(with_precision):
        # The unit goes below the name, which saves the width that the digits need.
        words = "\n".join(heading.rsplit(" ", 1))
        justify: Literal["left", "right"] = "left" if heading in _TEXT_COLUMNS else "right"
        table.add_column(words, justify=justify, no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*_cells(row, with_precision))
    return table


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; the mark stands behind the name. The precision is left out where no measurement states one."""
    with_precision = any(row.measurement.precision for row in rows)
    headings = _headings(with_precision)[:-1]
    lines = [headings, tuple("---" if h in _TEXT_COLUMNS else "---:" for h in headings)]
    for row in rows:
        name, *rest, mark = _cells(row, with_precision)
        lines.append((f"{name} {mark}".strip(), *rest))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def csv_text(rows: Sequence[Row]) -> str:
    """Comma-separated values with full precision; the column names carry units."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for row in rows:
        writer.writerow(_values(row))
    return target.getvalue()


def _values(row: Row) -> list[object]:
    """One value for each of `_CSV_COLUMNS`."""
    m, s, ratio = row.measurement, row.statistics, row.ratio
    return [
        *(m.network.name, m.network.digest, m.resolution, m.io, m.network.params, m.network.conv_macs),
        *(s.runs, s.p50_ms, s.p90_ms, s.p99_ms, s.mean_ms, s.min_ms, s.std_ms, s.fps),
        *((ratio.median, ratio.low, ratio.high) if ratio else (None, None, None)),
        *(m.session.backend, m.mode, m.precision, m.session.version, m.session.provider, m.session.device),
        "; ".join(m.warnings),
    ]


def _headings(with_precision: bool) -> tuple[str, ...]:
    return tuple(heading for heading in _HEADINGS if with_precision or heading != _PRECISION)


def _cells(row: Row, with_precision: bool) -> list[str]:
    """One cell for each of `_headings`."""
    m, s, ratio = row.measurement, row.statistics, row.ratio
    runtime = m.runtime if m.session.device == "cpu" else f"{m.runtime} {m.session.device}"
    return [
        m.network.name,
        f"{m.network.params / 1e6:.2f}",
        f"{m.network.conv_macs / 1e9:.2f}",
        *(_digits(value) for value in (s.p50_ms, s.p90_ms, s.p99_ms, s.fps)),
        f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "-",
        *([m.precision or "-"] if with_precision else []),
        runtime,
        MARK if m.warnings else "",
    ]


def _digits(value: float) -> str:
    """Three or four significant digits: more would be noise."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _runtime(measurement: Measurement) -> tuple[str | None, ...]:
    session = measurement.session
    return session.backend, measurement.mode, measurement.precision, session.provider, session.device


def _ratio(measurement: Measurement, among: Sequence[Measurement]) -> Ratio | None:
    for other in among:
        if other.network.name == REFERENCE and _runtime(other) == _runtime(measurement):
            return latency_ratio(measurement, other)
    return None
