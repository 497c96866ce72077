"""The table of `bench fps`: which rows in which order, and how they read for people, in Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from . import mlperf
from .accuracy import KnownMiou, Miou, known_miou
from .measurement import Measurement, Ratio, Statistics, latency_ratio
from .protocol import SINGLE_STREAM
from .statistics import Interval

if TYPE_CHECKING:
    from rich.table import Table

REFERENCE = "fasterseg"
MARK = "!"

_PRECISION, _MEMORY, _MIOU = "precision", "memory MiB", "mIoU paper"
_P90, _P95, _P99 = "p90 ms", "p95 ms", "p99 ms"
_MAX_WIDTH = 111
_TEXT_COLUMNS = ("network", _PRECISION, "backend", "")

_HEADINGS = (
    "network",
    "params M",
    "conv GMACs",
    "p50 ms",
    _P90,
    _P95,
    _P99,
    "FPS",
    _MEMORY,
    _MIOU,
    "time / FasterSeg",
    _PRECISION,
    "backend",
    "",
)
_CSV_COLUMNS = (
    *("network", "digest", "resolution", "io", "params", "conv_macs"),
    *("runs", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "mean_ms", "min_ms", "std_ms", "fps"),
    *("p50_interval_low_ms", "p50_interval_high_ms"),
    *("latency_over_fasterseg", "quartile_low", "quartile_high", "ratio_interval_low", "ratio_interval_high"),
    *("memory_bytes", "memory_how"),
    *("miou_published", "miou_published_split", "miou_published_size", "miou_published_by"),
    *("miou_shipped_weights", "miou_shipped_weights_on"),
    *("backend", "mode", "precision", "version", "provider", "device"),
    *("protocol", "rounds", "batch", "clock", "transfers", "preprocessing", "postprocessing", "cuda_graph", "streams"),
    *("single_stream_p90_ms", "warm_up_ms", "steady", "warnings"),
)


@dataclass(frozen=True)
class Row:
    """One measurement and what is derived from it.

    Attributes:
        ratio: its latency over FasterSeg's in the same setting, if that was measured too.
        interval: of the median latency; None where there is one round only.
        miou: what others print, or was measured with shipped weights; never a figure of this run.
    """

    measurement: Measurement
    statistics: Statistics
    ratio: Ratio | None
    interval: Interval | None
    miou: KnownMiou

    @property
    def single_stream_ms(self) -> float | None:
        """The result of a single-stream run; None for other protocols, and for too few queries."""
        m = self.measurement
        return mlperf.estimate_ms(m.samples_ms) if m.protocol.name == SINGLE_STREAM else None

    def to_tree(self) -> dict[str, object]:
        """What was derived, as JSON values; nothing here is a raw sample."""
        ratio, memory = self.ratio, self.measurement.memory
        return {
            "network": self.measurement.network.name,
            "resolution": str(self.measurement.resolution),
            "backend": self.measurement.session.backend,
            "mode": self.measurement.mode,
            "precision": self.measurement.precision,
            "device": self.measurement.session.device,
            "batch": self.measurement.timed.batch,
            **asdict(self.statistics),
            "p50_interval_ms": _pair(self.interval),
            "latency_over_fasterseg": ratio.median if ratio else None,
            "latency_over_fasterseg_quartiles": [ratio.low, ratio.high] if ratio else None,
            "latency_over_fasterseg_interval": _pair(ratio.interval) if ratio else None,
            "single_stream_p90_ms": self.single_stream_ms,
            "memory": asdict(memory) if memory else None,
            "miou_published": asdict(self.miou.published) if self.miou.published else None,
            "miou_of_shipped_weights": asdict(self.miou.shipped) if self.miou.shipped else None,
        }


def _pair(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


def rows_of(measurements: Sequence[Measurement], *, by_latency: bool = True) -> list[Row]:
    """A row a measurement: runtimes in the order given, each sorted by median latency, or all in the order given."""
    rows = [
        Row(m, m.statistics, _ratio(m, measurements), m.interval, known_miou(m.network.name, m.resolution))
        for m in measurements
    ]
    if by_latency:
        runtimes = list(dict.fromkeys(_runtime(m) for m in measurements))
        rows.sort(key=lambda row: (runtimes.index(_runtime(row.measurement)), row.statistics.p50_ms))
    return rows


def rich_table(rows: Sequence[Row]) -> Table:
    """For a terminal, about 110 columns wide at most with the names that are shipped.

    A precision that all have in common stands in the line above the table. Percentiles give way where room is short;
    all of them are in the other forms.
    """
    from rich import box
    from rich.table import Table

    with_precision = len({row.measurement.precision for row in rows}) > 1
    lines = [_cells(row, rows) for row in rows]
    headings = [heading for heading in _headings(rows, with_precision) if heading != _P95]
    for percentile in (_P90, _P99):
        if sum(_width(heading, lines) for heading in headings) > _MAX_WIDTH:
            headings.remove(percentile)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        # The unit goes below the name, which saves the width that the digits need.
        words = "\n".join(heading.rsplit(" ", 1))
        justify: Literal["left", "right"] = "left" if heading in _TEXT_COLUMNS else "right"
        table.add_column(words, justify=justify, no_wrap=True, vertical="bottom")
    for cells in lines:
        table.add_row(*(cells[heading] for heading in headings))
    return table


def _width(heading: str, lines: Sequence[dict[str, str]]) -> int:
    """Columns of a terminal, the gap behind and the rule's space included."""
    return 2 + max(map(len, (*heading.rsplit(" ", 1), *(cells[heading] for cells in lines))))


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; the mark stands behind the name. The precision is left out where no measurement states one.

    A run from before memory was measured keeps the columns that it was published with, quartiles behind the ratio.
    """
    with_precision = any(row.measurement.precision for row in rows)
    headings = _headings(rows, with_precision)[:-1]
    lines = [headings, tuple("---" if h in _TEXT_COLUMNS else "---:" for h in headings)]
    for row in rows:
        cells = _cells(row, rows)
        name = f"{cells['network']} {cells['']}".strip()
        lines.append((name, *(cells[heading] for heading in headings[1:])))
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
    m, s, ratio, timed = row.measurement, row.statistics, row.ratio, row.measurement.timed
    published, shipped = row.miou.published, row.miou.shipped
    return [
        *(m.network.name, m.network.digest, m.resolution, m.io, m.network.params, m.network.conv_macs),
        *(s.runs, s.p50_ms, s.p90_ms, s.p95_ms, s.p99_ms, s.mean_ms, s.min_ms, s.std_ms, s.fps),
        *(_pair(row.interval) or (None, None)),
        *((ratio.median, ratio.low, ratio.high) if ratio else (None, None, None)),
        *((_pair(ratio.interval) if ratio else None) or (None, None)),
        *((m.memory.peak_bytes, m.memory.how) if m.memory else (None, None)),
        *((published.percent, published.split, published.size, published.source) if published else (None,) * 4),
        *((shipped.percent, f"{shipped.source} {shipped.split} at {shipped.size}") if shipped else (None, None)),
        *(m.session.backend, m.mode, m.precision, m.session.version, m.session.provider, m.session.device),
        *(m.protocol.name, len(m.rounds_ms), timed.batch, timed.clock, timed.transfers),
        *(timed.preprocessing, timed.postprocessing, timed.cuda_graph, timed.streams),
        row.single_stream_ms,
        *((m.warm_up.ms, m.warm_up.steady) if m.warm_up else (None, None)),
        "; ".join(m.warnings),
    ]


def _with_cost(rows: Sequence[Row]) -> bool:
    """Whether the run is from when memory, and what goes with it, was part of the table."""
    return any(row.measurement.warm_up is not None for row in rows)


def _headings(rows: Sequence[Row], with_precision: bool) -> tuple[str, ...]:
    left_out = set() if with_precision else {_PRECISION}
    if not _with_cost(rows):
        left_out |= {_P95, _MEMORY, _MIOU}
    return tuple(heading for heading in _HEADINGS if heading not in left_out)


def _cells(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """What stands below each of `_HEADINGS`."""
    m, s = row.measurement, row.statistics
    several = len({other.measurement.resolution for other in rows}) > 1
    return {
        "network": f"{m.network.name} {m.resolution}" if several else m.network.name,
        "params M": f"{m.network.params / 1e6:.2f}",
        "conv GMACs": f"{m.network.conv_macs / 1e9:.2f}",
        "p50 ms": _digits(s.p50_ms),
        _P90: _digits(s.p90_ms),
        _P95: _digits(s.p95_ms),
        _P99: _digits(s.p99_ms),
        "FPS": _digits(s.fps),
        _MEMORY: f"{m.memory.peak_bytes / 2**20:.0f}" if m.memory else "-",
        _MIOU: _miou(row.miou.published),
        "time / FasterSeg": _ratio_text(row.ratio, _with_cost(rows)),
        _PRECISION: m.precision or "-",
        "backend": m.runtime if m.session.device == "cpu" else f"{m.runtime} {m.session.device}",
        "": MARK if m.warnings else "",
    }


def _miou(published: Miou | None) -> str:
    """In brackets where the paper's is of another resolution than what was timed."""
    if published is None:
        return "-"
    return f"{published.percent:.1f}" if published.fits else f"({published.percent:.1f})"


def _ratio_text(ratio: Ratio | None, with_interval: bool) -> str:
    if ratio is None:
        return "-"
    if not with_interval:
        return f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    limits = f" ({ratio.interval.low:.2f}-{ratio.interval.high:.2f})" if ratio.interval else ""
    return f"{ratio.median:.2f}{limits}"


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
        if other.network.name == REFERENCE and _setting(other) == _setting(measurement):
            return latency_ratio(measurement, other)
    return None


def _setting(measurement: Measurement) -> tuple[object, ...]:
    """What must be the same for a ratio to say anything of the networks."""
    m = measurement
    return *_runtime(m), m.resolution, m.io, m.timed, m.protocol.rounds
