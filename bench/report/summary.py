"""The report in plain words: which network to take for which budget, what that is worth, what nobody measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..measurement import Measurement
from ..pareto import Objective
from .content import Content
from .fronts import PlacedFront, labels_of
from .headline import Compared
from .sources import Place

_RATES = (1, 2, 5, 10, 15, 30, 60, 120, 250, 500, 1000)
_CAMERA = 30
_MOST_BUDGETS = 4


@dataclass(frozen=True)
class Budget:
    """One row: a rate to keep up with, and what does.

    Attributes:
        rate: pictures a second.
        ms: the longest that nine of ten calls may take.
        take: by kind of mIoU, or the fastest where no mIoU is known.
        fits: how many measurements keep up, of how many.
    """

    rate: int
    ms: float
    take: str
    fits: str


@dataclass(frozen=True)
class Summary:
    """Sentences and rows for one file."""

    speed: tuple[str, ...]
    budgets: tuple[Budget, ...]
    doubts: tuple[str, ...]
    unknown: tuple[str, ...]


def summarise(content: Content, place: Place) -> Summary:
    """What the figures of one file mean for somebody who has to choose."""
    measurements = place.results.measurements
    pairs = list(zip(labels_of(measurements), measurements, strict=True))
    found = content.fronts_of(place)
    compared = content.compared(place)
    return Summary(
        speed=tuple(_speed(pairs, compared)),
        budgets=tuple(_budget(rate, pairs, found) for rate in budgets_for(measurements)),
        doubts=tuple(_doubts(place, pairs, found)),
        unknown=tuple(_unknown(content, place, found, compared)),
    )


def budgets_for(measurements: Sequence[Measurement]) -> list[int]:
    """Up to four round rates that some but not all reach, and that of a camera, 30 a second."""
    rates = [_rate(measurement) for measurement in measurements]
    if not rates:
        return []
    telling = [rate for rate in _RATES if min(rates) < rate <= max(rates) and rate != _CAMERA]
    step = max(1, -(-len(telling) // (_MOST_BUDGETS - 1)))
    return sorted({*telling[::-1][::step], _CAMERA})


def faster(compared: Compared) -> str:
    """Which of SSR and FasterSeg is the faster one, in words."""
    speed = compared.speed
    if compared.interval and compared.interval.low <= 1 <= compared.interval.high:
        return "neither is faster beyond what the rounds differ"
    return f"SSR is {speed:.2f} times as fast" if speed >= 1 else f"FasterSeg is {1 / speed:.2f} times as fast"


def _rate(measurement: Measurement) -> float:
    """Pictures a second that nine of ten calls keep up with."""
    return 1000 * measurement.timed.batch / measurement.statistics.p90_ms


def _speed(pairs: Sequence[tuple[str, Measurement]], compared: Sequence[Compared]) -> list[str]:
    if not pairs:
        return ["Nothing was measured."]
    best_label, best = max(pairs, key=lambda pair: pair[1].statistics.fps)
    networks = len({measurement.network.name for _, measurement in pairs})
    sizes = ", ".join(dict.fromkeys(str(measurement.resolution) for _, measurement in pairs))
    counted = (
        f"{networks} network{'s' * (networks != 1)} in {len(pairs)} measurement{'s' * (len(pairs) != 1)} at {sizes}."
    )
    sentences = [
        counted,
        f"The fastest is {best_label}: {best.statistics.p50_ms:.4g} ms, {best.statistics.fps:.4g} pictures a second.",
    ]
    for both in dict.fromkeys(pair.sizes for pair in compared):
        sentences.append(_compared([pair for pair in compared if pair.sizes == both]))
    return sentences


def _compared(pairs: Sequence[Compared]) -> str:
    """One pair of resolutions on all runtimes, in a sentence."""
    one, other = pairs[0].sizes
    sizes = f"SSR at {one} against FasterSeg at {other}" if one != other else f"Both at {one}"
    if len(pairs) == 1:
        return f"{sizes} ({pairs[0].where}): {faster(pairs[0])}."
    speeds = [pair.speed for pair in pairs]
    if min(speeds) > 1 or max(speeds) < 1:
        who = "SSR" if min(speeds) > 1 else "FasterSeg"
        times = sorted(speed if min(speeds) > 1 else 1 / speed for speed in speeds)
        return f"{sizes}: {who} is {times[0]:.2f} to {times[-1]:.2f} times as fast, on {len(pairs)} runtimes."
    return f"{sizes}: SSR is {min(speeds):.2f} to {max(speeds):.2f} times as fast as FasterSeg, by the runtime."


def _budget(rate: int, pairs: Sequence[tuple[str, Measurement]], found: Sequence[PlacedFront]) -> Budget:
    fitting = {label: measurement for label, measurement in pairs if _rate(measurement) >= rate}
    takes = []
    for front in found:
        points = [*front.front.best, *(beaten.point for beaten in front.front.beaten)]
        known = [point for point in points if point.label in fitting]
        if known:
            best = max(known, key=lambda p: (p.values[Objective.MIOU], -p.values[Objective.LATENCY]))
            rest = len(fitting) - len(known)
            unrated = f"; {rest} that fit have no such mIoU" if rest else ""
            percent = best.values[Objective.MIOU]
            takes.append(f"{best.label}: mIoU {percent:.1f} % ({best.miou_kind}, {front.scale}){unrated}")
    if fitting and not takes:
        fastest = max(fitting, key=lambda label: fitting[label].statistics.fps)
        takes = [f"no mIoU is known of what fits; the fastest is {fastest}"]
    ms = 1000 / rate * (pairs[0][1].timed.batch if pairs else 1)
    return Budget(rate, ms, " | ".join(takes) or "nothing measured here", f"{len(fitting)} of {len(pairs)}")


def _doubts(place: Place, pairs: Sequence[tuple[str, Measurement]], found: Sequence[PlacedFront]) -> list[str]:
    doubts = []
    if not place.results.complete:
        doubts.append("The run was interrupted: only the rounds that were finished are here.")
    warned = [label for label, measurement in pairs if measurement.warnings]
    if warned:
        doubts.append(
            f"{len(warned)} of {len(pairs)} measurements carry a warning that they were not steady; "
            "differences of their size mean nothing. They are marked."
        )
    unsure = [beaten.point.label for front in found for beaten in front.front.beaten if not beaten.certain]
    if unsure:
        named = ", ".join(dict.fromkeys(unsure))
        doubts.append(f"Behind another one by less than the rounds of one network differ: {named}.")
    if any(front.scale and front.scale.startswith("Cityscapes") and _has(front, "published") for front in found):
        doubts.append(
            "Published mIoU is of the authors' weights and training; the networks timed here need not reach it."
        )
    if pairs and not doubts:
        doubts.append("No measurement carries a warning. Another machine, driver or picture size gives other figures.")
    return doubts


def _has(front: PlacedFront, kind: str) -> bool:
    points = [*front.front.best, *(beaten.point for beaten in front.front.beaten)]
    return any(point.miou_kind == kind for point in points)


def _unknown(content: Content, place: Place, found: Sequence[PlacedFront], compared: Sequence[Compared]) -> list[str]:
    from .headline import lacking

    unknown = []
    failures = place.results.failures
    if failures:
        unknown.append(f"{len(failures)} could not be measured; why is said below.")
    if not any(_has(front, "measured") for front in found):
        unknown.append("No mIoU was measured for these resolutions: give `searchkit evaluate --json` files.")
    if {"ssr", "fasterseg"} & set(content.networks) and lacking(compared):
        unknown.append(f"SSR against FasterSeg was not measured at: {'; '.join(lacking(compared))}.")
    if not any(roofline.results for roofline in content.sources.rooflines):
        unknown.append("How near the networks come to what the device could do: no roofline file was given.")
    outside = {measurement.timed.preprocessing == "outside" for measurement in place.results.measurements}
    decoding = "decoding and pre-processing of pictures, " if True in outside else "decoding of pictures, "
    unknown.append(f"Power, {decoding}and other load on the machine were not measured.")
    return unknown
