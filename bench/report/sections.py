"""The parts of the page that have figures: fronts, headline, tables, distributions."""

from __future__ import annotations

from collections.abc import Sequence

from ..measurement import Measurement
from ..pareto import Objective
from .content import OBJECTIVES, Content
from .distributions import distributions, dots_of
from .figure import both
from .front_text import remarks_of, rows_of, value
from .fronts import PlacedFront, labels_of
from .headline import Compared, by_the_paper
from .markup import Child, Markup, bullets, el, joined, prose, table
from .published import Figure, figures_of, published
from .scatter import scatter
from .sources import Place
from .summary import Summary, summarise


def summary_section(content: Content) -> Markup:
    """In plain words, a file each."""
    parts: list[Markup] = []
    for place in content.places:
        parts += [*_headings(content, place), _summary(summarise(content, place))]
    if not content.places:
        parts.append(el("p", "No file of measurements was given, so nothing can be said of speed."))
    return joined(parts)


def fronts_section(content: Content) -> Markup:
    """A plot and a table for each front."""
    if not content.fronts:
        words = (
            "No network has a known mIoU at the resolution that it was measured at, so there is no front. Give files "
            "of `searchkit evaluate --json`, or `--miou NETWORK=PERCENT`."
        )
        return el("p", prose(words))
    intro = el(
        "p",
        "Up is more accurate, left is faster. A network is on the front if no other one is at least as good in both "
        "and better in one. Latency was measured; where the mIoU comes from stands in each table.",
    )
    return joined([intro, *(_front(front) for front in content.fronts)])


def headline_section(content: Content) -> Markup:
    """SSR against FasterSeg: the paper's pair of resolutions and equal ones, printed and measured."""
    intro = (
        "The paper's headline sets SSR at 512x1024 beside FasterSeg at 1024x2048, a picture of four times the size. "
        "At equal resolution the paper's own figures make SSR the slower one."
    )
    parts = [el("p", intro), _compared("Published by the SSR paper", by_the_paper())]
    for place in content.places:
        pairs = content.compared(place)
        if pairs:
            parts.append(_compared(f"Measured on {place.name} ({place.title}); in brackets the 95 % interval", pairs))
    if len(parts) == 2:
        parts.append(el("p", "No file holds both networks on one runtime, so nothing was measured to set beside it."))
    return joined(parts)


def table_section(content: Content) -> Markup:
    """What was measured, a file each, with what papers print beside it; then all that papers print."""
    parts: list[Markup] = []
    for place in content.places:
        parts += [*_headings(content, place), _measured(content, place)]
    names = [name for name in content.networks if figures_of(name)]
    if names:
        parts += [el("h3", "Published figures"), _published(names)]
        said = [(published()[name].title, published()[name].disagreement) for name in names]
        notes = [joined([el("b", title), ": ", words]) for title, words in said if words]
        parts += [el("p", "Where sources disagree:"), bullets(notes)] if notes else []
    return joined(parts) if parts else el("p", "Nothing was measured.")


def distribution_section(content: Content) -> Markup:
    """The raw samples, a plot for each file."""
    parts: list[Markup] = []
    for place in content.places:
        measurements = place.results.measurements
        if not measurements:
            continue
        labelled = list(zip(labels_of(measurements), measurements, strict=True))
        most = dots_of(len(labelled))
        caption = (
            f"Each dot is one call, at most {most} a row; the box holds the middle half, its line is the median, the "
            "whiskers reach from p5 to p95."
        )
        blocks = [label for label, measurement in labelled if measurement.block_runs]
        if blocks:
            caption += f" A dot is the mean of a block of calls for {', '.join(blocks)}."
        figure = both(lambda width, labelled=labelled: distributions(labelled, width), caption)  # type: ignore[misc]
        parts += [*_headings(content, place), figure]
    return joined(parts) if parts else el("p", "No samples.")


def _headings(content: Content, place: Place) -> list[Markup]:
    """A file's heading, where there are several."""
    return [el("h3", f"{place.name} ({place.title})")] if len(content.places) > 1 else []


def _summary(summary: Summary) -> Markup:
    rows: list[tuple[Child, ...]] = [
        (f"{budget.rate} a second", f"{budget.ms:.4g}", budget.fits, budget.take) for budget in summary.budgets
    ]
    headings = ("pictures", "ms", "fit", "take")
    chosen = (
        table("Which network for which budget: 90 % of calls take at most so many ms", headings, rows, text_columns=4)
        if rows
        else Markup("")
    )
    return joined(
        [
            el("div", bullets(summary.speed), class_="panel"),
            chosen,
            *([el("h4", "What is uncertain"), bullets(summary.doubts)] if summary.doubts else []),
            el("h4", "What was not measured"),
            bullets(map(prose, summary.unknown)),
        ]
    )


