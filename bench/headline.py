"""The SSR paper's headline, measured here: SSR at half the resolution against FasterSeg at the whole, and as equals.

The paper prints 175 FPS for SSR at 512x1024 and 105 for FasterSeg at 1024x2048. It also prints 53 for SSR at 1024x2048,
so at equal resolution SSR is the slower one by the paper's own figures. Neither ratio is shown without the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from searchkit.networks import resolve
from searchkit.sizes import Size

from .fps import Outcome, Runtime, Setting, measure_groups, steps
from .measurement import Measurement, latency_ratio
from .report.headline import FULL, HALF, by_the_paper

ONE, OTHER = "ssr", "fasterseg"


@dataclass(frozen=True)
class Comparison:
    """SSR's speed over FasterSeg's, above 1 where SSR is the faster one.

    Attributes:
        what: in words.
        runtime, precision: that both ran on.
        fps: of SSR and of FasterSeg, from the median latencies.
        speed: median over the rounds, and `interval` its 95 % interval by bootstrap over them.
        paper_fps, paper_speed: what the SSR paper prints, with 1024x2048 as the whole resolution; None where it prints
            no such pair.
        paper_on: device, software and resolutions of the paper's figures.
    """

    what: str
    ssr_resolution: str
    fasterseg_resolution: str
    runtime: str
    precision: str | None
    fps: tuple[float, float]
    speed: float
    interval: tuple[float, float] | None
    paper_fps: tuple[float, float] | None
    paper_speed: float | None
    paper_on: str | None

    def to_tree(self) -> dict[str, object]:
        return asdict(self)


def sizes_of(whole: Size) -> tuple[Size, Size]:
    """Half of it, and itself; raises `UsageError` where one of the two networks does not take one of them."""
    half = Size(whole.height // 2, whole.width // 2)
    for name in (ONE, OTHER):
        network = resolve(name)
        for size in (half, whole):
            network.check(size)
    return half, whole


def measure(runtimes: Sequence[Runtime], whole: Size, setting: Setting, progress: Callable[[str], None]) -> Outcome:
    """Both networks at both resolutions, all four in the same interleaved rounds. `setting.size` plays no part."""
    networks = [resolve(ONE), resolve(OTHER)]
    groups = [(networks, replace(setting, size=size)) for size in sizes_of(whole)]
    return measure_groups(groups, runtimes, progress)


def total_steps(runtimes: Sequence[Runtime], setting: Setting) -> int:
    """How often `measure` reports progress."""
    return 2 * steps([resolve(ONE), resolve(OTHER)], runtimes, setting.protocol)


def compare(measurements: Sequence[Measurement], whole: Size) -> list[Comparison]:
    """The paper's pair first, then both networks at the whole and at half the resolution, runtime by runtime."""
    half, _ = sizes_of(whole)
    found = []
    for what, one_size, other_size, papers in (
        ("the paper's headline: SSR at half the resolution", half, whole, (HALF, FULL)),
        ("equal resolution", whole, whole, (FULL, FULL)),
        ("equal resolution", half, half, (HALF, HALF)),
    ):
        for one in _of(measurements, ONE, one_size):
            for other in _of(measurements, OTHER, other_size):
                if _ran_on(one) == _ran_on(other):
                    found.append(_compared(what, one, other, papers))
    return found


def _ran_on(measurement: Measurement) -> tuple[object, ...]:
    session = measurement.session
    return measurement.runtime, measurement.precision, session.provider, session.device


def _of(measurements: Sequence[Measurement], network: str, size: Size) -> list[Measurement]:
    return [m for m in measurements if m.network.name == network and m.resolution == size]


def _compared(what: str, one: Measurement, other: Measurement, papers: tuple[Size, Size]) -> Comparison:
    # Of latencies, FasterSeg's over SSR's: how many times as fast SSR is.
    ratio = latency_ratio(other, one)
    paper = next((printed for printed in by_the_paper() if printed.sizes == papers), None)
    return Comparison(
        what=what,
        ssr_resolution=str(one.resolution),
        fasterseg_resolution=str(other.resolution),
        runtime=one.runtime,
        precision=one.precision,
        fps=(one.statistics.fps, other.statistics.fps),
        speed=ratio.median,
        interval=(ratio.interval.low, ratio.interval.high) if ratio.interval else None,
        paper_fps=paper.fps if paper else None,
        paper_speed=paper.speed if paper else None,
        paper_on=f"{paper.where}, SSR {papers[0]} against FasterSeg {papers[1]}" if paper else None,
    )


def lines(comparisons: Sequence[Comparison]) -> list[str]:
    """A line or two a comparison, for people: measured, and beside it what the paper prints."""
    found = []
    for c in comparisons:
        limits = f" ({c.interval[0]:.2f} to {c.interval[1]:.2f})" if c.interval else ""
        found.append(
            f"{c.what}, SSR {c.ssr_resolution} against FasterSeg {c.fasterseg_resolution}, {c.runtime}: "
            f"{c.fps[0]:.3g} to {c.fps[1]:.3g} FPS, {_words(c.speed)}{limits}, measured here"
        )
        if c.paper_fps and c.paper_speed:
            found.append(
                f"  the paper: {c.paper_fps[0]:.3g} to {c.paper_fps[1]:.3g} FPS, {_words(c.paper_speed)}, "
                f"published, {c.paper_on}"
            )
        else:
            found.append("  the paper prints no such pair")
    return found


def _words(speed: float) -> str:
    return f"SSR {speed:.2f} times as fast" + ("" if speed >= 1 else ", so the slower one")
