"""SSR against FasterSeg: at the paper's two resolutions, and at equal ones, where the paper's own figures turn.

The paper's headline sets SSR at 512x1024 beside FasterSeg at 1024x2048. A report that printed only that would flatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchkit.sizes import Size

from ..measurement import Measurement, Ratio, latency_ratio
from ..statistics import Interval
from .published import Figure, figures_of

HALF, FULL = Size(512, 1024), Size(1024, 2048)
_ONE, _OTHER = "ssr", "fasterseg"
#: What is compared: a name, SSR's resolution, FasterSeg's.
PAIRS = (
    ("the paper's headline", HALF, FULL),
    ("equal resolution", HALF, HALF),
    ("equal resolution", FULL, FULL),
)


@dataclass(frozen=True)
class Compared:
    """One pair on one runtime, or as printed by the paper.

    Attributes:
        what: in words.
        where: device and software.
        fps: of SSR and of FasterSeg.
        speed: SSR's FPS over FasterSeg's; above 1 SSR is the faster one.
        interval: 95 %, by bootstrap over the rounds; None where it was not measured in several.
    """

    what: str
    sizes: tuple[Size, Size]
    where: str
    fps: tuple[float, float]
    speed: float
    interval: Interval | None
    published: bool


def by_the_paper() -> list[Compared]:
    """What the SSR paper prints, of one device."""
    found = []
    for what, one, other in PAIRS:
        ours, theirs = _figure(_ONE, "paper", one), _figure(_OTHER, "SSR paper", other)
        if ours and theirs and ours.fps and theirs.fps and ours.device == theirs.device:
            where = f"{ours.device}, {theirs.software}"
            fps = (ours.fps, theirs.fps)
            found.append(Compared(what, (one, other), where, fps, fps[0] / fps[1], None, published=True))
    return found


def measured(measurements: Sequence[Measurement]) -> list[Compared]:
    """Every pair of one file that ran on the same runtime with the same protocol."""
    found = []
    for what, one_size, other_size in PAIRS:
        for one in measurements:
            if one.network.name != _ONE or one.resolution != one_size:
                continue
            for other in measurements:
                if other.network.name == _OTHER and other.resolution == other_size and _alike(one, other):
                    found.append(_compared(what, one, other))
    return found


def lacking(compared: Sequence[Compared]) -> list[str]:
    """The pairs of which there is no measurement, in words."""
    seen = {pair.sizes for pair in compared if not pair.published}
    return [f"{what} (SSR {one}, FasterSeg {other})" for what, one, other in PAIRS if (one, other) not in seen]


def _alike(one: Measurement, other: Measurement) -> bool:
    return _setting(one) == _setting(other)


def _setting(measurement: Measurement) -> tuple[object, ...]:
    session = measurement.session
    how = (measurement.io, measurement.protocol, measurement.timed)
    return measurement.runtime, measurement.precision, session.provider, session.device, *how


def _compared(what: str, one: Measurement, other: Measurement) -> Compared:
    ratio: Ratio = latency_ratio(other, one)
    fps = (one.statistics.fps, other.statistics.fps)
    precision = "" if one.runtime.endswith(f":{one.precision}") else one.precision
    where = " ".join(filter(None, (one.runtime, precision, one.session.device)))
    sizes = (one.resolution, other.resolution)
    return Compared(what, sizes, where, fps, ratio.median, ratio.interval, published=False)


def _figure(network: str, of: str, size: Size) -> Figure | None:
    found = [figure for figure in figures_of(network) if figure.of == of and figure.size == str(size)]
    return found[0] if found else None