def _front(front: PlacedFront) -> Markup:
    title = f"mIoU against latency: {front.title}"

    def draw(width: int) -> Markup:
        return scatter(front.front, Objective.LATENCY, Objective.MIOU, width, title)

    rows: list[tuple[Child, ...]] = [
        (point.label, *(value(point, o) for o in Objective), became) for point, became in rows_of(front)
    ]
    headings = ("network", *(objective.unit for objective in Objective), "place")
    kinds = sorted({point.miou_kind or "" for point, _ in rows_of(front)})
    caption = f"mIoU: {', '.join(kinds)} ({front.scale}). Front over {' and '.join(o.unit for o in OBJECTIVES)}."
    remarks = bullets(remarks_of(front))
    return joined([el("h3", front.title), both(draw, title), table(caption, headings, rows), remarks])


def _compared(caption: str, pairs: Sequence[Compared]) -> Markup:
    rows = []
    for pair in pairs:
        interval = f" ({pair.interval.low:.2f}-{pair.interval.high:.2f})" if pair.interval else ""
        where = el("span", pair.where, class_="published") if pair.published else pair.where
        sizes = (str(size) for size in pair.sizes)
        fps = (f"{fps:.4g}" for fps in pair.fps)
        rows.append((pair.what, *sizes, where, *fps, f"{pair.speed:.2f}{interval}"))
    headings = ("what", "SSR at", "FasterSeg at", "on", "FPS, SSR", "FPS, FasterSeg", "SSR / FasterSeg")
    return table(caption, headings, rows, text_columns=4)


def _measured(content: Content, place: Place) -> Markup:
    measurements = place.results.measurements
    if not measurements:
        return el("p", "Nothing was measured in this file.")
    rows = [_row(label, m) for label, m in zip(labels_of(measurements), measurements, strict=True)]
    headings = (
        *("network", "input", "p50 ms", "95 % interval", "FPS", "published FPS", "published for, on"),
        *("p90 ms", "p99 ms", "runs", "params M", "GMACs", "peak MiB"),
    )
    caption = f"Measured on {place.name}; the two columns of another colour are published. “!”: carries a warning."
    return table(caption, headings, rows, also_text=(6,))


def _row(label: str, measurement: Measurement) -> tuple[Child, ...]:
    statistics, facts, interval = measurement.statistics, measurement.network, measurement.interval
    figure = _best_figure(measurement)
    memory = f"{measurement.memory.peak_bytes / 2**20:.0f}" if measurement.memory else "-"
    return (
        joined([label, el("span", " !", class_="warn", title="carries a warning")]) if measurement.warnings else label,
        str(measurement.resolution),
        f"{statistics.p50_ms:.4g}",
        f"{interval.low:.4g} to {interval.high:.4g}" if interval else "-",
        f"{statistics.fps:.4g}",
        el("span", f"{figure.fps:g}", class_="published") if figure else "-",
        el("span", _where(figure), class_="published") if figure else "-",
        *(f"{ms:.4g}" for ms in (statistics.p90_ms, statistics.p99_ms)),
        statistics.runs,
        f"{facts.params / 1e6:.2f}",
        f"{facts.conv_macs / 1e9:.2f}",
        memory,
    )


def _best_figure(measurement: Measurement) -> Figure | None:
    """The published speed that is nearest: at the same resolution, by the network's own authors."""
    figures = [figure for figure in figures_of(measurement.network.name) if figure.fps]
    same = str(measurement.resolution)
    return min(figures, key=lambda f: (f.size != same, not f.by_the_paper), default=None)


def _where(figure: Figure) -> str:
    return ", ".join(filter(None, (figure.size or "size not stated", figure.device, figure.software)))


def _published(names: list[str]) -> Markup:
    rows = []
    for name in names:
        for figure in figures_of(name):
            work = f"{figure.gflops:g} G{(figure.counts or '').upper()}" if figure.gflops else "-"
            cells = (figure.of, figure.size, figure.device, figure.software)
            numbers = (figure.fps, figure.miou_val, figure.miou_test, figure.params_m)
            shown = [f"{number:g}" if number is not None else "-" for number in numbers]
            rows.append((published()[name].title, *(cell or "-" for cell in cells), *shown, work))
    headings = ("network", "source", "input", "device", "software", "FPS", "mIoU val", "mIoU test", "params M", "work")
    caption = "Published by papers and others on Cityscapes; none of it was measured here"
    return el("div", table(caption, headings, rows, text_columns=5), class_="published-table")
