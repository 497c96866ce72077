"""How a comparison reads: for people, and in Markdown for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from .change import CONFIDENCE, Interval
from .compare import FASTER, PASSES, REGRESSION, UNDECIDED, Comparison, Report

if TYPE_CHECKING:
    from rich.table import Table

_HEADINGS = ("cell", "old ms", "new ms", "new / old", f"{CONFIDENCE:.0%} interval", "threshold", "verdict")
_TEXT_COLUMNS = ("cell", "verdict")
_MAX_NAMED = 3


def rich_table(report: Report) -> Table:
    """For a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in _HEADINGS:
        justify: Literal["left", "right"] = "left" if heading in _TEXT_COLUMNS else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for item in report.comparisons:
        table.add_row(*_cells(item))
    return table


def summary(report: Report) -> str:
    """One sentence with how many cells there are of each verdict, or of each finding where nothing was asked for."""
    words = [item.verdict or item.finding for item in report.comparisons]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    missing = len(report.only_old) + len(report.only_new)
    return f"{len(words)} cell{'s' if len(words) > 1 else ''} compared: {counts}; {missing} on one side only"


def notes(report: Report) -> Iterator[str]:
    """What must be known beside the table, a line each; differences that were let through come first."""
    for text in report.loud:
        yield f"WARNING: {text}"
    for item in report.comparisons:
        if item.verdict == UNDECIDED:
            yield f"cannot say for {item.new.name}: {item.advice}"
    for text in _same_for_all(report):
        yield text
    for side, series in (("old", [c.old for c in report.comparisons]), ("new", [c.new for c in report.comparisons])):
        unsteady = [item.name for item in series if item.warnings]
        if unsteady:
            yield f"unsteady in the {side} file, by its own account: {_named(unsteady, report)}"
    yield from report.remarks
    for path, names in ((report.old.path, report.only_old), (report.new.path, report.only_new)):
        for name in names:
            yield f"only in {path}: {name}"


def markdown(report: Report) -> str:
    """Verdict first, then the table, then the notes."""
    lines = [f"**{headline(report)}** {summary(report)}.", ""]
    lines += [f"> **WARNING:** {_escaped(text)}" for text in report.loud]
    if report.loud:
        lines.append("")
    lines.append(_row(_HEADINGS))
    lines.append(_row(["---" if heading in _TEXT_COLUMNS else "---:" for heading in _HEADINGS]))
    lines += [_row(_cells(item)) for item in report.comparisons]
    others = [text for text in notes(report) if not text.startswith("WARNING:")]
    if others:
        lines += ["", *(f"- {_escaped(text)}" for text in others)]
    return "\n".join(lines) + "\n"


def headline(report: Report) -> str:
    """The worst verdict, in a word or two."""
    verdicts = {item.verdict for item in report.comparisons}
    if REGRESSION in verdicts:
        return "Regression."
    if UNDECIDED in verdicts:
        return "Cannot say."
    return "No regression." if PASSES in verdicts else "Compared, no threshold given."


def _cells(item: Comparison) -> list[str]:
    """One for each heading."""
    absolute = item.rule is not None and not item.rule.is_relative
    ratio = item.change.ratio
    verdict = item.verdict or item.finding
    if item.verdict == PASSES and item.finding == FASTER:
        verdict = f"{PASSES}, {FASTER}"
    return [
        item.new.name,
        _digits(item.change.old.median_ms),
        _digits(item.change.new.median_ms),
        f"{ratio.estimate:.3f}",
        _milliseconds(item.change.difference_ms) if absolute else _ratios(ratio),
        str(item.rule) if item.rule else "-",
        verdict,
    ]


def _ratios(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "unknown"
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _milliseconds(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "unknown"
    return " to ".join(f"{'-' if end < 0 else '+'}{_digits(abs(end))}" for end in (interval.low, interval.high)) + " ms"


def _same_for_all(report: Report) -> Iterator[str]:
    """What else is not the same: that of a field once, with the cells it holds for unless that is all of them."""
    found: dict[str, list[str]] = {}
    for item in report.comparisons:
        for name, (old, new) in item.versions.items():
            found.setdefault(f"{name}: {old} in the old file, {new} in the new", []).append(item.new.name)
    for text, names in found.items():
        yield f"{text} ({_named(names, report)})"


def _named(names: list[str], report: Report) -> str:
    """A few by name, many by number."""
    if len(names) == len(report.comparisons):
        return "every cell"
    return ", ".join(names) if len(names) <= _MAX_NAMED else f"{len(names)} of {len(report.comparisons)} cells"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
