"""How limits, predictions and the times of layers read for people: plain columns, and the lines that explain them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from .layer_times import LayerTimes, Row
from .pairs import Family, Held
from .peaks import Peaks
from .roofline import Limit

_WIDTH = 100
_NAME_WIDTH = 44


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows under their headings, the first `left` columns flush left, the others flush right."""
    table = [list(headings), *map(list, rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(headings))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def paragraph(text: str) -> str:
    """Folded to a width that people read; a second line is set in."""
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ")


def digits(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def peaks_text(peaks: Peaks, precisions: Sequence[str]) -> str:
    """What this machine reached, in one sentence a rate."""
    rates = [f"{digits(peaks.macs_per_s(name) / 1e9)} GMAC/s in {name}" for name in precisions]
    copied = f"{digits(peaks.bytes_per_s / 1e9)} GB/s copied (read and written)"
    return paragraph(
        f"Measured here on {peaks.device}, {peaks.threads} threads: {', '.join(rates)} in matrix products, {copied}; "
        "the best of all sizes and rounds."
    )


def limit_cells(found: Limit) -> list[str]:
    """Work, traffic, limit, and by what it is bound."""
    macs = sum(bound.layer.macs for bound in found.bounds) / 1e9
    moved = sum(bound.layer.bytes for bound in found.bounds) / 1e6
    return [f"{macs:.2f}", digits(moved), digits(found.ms), digits(found.fps), f"{found.by} {_most(found):.0%}"]


LIMIT_HEADINGS = ("GMACs", "MB moved", "limit ms", "limit FPS", "bound by")


def _most(found: Limit) -> float:
    return max(found.memory_share, 1 - found.memory_share)


def largest_text(found: Limit, count: int) -> str:
    """The layers that need most of a limit."""
    rows = [
        [
            _cut(bound.layer.name),
            bound.layer.operator,
            f"{bound.layer.macs / 1e6:,.1f}",
            f"{bound.layer.bytes / 1e6:,.2f}",
            digits(bound.limit_ms),
            f"{bound.limit_ms / found.ms:.1%}",
            bound.by,
        ]
        for bound in found.largest(count)
    ]
    return columns(("layer", "operator", "MMACs", "MB", "limit ms", "of limit", "bound by"), rows, left=2)


def rows_text(rows: Sequence[Row], steps_ms: float) -> str:
    """Steps of a runtime, each beside the limit of what it computes."""
    headings = ("step", "operator", "ms", "of run", "MMACs", "MB", "limit ms", "attained", "bound by")
    cells = [
        [
            _cut(row.step.name),
            row.step.operator,
            digits(row.step.ms),
            f"{row.step.ms / steps_ms:.1%}" if steps_ms else "-",
            f"{row.macs / 1e6:,.1f}" if row.layers else "-",
            f"{row.bytes / 1e6:,.2f}" if row.layers else "-",
            digits(row.limit_ms) if row.layers else "-",
            f"{row.attained:.0%}" if row.attained is not None else "-",
            row.bound_by or "-",
        ]
        for row in rows
    ]
    return columns(headings, cells, left=2)


def losses_text(times: LayerTimes, count: int) -> str:
    """The steps that lose most, with what they are matched to."""
    worst = times.furthest(count)
    lost = sum(row.lost_ms for row in worst)
    profiled = times.profiled
    title = (
        f"{times.network}: the {len(worst)} steps of {profiled.backend}:{profiled.mode} that lose most against "
        f"the limit, {digits(lost)} of {digits(profiled.whole_ms)} ms"
    )
    return f"{title}\n{rows_text(worst, profiled.steps_ms)}"


def pairs_text(held: Sequence[Held]) -> str:
    """Published FPS beside the limit, the share, and what the other networks of the family predict."""
    headings = ("network", "device", "family", "input", "published FPS", "limit FPS", "share", "predicted FPS", "error")
    rows = [
        [
            entry.pair.network,
            entry.pair.device,
            entry.pair.family,
            str(entry.pair.resolution),
            f"{entry.pair.fps:g}",
            digits(entry.limit_fps),
            f"{entry.share:.0%}",
            digits(entry.predicted_fps) if entry.predicted_fps else "-",
            f"{entry.error - 1:+.0%}" if entry.error else "-",
        ]
        for entry in sorted(held, key=lambda entry: (entry.pair.family, entry.pair.network, entry.pair.device))
    ]
    return columns(headings, rows, left=3)


def family_text(family: Family) -> str:
    """What a family attains, and what a prediction from it is worth."""
    return paragraph(
        f"{family.name}: {family.share:.0%} of the limit, over {family.pairs} published pairs of {family.networks} "
        f"networks on {', '.join(family.devices)}. Each predicted from the other networks: off by a factor of "
        f"{family.typical_error:.2f} typically, {family.worst_error:.2f} at worst."
    )


def _cut(name: str) -> str:
    """Long names lose their middle: both ends tell layers apart."""
    half = _NAME_WIDTH // 2 - 1
    return name if len(name) <= _NAME_WIDTH else f"{name[:half]}..{name[-half:]}"
