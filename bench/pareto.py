"""The Pareto front: the networks that no other one beats in everything that is asked for.

One beats (dominates) another where it is no worse in each objective and better in at least one. Equal ones beat each
other nowhere, so all of them stay. Who lacks a value can be neither in front nor behind, and is named apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Objective(StrEnum):
    """What can be compared, as on the command line."""

    MIOU = "miou"
    LATENCY = "latency"
    MACS = "macs"
    PARAMS = "params"

    @property
    def unit(self) -> str:
        """Name and unit, as at an axis."""
        return _UNITS[self]

    @property
    def more_is_better(self) -> bool:
        return self is Objective.MIOU


_UNITS = {
    Objective.MIOU: "mIoU %",
    Objective.LATENCY: "p50 ms",
    Objective.MACS: "conv GMACs",
    Objective.PARAMS: "params M",
}


@dataclass(frozen=True)
class Point:
    """One network as it was measured.

    Attributes:
        label: tells it from the other points.
        network: its name.
        values: per objective, in the unit of `Objective.unit`; what is not known is left out.
        spread: lowest and highest median of a round, in ms; a comparison of latencies within it is not certain.
        miou_kind: "measured", "published" or "given"; None without mIoU.
        remarks: what a reader has to know of the values, such as a mIoU of another precision.
    """

    label: str
    network: str
    values: dict[Objective, float]
    spread: tuple[float, float]
    miou_kind: str | None = None
    remarks: tuple[str, ...] = ()

    def lacks(self, objectives: Sequence[Objective]) -> list[Objective]:
        """The objectives of which there is no value."""
        return [objective for objective in objectives if objective not in self.values]


@dataclass(frozen=True)
class Beaten:
    """A point that is not on the front.

    Attributes:
        by: the points of the front that beat it.
        certain: False where each of them is faster by less than the rounds of one network differ.
    """

    point: Point
    by: tuple[Point, ...]
    certain: bool


@dataclass(frozen=True)
class Front:
    """What became of all points.

    Attributes:
        objectives: what was compared.
        best: the front, in the order of the first objective, best first.
        beaten: the others, in the order given.
        ties: groups of points of the front with equal values.
        missing: points that lack a value, in the order given.
    """

    objectives: tuple[Objective, ...]
    best: tuple[Point, ...]
    beaten: tuple[Beaten, ...]
    ties: tuple[tuple[Point, ...], ...]
    missing: tuple[Point, ...]


def front_of(points: Sequence[Point], objectives: Sequence[Objective]) -> Front:
    """The front of `points` over `objectives`, of which there is at least one."""
    known = [point for point in points if not point.lacks(objectives)]
    # In this order only earlier ones can beat a point, and beating is transitive: the front alone need be asked.
    ordered = sorted(known, key=lambda point: _costs(point, objectives))
    best: list[Point] = []
    for point in ordered:
        if not any(dominates(other, point, objectives) for other in best):
            best.append(point)
    beaten = [_beaten(point, best, objectives) for point in known if not any(point is other for other in best)]
    groups: dict[tuple[float, ...], list[Point]] = {}
    for point in best:
        groups.setdefault(_costs(point, objectives), []).append(point)
    return Front(
        objectives=tuple(objectives),
        best=tuple(best),
        beaten=tuple(beaten),
        ties=tuple(tuple(group) for group in groups.values() if len(group) > 1),
        missing=tuple(point for point in points if point.lacks(objectives)),
    )


def dominates(one: Point, other: Point, objectives: Sequence[Objective]) -> bool:
    """Whether `one` is no worse in each objective and better in at least one; both have all values."""
    ours, theirs = _costs(one, objectives), _costs(other, objectives)
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


def _costs(point: Point, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Values of which less is better."""
    return tuple(-point.values[o] if o.more_is_better else point.values[o] for o in objectives)


def _beaten(point: Point, best: Sequence[Point], objectives: Sequence[Objective]) -> Beaten:
    by = tuple(other for other in best if dominates(other, point, objectives))
    return Beaten(point, by, certain=any(_certainly_faster(other, point, objectives) for other in by))


def _certainly_faster(one: Point, other: Point, objectives: Sequence[Objective]) -> bool:
    return Objective.LATENCY not in objectives or one.spread[1] <= other.spread[0]
