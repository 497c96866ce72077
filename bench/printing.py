"""What `bench` shows to people: the tables, and the few lines that say how to read them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from . import machine
from .fps import Setting
from .profile import Counts, Profile, StageRow
from .remarks import remarks
from .table import MARK, Row, rich_table

# Wider than any table here: lines are never folded to a terminal's width, digits would be lost.
_MAX_WIDTH = 200
_TEXT_WIDTH = 100


def print_fps(console: Console, rows: Sequence[Row], setting: Setting) -> None:
    """The table of `bench fps`, what it was measured on, and what its words mean; nothing where there are no rows."""
    if not rows:
        return
    runtimes = ", ".join(dict.fromkeys(_runtime(row) for row in rows))
    sizes = ", ".join(dict.fromkeys(str(row.measurement.resolution) for row in rows))
    _say(console, f"{sizes} (height x width), batch {setting.batch}, io {setting.io}, {runtimes}")
    _say(console, f"Measured on this machine: {machine.line(setting.machine)}")
    console.print()
    _print_table(console, rich_table(rows))
    console.print()
    for warning, names in _by_warning(rows).items():
        _say(console, f"{MARK} {', '.join(names)}: {warning}")
    for remark in remarks(rows, setting.protocol):
        _say(console, remark)


def print_profile(console: Console, result: Profile) -> None:
    """The summary, the operators, the stages and the warnings of one network."""
    counts = result.counts
    _say(console, f"{result.network}, {result.classes} classes, {result.resolution} (height x width), batch 1")
    console.print()
    _print_table(console, _summary(result))
    console.print()
    _print_table(console, _stage_table(counts.stages))
    console.print()
    if counts.uncounted_operators:
        listed = ", ".join(f"{name} x{times}" for name, times in counts.uncounted_operators.items())
        _say(console, f"Not counted by fvcore: {listed}")
    for warning in counts.warnings:
        _say(console, f"{MARK} {warning}")
    _say(
        console,
        "MACs are multiply-accumulates; fvcore and the papers print them as FLOPs. fvcore counts BatchNorm 2 and "
        "bilinear resizing 4 an output element. All is counted, nothing timed; weights play no part.",
    )


def _by_warning(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Which networks carry each warning: a quick run gives many the same."""
    several = len({row.measurement.runtime for row in rows}) > 1
    sizes = len({row.measurement.resolution for row in rows}) > 1
    found: dict[str, list[str]] = {}
    for row in rows:
        m = row.measurement
        name = f"{m.network.name} {m.resolution}" if sizes else m.network.name
        name = f"{name} on {m.runtime}" if several else name
        for warning in m.warnings:
            found.setdefault(warning, []).append(name)
    return found


def _runtime(row: Row) -> str:
    session = row.measurement.session
    threads = session.options.get("threads")
    remarks = [session.provider, row.measurement.precision, f"threads: {threads}" if threads else None]
    said = ", ".join(remark for remark in remarks if remark)
    return f"{row.measurement.runtime} {session.version} on {session.device} ({said})"


def _summary(result: Profile) -> Table:
    counts = result.counts
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_row("params", f"{counts.params:,}")
    if result.params_with_training_heads is not None:
        table.add_row("params with training heads", f"{result.params_with_training_heads:,}")
    table.add_row("MACs of convolutions, as dispatched", f"{counts.conv_macs:,}")
    for name, macs in _operators(counts):
        table.add_row(f"MACs by fvcore, {name}", f"{macs:,}")
    table.add_row("MACs by fvcore, all", f"{counts.macs:,}")
    table.add_row("weights, fp32, MiB", f"{counts.weights_bytes / 2**20:.1f}")
    table.add_row("peak of activations, fp32 eager, MiB", f"{counts.activation_peak_bytes / 2**20:.1f}")
    return table


def _operators(counts: Counts) -> list[tuple[str, int]]:
    return sorted(counts.macs_by_operator.items(), key=lambda item: -item[1])


def _stage_table(stages: Sequence[StageRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("stage", "params", "MACs (fvcore)", "share", "output"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("stage", "output") else "right")
    total = sum(stage.macs for stage in stages if stage.depth == 1) or 1
    for stage in stages:
        output = " x ".join(map(str, stage.output_shape)) if stage.output_shape else "-"
        name = "  " * (stage.depth - 1) + stage.name
        table.add_row(name, f"{stage.params:,}", f"{stage.macs:,}", f"{stage.macs / total:.1%}", output)
    return table


def _say(console: Console, text: str) -> None:
    console.print(textwrap.fill(text, _TEXT_WIDTH, subsequent_indent="  "), markup=False, soft_wrap=True)


def _print_table(console: Console, table: Table) -> None:
    options = console.options.update(max_width=_MAX_WIDTH)
    table.width = console.measure(table, options=options).maximum
    console.print(table, soft_wrap=True)
